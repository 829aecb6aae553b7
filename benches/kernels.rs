//! The kernels of a training step one by one, on every device there is: the CPU, and the first GPU where there is one.
//!
//! `cargo bench --bench kernels -- conv` for the convolutions alone. Throughput is in multiplications and additions of the dense
//! product for convolutions, in elements for the rest. On a GPU each sample ends with a read, which waits for the kernel and adds a
//! few microseconds: `cigl bench kernels --model h200` says what a kernel cannot be faster than.

use cigl::backend::cpu::Cpu;
use cigl::backend::cuda::Cuda;
use cigl::backend::sandbox::Sandbox;
use cigl::backend::*;
use cigl::rng::Domain;
use cigl::{Result, Shape};
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main, measurement::WallTime};

/// A masked layer with a share `density` of ones.
fn masked(sandbox: &mut Sandbox, [out_channels, in_channels, k]: [usize; 3], density: f64) -> Weight {
    let weight = sandbox.weight(0, [out_channels, in_channels, k, k]).expect("enough memory");
    sandbox.on.register(&[weight]).expect("one weight");
    sandbox.mask(weight, density).expect("a mask of its length");
    sandbox.on.effective_weights(Effective::Deterministic, &[]).expect("one weight");
    weight
}

fn devices() -> Vec<(&'static str, Box<dyn Backend>)> {
    let mut all: Vec<(_, Box<dyn Backend>)> = vec![("cpu f32", Box::new(Cpu::new()))];
    if Cuda::count().is_ok_and(|count| count > 0) {
        for (name, precision) in [("cuda bf16", Precision::Bf16), ("cuda f32", Precision::F32)] {
            all.push((name, Box::new(Cuda::open(0, precision).expect("the GPU can be used"))));
        }
    }
    all
}

/// Times a call, up to its end on the device.
fn time(
    group: &mut BenchmarkGroup<WallTime>,
    name: String,
    sandbox: &mut Sandbox,
    mut call: impl FnMut(&mut dyn Backend) -> Result<()>,
) {
    group.bench_function(name, |b| {
        b.iter(|| sandbox.call(&mut call).expect("the call is valid"));
    });
}

/// 3x3 layers of WRN-22-2 (batch 128) and ResNet-50 on CIFAR (batch 32): channels, pixels a side, batch.
const LAYERS: [[usize; 3]; 5] = [[32, 32, 128], [64, 16, 128], [128, 8, 128], [256, 8, 32], [512, 4, 32]];

fn convolutions(c: &mut Criterion) {
    let mut group = c.benchmark_group("conv2d");
    group.sample_size(10);
    for (device, on) in devices() {
        let mut sandbox = Sandbox::new(on);
        for [channels, side, batch] in LAYERS {
            let shape = Shape::images(batch, channels, side, side);
            let (x, y) = (sandbox.map(shape).expect("enough memory"), sandbox.map(shape).expect("enough memory"));
            let conv = Conv { stride: 1, padding: 1 };
            for density in [1.0, 0.1, 0.05] {
                let w = masked(&mut sandbox, [channels, channels, 3], density);
                group.throughput(Throughput::Elements((2 * shape.len() * channels * 9) as u64));
                let name = |pass: &str| format!("{device}/{channels}x{side}x{side} b{batch} density {density}/{pass}");
                let to = Sink { to: x, add: false };
                let extent = if density < 1.0 { Extent::Active } else { Extent::Dense };
                let state = StepState { seed: 0, step: 0, statistics_momentum: 0.1, extent };
                sandbox.on.begin_step(state).expect("a state");
                time(&mut group, name("forward"), &mut sandbox, |on| on.conv2d(x, w, conv, y));
                time(&mut group, name("input gradient"), &mut sandbox, |on| on.conv2d_grad_input(y, w, conv, to));
                let pass = name("weight gradient");
                time(&mut group, pass, &mut sandbox, |on| on.conv2d_grad_weight(x, y, w, conv, false));
            }
        }
    }
}

fn weights(c: &mut Criterion) {
    let mut group = c.benchmark_group("weights");
    group.sample_size(10);
    for (device, on) in devices() {
        let mut sandbox = Sandbox::new(on);
        // 2.4 million, the largest layer of ResNet-50.
        let weight = masked(&mut sandbox, [512, 512, 3], 0.1);
        let velocity = sandbox.noise(weight.len()).expect("enough memory");
        group.throughput(Throughput::Elements(weight.len() as u64));
        let draw = |step| Draw { seed: 1, domain: Domain::RandomMask, step, keep: &[0.9], inverted: false };
        time(&mut group, format!("{device}/random mask"), &mut sandbox, |on| on.random_mask(&draw(3)));
        let update = Update {
            value: weight.value,
            grad: weight.grad,
            velocity,
            masked: Some((weight, Masking::Frozen)),
            weight_decay: 5e-4,
        };
        let rule = Rule::Sgd(Sgd { lr: 1e-6, momentum: 0.9, nesterov: true });
        let name = format!("{device}/update, random mask, effective weights");
        time(&mut group, name, &mut sandbox, |on| {
            on.update_and_mask(rule, &[update], &[], Some(&draw(4)), Effective::Random)
        });
        let drop = weight.len() / 33;
        let job = PruneAndGrow {
            weight,
            drop,
            grow: drop,
            growth: Growth::Gradient,
            velocity,
            dense_momentum: false,
            leak: None,
        };
        time(&mut group, format!("{device}/prune and grow"), &mut sandbox, |on| on.prune_and_grow(&[job]));
    }
}

criterion_group!(benches, convolutions, weights);
criterion_main!(benches);
