//! Every device against the f64 [`Reference`], one table of cases for all.
//!
//! A case writes its inputs into an [`Arena`], calls one method and names what it wrote. It runs once on the reference, which
//! leaves values with error bounds, and once on each device, whose results must lie within them. Devices of one class must
//! agree bit for bit. Everything that a case did not write is NaN, so that reading it shows.

mod arena;
mod batch_norm_cases;
mod bounded;
mod conv_cases;
mod derivatives;
mod mask_cases;
mod optimiser_cases;
mod pointwise_cases;
mod pool_cases;
mod reference;

pub(crate) use reference::Reference;

use std::sync::LazyLock;

use super::cpu::{Cpu, Level};
use crate::rng::{Domain, Stream};
use arena::Arena;
use bounded::Bounded;
use rayon::{ThreadPool, ThreadPoolBuilder};

/// A device and the thread pool it runs in.
struct Device {
    level: Level,
    threads: usize,
    /// Devices of one class give the same bits.
    class: &'static str,
}

static POOLS: LazyLock<[ThreadPool; 2]> =
    LazyLock::new(|| [1, 2].map(|n| ThreadPoolBuilder::new().num_threads(n).build().expect("two threads can be had")));

fn devices() -> Vec<Device> {
    let class = |level| if level == Level::Portable { "cpu without fma" } else { "cpu with fma" };
    let with = |threads| move |level| Device { level, threads, class: class(level) };
    Level::available().into_iter().flat_map(|level| [1, 2].map(|threads| with(threads)(level))).collect()
}

/// Runs a case everywhere.
fn on_every_device(name: &str, case: impl Fn(&mut Arena) + Sync) {
    let mut reference = Reference::new();
    let outputs = Arena::play(&mut reference, &case);
    let expected: Vec<Vec<Bounded>> = outputs.iter().map(|output| output.expected(&mut reference)).collect();
    let mut seen: Vec<(&str, Vec<Vec<f32>>)> = vec![];
    for Device { level, threads, class } in devices() {
        let who = format!("{name}, {level:?} on {threads} threads");
        let got: Vec<Vec<f32>> = POOLS[threads - 1].install(|| {
            let mut cpu = Cpu::with_level(level);
            let outputs = Arena::play(&mut cpu, &case);
            outputs.iter().map(|output| output.observed(&mut cpu, &who)).collect()
        });
        for (number, (got, expected)) in got.iter().zip(&expected).enumerate() {
            assert_within(&format!("{who}, output {number}"), got, expected);
        }
        match seen.iter().find(|(c, _)| *c == class) {
            Some((_, before)) => assert!(bits(before) == bits(&got), "{who}: bits differ within the class {class}"),
            None => seen.push((class, got)),
        }
    }
}

fn bits(values: &[Vec<f32>]) -> Vec<u32> {
    values.iter().flatten().map(|x| x.to_bits()).collect()
}

fn assert_within(what: &str, got: &[f32], expected: &[Bounded]) {
    assert_eq!(got.len(), expected.len(), "{what}");
    for (i, (&x, bound)) in got.iter().zip(expected).enumerate() {
        assert!(bound.admits(x), "{what}: element {i} is {x}, expected {} within {:e}", bound.value, bound.error);
    }
}

/// Some numbers in [-1, 1), the same for the same seed.
fn values(count: usize, seed: u64) -> Vec<f32> {
    let mut stream = Stream::new(seed, Domain::Bootstrap, 0, 0);
    (0..count).map(|_| (2.0 * stream.uniform() - 1.0) as f32).collect()
}
