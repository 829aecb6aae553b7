//! A whole training step (augmentation, masks, forward, backward, optimiser) of the paper's CIFAR networks, in images a second.
//!
//! `cargo bench --bench training_step -- wrn22-2` for one network. The opponent is a PyTorch step of the same network and batch; run both
//! in turn on the same machine and compare ratios.

use std::hint::black_box;

use cigl::backend::cpu::Cpu;
use cigl::config::{Assignment, Config};
use cigl::data::{Dataset, ImageShape};
use cigl::train::start;
use cigl::train::trainer::Trainer;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const IMAGE: ImageShape = ImageShape { channels: 3, height: 32, width: 32 };

fn steps(c: &mut Criterion) {
    let mut group = c.benchmark_group("training_step");
    for (preset, batch) in [("cifar10-wrn22-2", 128), ("cifar10-resnet50", 32)] {
        for (method, sparsity) in [("dense", 0.0), ("cigl", 0.8), ("cigl", 0.9), ("cigl", 0.95), ("cigl", 0.99)] {
            let settings = [
                format!("method={method}"),
                format!("sparsity={sparsity}"),
                format!("train.batch_size={batch}"),
                "data.validation=0".into(),
                "train.epochs=100000".into(),
            ];
            let settings = settings.map(|s| Assignment::parse(&s).expect("a known key"));
            let config = Config::resolve(Some(preset), None, &settings).expect("a known preset");
            let set = Dataset::random(IMAGE, 10, 8 * batch).expect("the sizes fit");
            let network = start::network(&config).expect("a known network");
            let mut trainer = Trainer::start(&config, network, &set, Box::new(Cpu::new())).expect("a run");
            group.sample_size(10).throughput(Throughput::Elements(batch as u64));
            let name = format!("{preset}/batch {batch}/{method} {sparsity}");
            group.bench_function(name, |b| b.iter(|| black_box(trainer.step().expect("a finite loss"))));
        }
    }
    group.finish();
}

criterion_group!(benches, steps);
criterion_main!(benches);
