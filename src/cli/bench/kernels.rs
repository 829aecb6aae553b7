//! `cigl bench kernels`: the kernels of a training step one by one, the sparse convolutions beside the dense ones.

use serde_json::{Value, json};

use super::timing::Times;
use crate::backend::sandbox::Sandbox;
use crate::backend::{
    Backend, Conv, Draw, Effective, Extent, Growth, Map, Masking, PruneAndGrow, Rule, Sgd, Sink, StepState, Update,
};
use crate::cli::args::BenchArgs;
use crate::cli::machine;
use crate::cli::output::print;
use crate::config::Device;
use crate::error::Result;
use crate::report::table::Table;
use crate::rng::Domain;
use crate::shape::Shape;

/// Convolutions of the paper's networks on CIFAR: input channels, output channels, pixels a side, kernel, stride.
const LAYERS: [[usize; 5]; 10] = [
    [32, 32, 32, 3, 1],
    [64, 64, 16, 3, 1],
    [128, 128, 8, 3, 1],
    [64, 64, 32, 3, 1],
    [128, 128, 16, 3, 1],
    [256, 256, 8, 3, 1],
    [512, 512, 4, 3, 1],
    [128, 128, 32, 3, 2],
    [256, 64, 32, 1, 1],
    [256, 1024, 8, 1, 1],
];

/// Elements of the weight tensor that masks, updates and selections are timed on: one layer of ResNet-50, the largest.
const TENSOR: [usize; 4] = [512, 512, 3, 3];

struct Row {
    kernel: &'static str,
    shape: String,
    sparsity: f64,
    /// Seconds.
    time: f64,
    /// Seconds of the dense kernel on the same sizes, where there is one.
    dense: Option<f64>,
    /// Multiplications and additions with weights that are not zero.
    flop: f64,
    /// Bytes that must be read and written at least.
    bytes: f64,
}

/// A call's time, up to its end on the device.
fn time(sandbox: &mut Sandbox, times: &mut Times, call: impl FnOnce(&mut dyn Backend) -> Result<()>) -> Result<()> {
    times.add(|| sandbox.call(call))
}

pub(super) fn run(args: &BenchArgs) -> Result<()> {
    args.machine.use_threads()?;
    let config = args.config(args.method)?;
    let batch = config.train.batch_size;
    let open = || machine::backend(args.machine.device.unwrap_or(Device::Auto), args.precision);
    let mut rows = Vec::new();
    for layer in LAYERS {
        rows.extend(convolution(open()?, layer, batch, 1.0 - config.sparsity, args.rounds)?);
    }
    rows.extend(weights(open()?, 1.0 - config.sparsity, args.rounds)?);
    if args.json {
        return print(format_args!("{:#}", Value::Array(rows.iter().map(json).collect())));
    }
    let mut table = Table::new(["kernel", "shape", "ms", "dense (ms)", "dense / this", "GFLOP/s", "GB/s"]);
    for row in &rows {
        let some = |x: Option<f64>| x.map_or_else(String::new, |x| format!("{x:.2}"));
        table.row([
            row.kernel.to_string(),
            row.shape.clone(),
            format!("{:.3}", 1e3 * row.time),
            some(row.dense.map(|dense| 1e3 * dense)),
            some(row.dense.map(|dense| dense / row.time)),
            some((row.flop > 0.0).then_some(1e-9 * row.flop / row.time)),
            some(Some(1e-9 * row.bytes / row.time)),
        ]);
    }
    let device = open()?.device();
    print(format_args!("batch {batch}, sparsity {} %, medians of {}, {device}", 100.0 * config.sparsity, args.rounds))?;
    print(table)
}

fn json(row: &Row) -> Value {
    json!({
        "kernel": row.kernel,
        "shape": row.shape,
        "sparsity": row.sparsity,
        "ms": 1e3 * row.time,
        "dense_ms": row.dense.map(|dense| 1e3 * dense),
        "ratio": row.dense.map(|dense| dense / row.time),
        "gflops": (row.flop > 0.0).then_some(1e-9 * row.flop / row.time),
        "gbs": 1e-9 * row.bytes / row.time,
    })
}

