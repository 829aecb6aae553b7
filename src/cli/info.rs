//! `cigl info`: what the program and a preset consist of, without training.

use indicatif::HumanCount;
use serde_json::json;

use super::args::InfoArgs;
use super::kernels;
use super::machine;
use super::output::print;
use crate::backend::cpu::{Crossover, Level, crossovers};
use crate::backend::cuda::driver::card::Card;
use crate::config::Device;
use crate::error::{Error, Result};
use crate::graph::Mode;
use crate::model::Model;
use crate::report::table::Table;
use crate::train::schedule::Timetable;
use crate::train::start;
use crate::train::summary::{costs, planned_ones};

pub(super) fn run(args: &InfoArgs) -> Result<()> {
    let config = args.config()?;
    let backend = machine::backend(Device::Cpu, config.as_ref().and_then(|config| config.precision))?;
    let device = backend.device();
    let Some(config) = config else {
        return program(&device, args.json);
    };
    let (shape, published_classes, [published, _]) = config.data.dataset.published();
    let classes = config.network.classes.unwrap_or(published_classes);
    let image = [shape.channels, shape.height, shape.width];
    let timetable = Timetable::new(&config, config.split(published)?.0)?;
    let mut model = Model::new(start::network(&config)?, image, classes, backend)?;
    let costs = costs(&config, &timetable, &model, &planned_ones(&config, &model)?)?;
    let plan = model.plan(Mode::Train, config.train.batch_size)?.to_string();
    let bytes = model.bytes();
    if args.json {
        let mut value = serde_json::to_value(&costs)
            .map_err(|e| Error::Resources(format!("the costs cannot be written as JSON: {e}")))?;
        value["plan_bytes"] = bytes.into();
        value["mask_updates"] = timetable.update_count().into();
        value["snapshots"] = timetable.snapshot_count().into();
        if args.plan {
            value["plan"] = plan.lines().collect::<Vec<_>>().into();
        }
        return print(format_args!("{value:#}"));
    }
    let preset = config.preset.as_deref().unwrap_or("");
    print(format_args!("{preset}: {} with {}, {} % sparse", model.network(), config.method, 100.0 * config.sparsity))?;
    print(format_args!("device          {device}"))?;
    let count = |n: usize| HumanCount(n as u64);
    print(format_args!("parameters      {} of which {} are active", count(costs.params), count(costs.params_active)))?;
    print(format_args!(
        "operations      {:.4} of dense training, {:.4} of dense inference",
        costs.train_flops_ratio, costs.inference_flops_ratio
    ))?;
    print(format_args!(
        "schedule        {} steps in {} epochs, {} mask updates, {} snapshots",
        HumanCount(timetable.steps),
        timetable.epochs,
        timetable.update_count(),
        timetable.snapshot_count()
    ))?;
    print(format_args!(
        "memory          {:.1} MiB for parameters, gradients and activations of a step of {} images\n",
        bytes as f64 / f64::from(1 << 20),
        config.train.batch_size
    ))?;
    if args.plan {
        return print(plan);
    }
    let mut table = Table::new(["masked tensor", "shape", "density"]);
    for (_, p) in model.parameters().weights() {
        let density = costs.density_by_layer[&p.name].as_f64().unwrap_or(0.0);
        let shape = p.dims.iter().map(usize::to_string).collect::<Vec<_>>().join("x");
        table.row([p.name.clone(), shape, format!("{density:.6}")]);
    }
    print(table)
}

fn program(device: &str, json: bool) -> Result<()> {
    let (version, threads) = (env!("CARGO_PKG_VERSION"), rayon::current_num_threads());
    let simd = format!("{:?}", Level::detect()).to_lowercase();
    let below: Vec<&Crossover> = crossovers(Level::detect()).collect();
    let (gpus, why_none) = match gpus() {
        Ok(gpus) => (gpus, None),
        Err(why) => (Vec::new(), Some(why.to_string())),
    };
    if json {
        let devices: Vec<&str> = std::iter::once(device).chain(gpus.iter().map(String::as_str)).collect();
        let program = json!({
            "version": version, "devices": devices, "threads": threads, "simd": simd,
            "sparse_below": below.iter().map(|row| json!({
                "kernel": kernel_size(row), "stride": stride(row), "density": row.density
            })).collect::<Vec<_>>(),
            "kernels": kernels::json()
        });
        return print(format_args!("{program:#}"));
    }
    print(format_args!("cigl {version}\ndevices  {device}"))?;
    for gpu in gpus.iter().chain(&why_none.map(|why| format!("no CUDA: {why}"))) {
        print(format_args!("         {gpu}"))?;
    }
    print(format_args!(
        "threads  {threads}\nsimd     {simd} (CIGL_SIMD=avx512|avx2|portable forces one); {} on the sparse kernels{}\nkernels  {}",
        if below.is_empty() { "all layers run" } else { "layers below these densities run" },
        below
            .iter()
            .map(|row| format!("\n         {} / {}: {}", kernel_size(row), stride(row), row.density))
            .collect::<String>(),
        kernels::origin()
    ))?;
    match kernels::table() {
        Some(table) => print(format_args!(
            "\nshared memory of a block in bytes, registers of a thread on each architecture:\n\n{table}"
        )),
        None => Ok(()),
    }
}

/// The kernels that a row of the table is about.
fn kernel_size(row: &Crossover) -> &'static str {
    if row.window { "3x3 and larger" } else { "1x1" }
}

/// The strides that it is about.
fn stride(row: &Crossover) -> &'static str {
    if row.strided { "2 and more" } else { "1" }
}

/// The GPUs, as "cuda:0 NVIDIA H100 80GB HBM3 (sm_90, driver 13.0)".
fn gpus() -> Result<Vec<String>> {
    (0..Card::count()?).map(|i| Ok(format!("cuda:{i} {}", Card::find(i)?.describe()))).collect()
}
