//! The kernels of a training step one by one, on every device there is: the CPU, and the first GPU where there is one.
//!
//! `cargo bench --bench kernels -- conv` for the convolutions alone. Throughput is in multiplications and additions of the dense
//! product for convolutions, in elements for the rest. On a GPU each sample ends with a read, which waits for the kernel and adds a
//! few microseconds: `cigl bench kernels --model h200` says what a kernel cannot be faster than.

use cigl::backend::cpu::Cpu;
use cigl::backend::cuda::Cuda;
use cigl::backend::*;
use cigl::bitmask::BitMask;
use cigl::rng::{Domain, Stream};
use cigl::{Result, Shape};
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main, measurement::WallTime};

/// Where the next span or map lies.
struct Memory {
    on: Box<dyn Backend>,
    end: usize,
}

impl Memory {
    fn span(&mut self, len: usize) -> Span {
        let span = Span { at: self.end, len };
        self.end = (self.end + len).next_multiple_of(64);
        self.on.reserve(self.end).expect("enough memory");
        span
    }

    fn noise(&mut self, len: usize) -> Span {
        let span = self.span(len);
        let mut draws = Stream::new(len as u64, Domain::Weights, 0, 0);
        let values: Vec<f32> = (0..len).map(|_| draws.normal() as f32).collect();
        self.on.write(span, &values).expect("the span is there");
        span
    }

    fn map(&mut self, shape: Shape) -> Map {
        let precision = self.on.precision();
        let at = self.span(self.on.map_len(shape, 1, precision)).at;
        let map = Map { at, shape, halo: 1, precision };
        let mut draws = Stream::new(shape.len() as u64, Domain::Weights, 1, 0);
        let values: Vec<f32> = (0..shape.len()).map(|_| draws.normal() as f32).collect();
        self.on.write_map(map, &values).expect("the map is there");
        map
    }

    /// One masked layer with a share `density` of ones.
    fn weight(&mut self, [out_channels, in_channels, k]: [usize; 3], density: f64) -> Weight {
        let len = out_channels * k * k * in_channels;
        let (value, grad) = (self.noise(len), self.noise(len));
        let weight = Weight { layer: 0, value, grad, out_channels, in_channels, kernel: [k, k] };
        let mut mask = BitMask::zeros(len);
        let mut draws = Stream::new(0, Domain::InitialMask, 0, 0);
        (0..len).filter(|_| draws.uniform() < density).for_each(|i| mask.set(i, true));
        self.on.register(&[weight]).expect("one weight");
        self.on.write_mask(0, &mask).expect("a mask of its length");
        self.on.effective_weights(Effective::Deterministic, &[]).expect("one weight");
        weight
    }
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
    memory: &mut Memory,
    mut call: impl FnMut(&mut dyn Backend) -> Result<()>,
) {
    let end = Span { at: 0, len: 1 };
    group.bench_function(name, |b| {
        b.iter(|| {
            call(memory.on.as_mut()).expect("the call is valid");
            memory.on.read(end).expect("the first word")
        });
    });
}

/// 3x3 layers of WRN-22-2 (batch 128) and ResNet-50 on CIFAR (batch 32): channels, pixels a side, batch.
const LAYERS: [[usize; 3]; 5] = [[32, 32, 128], [64, 16, 128], [128, 8, 128], [256, 8, 32], [512, 4, 32]];

fn convolutions(c: &mut Criterion) {
    let mut group = c.benchmark_group("conv2d");
    group.sample_size(10);
    for (device, on) in devices() {
        let mut memory = Memory { on, end: 64 };
        for [channels, side, batch] in LAYERS {
            let shape = Shape::images(batch, channels, side, side);
            let (x, y) = (memory.map(shape), memory.map(shape));
            let conv = Conv { stride: 1, padding: 1 };
            for density in [1.0, 0.1, 0.05] {
                let w = memory.weight([channels, channels, 3], density);
                group.throughput(Throughput::Elements((2 * shape.len() * channels * 9) as u64));
                let name = |pass: &str| format!("{device}/{channels}x{side}x{side} b{batch} density {density}/{pass}");
                let to = Sink { to: x, add: false };
                let extent = if density < 1.0 { Extent::Active } else { Extent::Dense };
                let state = StepState { seed: 0, step: 0, statistics_momentum: 0.1, extent };
                memory.on.begin_step(state).expect("a state");
                time(&mut group, name("forward"), &mut memory, |on| on.conv2d(x, w, conv, y));
                time(&mut group, name("input gradient"), &mut memory, |on| on.conv2d_grad_input(y, w, conv, to));
                let pass = name("weight gradient");
                time(&mut group, pass, &mut memory, |on| on.conv2d_grad_weight(x, y, w, conv, false));
            }
        }
    }
}

fn weights(c: &mut Criterion) {
    let mut group = c.benchmark_group("weights");
    group.sample_size(10);
    for (device, on) in devices() {
        let mut memory = Memory { on, end: 64 };
        // 2.4 million, the largest layer of ResNet-50.
        let weight = memory.weight([512, 512, 3], 0.1);
        let velocity = memory.noise(weight.len());
        group.throughput(Throughput::Elements(weight.len() as u64));
        let draw = |step| Draw { seed: 1, domain: Domain::RandomMask, step, keep: &[0.9], inverted: false };
        time(&mut group, format!("{device}/random mask"), &mut memory, |on| on.random_mask(&draw(3)));
        let update = Update {
            value: weight.value,
            grad: weight.grad,
            velocity,
            masked: Some((weight, Masking::Frozen)),
            weight_decay: 5e-4,
        };
        let rule = Rule::Sgd(Sgd { lr: 1e-6, momentum: 0.9, nesterov: true });
        let name = format!("{device}/update, random mask, effective weights");
        time(&mut group, name, &mut memory, |on| {
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
        time(&mut group, format!("{device}/prune and grow"), &mut memory, |on| on.prune_and_grow(&[job]));
    }
}

criterion_group!(benches, convolutions, weights);
criterion_main!(benches);
