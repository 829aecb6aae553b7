//! Every device against the f64 [`Reference`], one table of cases for all.
//!
//! A case writes its inputs into an [`Arena`], calls one method and names what it wrote. In each precision it runs once on the
//! reference, which leaves values with error bounds, and once on each device, whose results must lie within them. Devices of one
//! class must agree bit for bit. Everything that a case did not write is NaN, so that reading it shows.

mod arena;
mod batch_norm_cases;
mod bounded;
mod calibration_cases;
mod conv_cases;
mod derivatives;
mod image_cases;
mod mask_cases;
#[cfg(simt)]
pub(crate) mod mutations;
mod optimiser_cases;
mod pointwise_cases;
mod pool_cases;
mod reference;
mod required;
mod single_image_cases;

pub(crate) use reference::Reference;

use std::sync::LazyLock;

use super::cpu::{Cpu, Level};
use super::cuda::Cuda;
use super::cuda::driver::card::Card;
use super::cuda::driver::real::Real;
#[cfg(simt)]
use super::cuda::driver::simt;
use super::{Backend, Precision};
use crate::rng::{Domain, Stream};
use arena::Arena;
use bounded::Bounded;
use rayon::{ThreadPool, ThreadPoolBuilder};

/// A device under test.
struct Device {
    name: String,
    /// Devices of one class and precision give the same bits.
    class: &'static str,
    precision: Precision,
    /// Threads of the pool that it is made and used in.
    threads: usize,
    make: Box<dyn Fn() -> Box<dyn Backend> + Sync>,
}

static POOLS: LazyLock<[ThreadPool; 2]> =
    LazyLock::new(|| [1, 2].map(|n| ThreadPoolBuilder::new().num_threads(n).build().expect("two threads can be had")));

impl Device {
    fn cpu(level: Level, threads: usize, precision: Precision) -> Device {
        Device {
            name: format!("{level:?} on {threads} threads in {precision}"),
            class: if level == Level::Portable { "cpu without fma" } else { "cpu with fma" },
            precision,
            threads,
            make: Box::new(move || Box::new(Cpu::with_level(level).with_precision(precision))),
        }
    }

    /// The CUDA kernels on the CPU.
    #[cfg(simt)]
    fn simt(schedule: simt::Schedule, precision: Precision) -> Device {
        let make = move || Cuda::new(Box::new(simt::Simt::new(schedule)), precision).expect("the engine has memory");
        let name = format!("simt with {schedule:?} in {precision}");
        Device { name, class: "simt", precision, threads: 1, make: Box::new(move || Box::new(make())) }
    }

    /// The first GPU.
    fn gpu(precision: Precision) -> Device {
        let make = move || Cuda::new(Box::new(Real::open(0).expect("a GPU was counted")), precision);
        let name = format!("cuda:0 in {precision}");
        Device { name, class: "cuda", precision, threads: 1, make: Box::new(move || Box::new(make().unwrap())) }
    }

    /// Runs `with` on a new backend.
    fn run<T: Send>(&self, with: impl FnOnce(&mut dyn Backend) -> T + Send) -> T {
        #[cfg(simt)]
        let test = std::thread::current().name().unwrap_or_default().to_string();
        POOLS[self.threads - 1].install(|| {
            let value = with((self.make)().as_mut());
            #[cfg(simt)]
            mutations::record(&test);
            value
        })
    }
}

fn devices() -> Vec<Device> {
    let mut all = vec![];
    for precision in Precision::ALL {
        for level in Level::available().into_iter().filter(|_| !mutated() && !sanitized()) {
            all.extend([1, 2].map(|threads| Device::cpu(level, threads, precision)));
        }
        #[cfg(simt)]
        all.extend(schedules().iter().map(|&schedule| Device::simt(schedule, precision)));
        if !mutated() && Card::count().is_ok_and(|gpus| gpus > 0) {
            all.push(Device::gpu(precision));
        }
    }
    all
}

/// The orders of threads to run kernels in. What AddressSanitizer looks at, addresses, no order changes: there one is enough.
#[cfg(simt)]
fn schedules() -> &'static [simt::Schedule] {
    if sanitized() { &simt::SCHEDULES[1..2] } else { &simt::SCHEDULES }
}

/// Whether the kernels were built with AddressSanitizer (.ci/sanitize): then nothing else is of interest.
fn sanitized() -> bool {
    std::env::var_os("CIGL_SANITIZE").is_some()
}

/// Whether this process runs the kernels with a synchronisation left out: then nothing else is of interest.
pub(crate) fn mutated() -> bool {
    std::env::var_os("CIGL_SIMT_SKIP").is_some()
}

/// Runs a case everywhere, in both precisions.
fn on_every_device(name: &str, case: impl Fn(&mut Arena) + Sync) {
    let seed = name.bytes().map(u64::from).sum();
    for precision in Precision::ALL {
        let mut reference = Reference::new().with_precision(precision);
        let outputs = Arena::play(&mut reference, seed, &case);
        let expected: Vec<Vec<Bounded>> = outputs.iter().map(|output| output.expected(&mut reference)).collect();
        let mut seen: Vec<(&str, Vec<Vec<f32>>)> = vec![];
        for device in devices().into_iter().filter(|device| device.precision == precision) {
            let who = format!("{name}, {}", device.name);
            let got: Vec<Vec<f32>> = device.run(|on| {
                let outputs = Arena::play(on, seed, &case);
                outputs.iter().map(|output| output.observed(on, &who)).collect()
            });
            for (number, (got, expected)) in got.iter().zip(&expected).enumerate() {
                assert_within(&format!("{who}, output {number}"), got, expected);
            }
            match seen.iter().find(|(class, _)| *class == device.class) {
                Some((class, before)) => {
                    assert!(bits(before) == bits(&got), "{who}: bits differ within the class {class}");
                }
                None => seen.push((device.class, got)),
            }
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
