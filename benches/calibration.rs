//! Calibration metrics: 50,000 x 1,000 logits in memory, and 10,000,000 x 10 streamed from a file in the page cache.
//!
//! `cargo bench --bench calibration`. `benches/torchmetrics_calibration.py` runs torchmetrics on a file and this program in turn.

use std::hint::black_box;
use std::io::{BufWriter, Write};
use std::path::Path;

use cigl::calibration::predictions::{Labels, Predictions};
use cigl::calibration::{Accumulator, Evaluator, Kind, Options, Scores, evaluate};
use cigl::rng::{Domain, Stream};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

/// Normal logits with the label's pushed up, as a trained classifier's, and labels.
fn predictions(n: usize, classes: usize) -> (Vec<f32>, Vec<u32>) {
    let mut random = Stream::new(0, Domain::Bootstrap, 0, 8);
    // Normal draws from a table: drawing 100 million would take longer than all that is measured.
    let normals: Vec<f32> = (0..65_537).map(|_| 2.0 * random.normal() as f32).collect();
    let labels: Vec<u32> = (0..n).map(|_| random.below(classes as u32)).collect();
    let mut logits: Vec<f32> = (0..n * classes).map(|i| normals[(i + i / 65_537 * 7919) % 65_537]).collect();
    for (row, &label) in logits.chunks_exact_mut(classes).zip(&labels) {
        row[label as usize] += 6.0;
    }
    (logits, labels)
}

fn in_memory(c: &mut Criterion) {
    const CLASSES: usize = 1000;
    let (logits, labels) = predictions(50_000, CLASSES);
    let mut group = c.benchmark_group("50,000 x 1,000 logits");
    group.sample_size(20).throughput(Throughput::Bytes(4 * logits.len() as u64));
    group.bench_function("every metric", |b| {
        b.iter(|| {
            let found = evaluate(Scores::Logits(&logits), &labels, CLASSES, &Options::default());
            black_box(found.expect("the logits are in order"))
        })
    });
    group.bench_function("without order, one thread", |b| {
        b.iter(|| {
            let mut accumulator = Accumulator::new(CLASSES);
            accumulator.add_logits(&logits, &labels).expect("the logits are in order");
            black_box(accumulator.metrics().expect("there are samples"))
        })
    });
    group.finish();
}

fn streamed(c: &mut Criterion) {
    const CLASSES: usize = 10;
    let folder = tempfile::tempdir().expect("a folder for files");
    let (logits, labels) = predictions(10_000_000, CLASSES);
    let (scores, truth) = (folder.path().join("logits.npy"), folder.path().join("labels.npy"));
    let bytes: Vec<u8> = logits.iter().flat_map(|z| z.to_le_bytes()).collect();
    write_npy(&scores, "<f4", "10000000, 10", &bytes);
    let bytes: Vec<u8> = labels.iter().map(|&label| label as u8).collect();
    write_npy(&truth, "|u1", "10000000,", &bytes);
    drop((logits, labels));

    let mut group = c.benchmark_group("10,000,000 x 10 logits from a file");
    group.sample_size(10).throughput(Throughput::Bytes(400_000_000));
    group.bench_function("every metric", |b| {
        b.iter(|| {
            let mut evaluator = Evaluator::new(CLASSES, Options::default());
            let file = Predictions::open(&scores, Labels::File(&truth), Some(Kind::Logits)).expect("a file");
            file.evaluate(&mut evaluator).expect("the logits are in order");
            black_box(evaluator.finish().expect("there are samples"))
        })
    });
    group.bench_function("without order", |b| {
        b.iter(|| {
            let options = Options { ordered: false, ..Options::default() };
            let mut evaluator = Evaluator::new(CLASSES, options);
            let file = Predictions::open(&scores, Labels::File(&truth), Some(Kind::Logits)).expect("a file");
            file.evaluate(&mut evaluator).expect("the logits are in order");
            black_box(evaluator.finish().expect("there are samples"))
        })
    });
    group.finish();
}

/// An array as NumPy writes it.
fn write_npy(path: &Path, descr: &str, shape: &str, bytes: &[u8]) {
    let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({shape}), }}\n");
    let mut file = BufWriter::new(std::fs::File::create(path).expect("a file"));
    let mut write = |bytes: &[u8]| file.write_all(bytes).expect("room on the disk");
    write(b"\x93NUMPY\x01\x00");
    write(&(header.len() as u16).to_le_bytes());
    write(header.as_bytes());
    write(bytes);
    file.flush().expect("room on the disk");
}

criterion_group!(benches, in_memory, streamed);
criterion_main!(benches);