/// The three passes of one layer, with its mask and dense in turn.
fn convolution(
    on: Box<dyn Backend>,
    [inputs, outputs, side, kernel, stride]: [usize; 5],
    batch: usize,
    density: f64,
    rounds: u32,
) -> Result<Vec<Row>> {
    let mut sandbox = Sandbox::new(on);
    let x = sandbox.map(Shape::images(batch, inputs, side, side))?;
    let y = sandbox.map(Shape::images(batch, outputs, side / stride, side / stride))?;
    let dx = Sink { to: x, add: false };
    let conv = Conv { stride, padding: kernel / 2 };
    let weights = [0, 1].map(|layer| sandbox.weight(layer, [outputs, inputs, kernel, kernel]));
    let [sparse, dense] = weights;
    let (sparse, dense) = (sparse?, dense?);
    sandbox.on.register(&[sparse, dense])?;
    let active = sandbox.mask(sparse, density)?;
    sandbox.on.effective_weights(Effective::Deterministic, &[])?;
    let mut times: [[Times; 2]; 3] = Default::default();
    for round in 0..=rounds {
        let mut now: [[Times; 2]; 3] = Default::default();
        for (i, w) in [sparse, dense].into_iter().enumerate() {
            let extent = if i == 0 { Extent::Active } else { Extent::Dense };
            sandbox.on.begin_step(StepState { seed: 0, step: 0, statistics_momentum: 0.1, extent })?;
            time(&mut sandbox, &mut now[0][i], |on| on.conv2d(x, w, conv, y))?;
            time(&mut sandbox, &mut now[1][i], |on| on.conv2d_grad_input(y, w, conv, dx))?;
            time(&mut sandbox, &mut now[2][i], |on| on.conv2d_grad_weight(x, y, w, conv, false))?;
        }
        // The first round builds what later ones find.
        if round > 0 {
            times.as_flattened_mut().iter_mut().zip(now.as_flattened()).for_each(|(all, now)| all.extend(now));
        }
    }
    let positions = y.shape.n * y.shape.pixels();
    let values = |map: Map| 4 * map.shape.len();
    let names = ["forward", "input gradient", "weight gradient"];
    let row = |(name, times): (&'static str, &[Times; 2])| Row {
        kernel: name,
        shape: format!("{inputs}x{side}x{side} to {outputs}, {kernel}x{kernel} / {stride}"),
        sparsity: 1.0 - density,
        time: times[0].median(),
        dense: Some(times[1].median()),
        flop: 2.0 * (positions * active) as f64,
        bytes: (values(x) + values(y) + 4 * active) as f64,
    };
    Ok(names.into_iter().zip(&times).map(row).collect())
}

/// What happens to weights between two passes.
fn weights(on: Box<dyn Backend>, density: f64, rounds: u32) -> Result<Vec<Row>> {
    let mut sandbox = Sandbox::new(on);
    let weight = sandbox.weight(0, TENSOR)?;
    let len = weight.len();
    let velocity = sandbox.noise(len)?;
    sandbox.on.register(&[weight])?;
    let active = sandbox.mask(weight, density)?;
    let draw = |step| Draw { seed: 1, domain: Domain::RandomMask, step, keep: &[0.9], inverted: false };
    let update = Update {
        value: weight.value,
        grad: weight.grad,
        velocity,
        masked: Some((weight, Masking::Frozen)),
        weight_decay: 5e-4,
    };
    let rule = Rule::Sgd(Sgd { lr: 1e-6, momentum: 0.9, nesterov: true });
    let change = (active / 33).min(len - active);
    let growth = Growth::Gradient;
    let job = PruneAndGrow { weight, drop: change, grow: change, growth, velocity, dense_momentum: false, leak: None };
    let mut times: [Times; 3] = Default::default();
    for round in 0..=rounds {
        let mut now: [Times; 3] = Default::default();
        time(&mut sandbox, &mut now[0], |on| on.random_mask(&draw(round)))?;
        time(&mut sandbox, &mut now[1], |on| {
            on.update_and_mask(rule, &[update], &[], Some(&draw(round)), Effective::Random)
        })?;
        time(&mut sandbox, &mut now[2], |on| on.prune_and_grow(&[job]))?;
        if round > 0 {
            times.iter_mut().zip(&now).for_each(|(all, now)| all.extend(now));
        }
    }
    // The update reads weight, gradient and momentum and writes weight, momentum and effective weight.
    let kernels =
        [("random mask", len / 8), ("update, mask, effective weights", 24 * len), ("prune and grow", 8 * len)];
    let row = |((kernel, bytes), times): ((&'static str, usize), &Times)| Row {
        kernel,
        shape: TENSOR.map(|n| n.to_string()).join("x"),
        sparsity: 1.0 - density,
        time: times.median(),
        dense: None,
        flop: 0.0,
        bytes: bytes as f64,
    };
    Ok(kernels.into_iter().zip(&times).map(row).collect())
}
