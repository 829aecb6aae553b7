//! `cigl bench step`: whole training steps, of the sparse network and of the same network dense, in turn.

use super::about;
use super::timing::{Times, in_turn, memory, peak_memory};
use crate::cli::args::BenchArgs;
use crate::cli::machine;
use crate::cli::output::print;
use crate::config::{Config, Method};
use crate::data::Dataset;
use crate::error::Result;
use crate::report::table::Table;
use crate::train::start;
use crate::train::trainer::Trainer;

/// Steps before the clock runs: the first one plans, takes memory and builds indices.
const WARM_UP: usize = 2;

pub(super) fn run(args: &BenchArgs) -> Result<()> {
    args.machine.use_threads()?;
    let config = args.config(args.method)?;
    let dense_config = args.config(Method::Dense)?;
    let set = images(&config)?;
    let before = memory();
    let mut sparse = trainer(&config, &set)?;
    warm_up(&mut sparse)?;
    let peak_bytes = peak_memory().zip(before).map(|(peak, before)| peak - before);
    let mut dense = trainer(&dense_config, &set)?;
    warm_up(&mut dense)?;
    let [times, dense_times] = in_turn(args.rounds, || sparse.step().map(drop), || dense.step().map(drop))?;
    let batch = config.train.batch_size;
    let rate = |times: &Times| batch as f64 / times.median();
    let device = sparse.model().backend().device();
    if args.json {
        let mut value = about(args, &config, &device, sparse.model().backend().precision().name());
        value["train_img_s"] = rate(&times).into();
        value["dense_train_img_s"] = rate(&dense_times).into();
        value["peak_bytes"] = peak_bytes.into();
        return print(format_args!("{value:#}"));
    }
    let mut table = Table::new(["training step", "sparsity (%)", "median (ms)", "10th to 90th percentile", "images/s"]);
    for (config, times) in [(&config, &times), (&dense_config, &dense_times)] {
        let ms = |q| 1e3 * times.quantile(q);
        table.row([
            config.method.name().to_string(),
            format!("{}", 100.0 * config.sparsity),
            format!("{:.1}", ms(0.5)),
            format!("{:.1} to {:.1}", ms(0.1), ms(0.9)),
            format!("{:.1}", rate(times)),
        ]);
    }
    print(format_args!("{}, batch {batch}, {device}", args.preset))?;
    print(table)?;
    let ratio = dense_times.median() / times.median();
    let peak = peak_bytes.map_or_else(String::new, |bytes| format!("; it holds {} MB at most", bytes / 1_000_000));
    print(format_args!("{} takes 1/{ratio:.2} of the time of dense{peak}", config.method))
}

/// Eight batches of random images.
fn images(config: &Config) -> Result<Dataset> {
    let (shape, classes, _) = config.data.dataset.published();
    Dataset::random(shape, config.network.classes.unwrap_or(classes), 8 * config.train.batch_size)
}

fn trainer<'a>(config: &'a Config, set: &'a Dataset) -> Result<Trainer<'a>> {
    Trainer::start(config, start::network(config)?, set, machine::backend(config.device, config.precision)?)
}

fn warm_up(trainer: &mut Trainer) -> Result<()> {
    (0..WARM_UP).try_for_each(|_| trainer.step().map(drop))
}
