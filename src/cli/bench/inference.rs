//! `cigl bench inference`: predictions of a sparse network and of the same network dense, in turn.

use super::about;
use super::timing::{Times, in_turn};
use crate::cli::args::BenchArgs;
use crate::cli::machine;
use crate::cli::output::print;
use crate::config::{Config, Device, Method};
use crate::error::{Error, Result};
use crate::inference::InferenceSession;
use crate::model::Model;
use crate::report::table::Table;
use crate::rng::{Domain, Stream};
use crate::train::start;

pub(super) fn run(args: &BenchArgs) -> Result<()> {
    if !matches!(args.machine.device, None | Some(Device::Auto | Device::Cpu)) {
        return Err(Error::Usage("bench inference: expected --device cpu, there is no session for others".into()));
    }
    args.machine.use_threads()?;
    let [config, dense_config] = [args.config(args.method)?, args.config(Method::Dense)?];
    let batch = config.train.batch_size;
    let mut sparse = session(&config)?;
    let mut dense = session(&dense_config)?;
    let (shape, ..) = config.data.dataset.published();
    let mut draws = Stream::new(0, Domain::Weights, 2, 0);
    let images: Vec<f32> = (0..batch * shape.elements()).map(|_| draws.normal() as f32).collect();
    // The first calls build what later ones find.
    sparse.logits(&images)?;
    dense.logits(&images)?;
    let [times, dense_times] =
        in_turn(args.rounds, || sparse.logits(&images).map(drop), || dense.logits(&images).map(drop))?;
    let rate = |times: &Times| batch as f64 / times.median();
    let device = machine::backend(Device::Cpu, None)?.device();
    if args.json {
        let mut value = about(args, &config, &device, "f32");
        value["infer_img_s"] = rate(&times).into();
        value["dense_infer_img_s"] = rate(&dense_times).into();
        value["p50_ms"] = (1e3 * times.quantile(0.5)).into();
        value["p99_ms"] = (1e3 * times.quantile(0.99)).into();
        return print(format_args!("{value:#}"));
    }
    let mut table = Table::new(["inference", "sparsity (%)", "p50 (ms)", "p90 (ms)", "p99 (ms)", "images/s"]);
    for (config, times) in [(&config, &times), (&dense_config, &dense_times)] {
        let ms = |q| format!("{:.2}", 1e3 * times.quantile(q));
        table.row([
            config.method.name().to_string(),
            format!("{}", 100.0 * config.sparsity),
            ms(0.5),
            ms(0.9),
            ms(0.99),
            format!("{:.1}", rate(times)),
        ]);
    }
    print(format_args!("{}, batch {batch}, {device}", args.preset))?;
    print(table)
}

/// A session of a network as it is before training.
fn session(config: &Config) -> Result<InferenceSession> {
    let (shape, classes, _) = config.data.dataset.published();
    let image = [shape.channels, shape.height, shape.width];
    let classes = config.network.classes.unwrap_or(classes);
    let mut model = Model::new(start::network(config)?, image, classes, machine::backend(Device::Cpu, None)?)?;
    start::initialise(config, &mut model)?;
    InferenceSession::new(&mut model, || start::network(config))
}
