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
#[cfg(simt)]
use super::cuda::{Cuda, driver::simt};
use super::{Backend, Precision};
use crate::rng::{Domain, Stream};
use arena::Arena;
use bounded::Bounded;
use rayon::{ThreadPool, ThreadPoolBuilder};

/// A device that cases run on.
struct Device {
    name: String,
    /// Devices of one class give the same bits.
    class: &'static str,
    /// Threads of the pool that it runs in.
    threads: usize,
    make: Box<dyn Fn() -> Box<dyn Backend> + Send + Sync>,
}

static POOLS: LazyLock<[ThreadPool; 2]> =
    LazyLock::new(|| [1, 2].map(|n| ThreadPoolBuilder::new().num_threads(n).build().expect("two threads can be had")));

fn devices() -> Vec<Device> {
    let mut devices = vec![];
    for level in Level::available() {
        for threads in [1, 2] {
            devices.push(Device {
                name: format!("{level:?} on {threads} threads"),
                class: if level == Level::Portable { "cpu without fma" } else { "cpu with fma" },
                threads,
                make: Box::new(move || Box::new(Cpu::with_level(level))),
            });
        }
    }
    #[cfg(simt)]
    for schedule in simt::SCHEDULES {
        devices.push(Device {
            name: format!("{schedule:?}"),
            class: "simt",
            threads: 1,
            make: Box::new(move || {
                let driver = Box::new(simt::Simt::new(schedule));
                Box::new(Cuda::new(driver, Precision::F32).expect("the engine has memory"))
            }),
        });
    }
    devices
}

/// Runs a case everywhere.
fn on_every_device(name: &str, case: impl Fn(&mut Arena) + Sync) {
    let mut reference = Reference::new();
    let outputs = Arena::play(&mut reference, &case);
    let expected: Vec<Vec<Bounded>> = outputs.iter().map(|output| output.expected(&mut reference)).collect();
    let mut seen: Vec<(&str, Vec<Vec<f32>>)> = vec![];
    for device in devices() {
        let who = format!("{name}, {}", device.name);
        let got: Vec<Vec<f32>> = POOLS[device.threads - 1].install(|| {
            let mut backend = (device.make)();
            let outputs = Arena::play(backend.as_mut(), &case);
            outputs.iter().map(|output| output.observed(backend.as_mut(), &who)).collect()
        });
        for (number, (got, expected)) in got.iter().zip(&expected).enumerate() {
            assert_within(&format!("{who}, output {number}"), got, expected);
        }
        match seen.iter().find(|(c, _)| *c == device.class) {
            Some((_, before)) => assert!(bits(before) == bits(&got), "{who}: bits differ within its class"),
            None => seen.push((device.class, got)),
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
