//! What the machine has: threads, memory, disk, signals.

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use super::args::Machine;
use crate::backend::cpu::Cpu;
use crate::backend::cuda::Cuda;
use crate::backend::{Backend, Precision};
use crate::config::Device;
use crate::error::{Error, Result};

impl Machine {
    /// Sets the number of threads of everything that follows in this process.
    pub(super) fn use_threads(&self) -> Result<()> {
        use_threads(self.threads)
    }
}

/// Sets the number of threads of everything that follows in this process, where one is given.
pub(super) fn use_threads(threads: Option<NonZeroUsize>) -> Result<()> {
    let Some(threads) = threads else { return Ok(()) };
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads.get())
        .build_global()
        .map_err(|e| Error::Resources(format!("{threads} threads could not be started: {e}")))
}

/// The backend of a device, in the device's own precision if none is given: f32 on the CPU, bf16 on a GPU.
pub(super) fn backend(device: Device, precision: Option<Precision>) -> Result<Box<dyn Backend>> {
    match device {
        Device::Cpu => Ok(cpu(precision)),
        Device::Cuda(ordinal) => gpu(ordinal, precision),
        Device::Simt => simt(precision),
        // A machine without GPUs is nothing to talk about; one whose GPU cannot be used is.
        Device::Auto if Cuda::count().unwrap_or(0) == 0 => Ok(cpu(precision)),
        Device::Auto => gpu(0, precision).or_else(|why| {
            eprintln!("cigl: {why}; the work is done on the CPU");
            Ok(cpu(precision))
        }),
    }
}

fn cpu(precision: Option<Precision>) -> Box<dyn Backend> {
    Box::new(Cpu::new().with_precision(precision.unwrap_or_default()))
}

fn gpu(ordinal: usize, precision: Option<Precision>) -> Result<Box<dyn Backend>> {
    Ok(Box::new(Cuda::open(ordinal, precision.unwrap_or(Precision::Bf16))?))
}

#[cfg(simt)]
fn simt(precision: Option<Precision>) -> Result<Box<dyn Backend>> {
    Ok(Box::new(Cuda::simt(precision.unwrap_or(Precision::Bf16))?))
}

#[cfg(not(simt))]
fn simt(_: Option<Precision>) -> Result<Box<dyn Backend>> {
    Err(Error::Usage(
        "--device simt: this program was built without it; build with --features simt and a C++ compiler".into(),
    ))
}

/// Bytes of memory that can be had without swapping.
pub(super) fn free_memory() -> Option<u64> {
    let mut system = sysinfo::System::new();
    system.refresh_memory();
    Some(system.available_memory()).filter(|&bytes| bytes > 0)
}

/// Bytes that can be written in the folder `path`, which need not exist yet.
pub(super) fn free_disk(path: &Path) -> Option<u64> {
    let path = std::path::absolute(path).ok()?;
    let existing = path.ancestors().find_map(|p| p.canonicalize().ok())?;
    let disks = sysinfo::Disks::new_with_refreshed_list();
    let holding = disks.list().iter().filter(|disk| existing.starts_with(disk.mount_point()));
    holding.max_by_key(|disk| disk.mount_point().as_os_str().len()).map(sysinfo::Disk::available_space)
}

/// A number that becomes that of a signal which asks to stop: Ctrl-C or SIGTERM. A second one ends the process at once.
pub(super) fn signal() -> Result<Arc<AtomicUsize>> {
    let number = Arc::new(AtomicUsize::new(0));
    let stopping = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // In this order: the first signal finds `stopping` false, sets it, and is told; the second one exits.
        flag::register_conditional_shutdown(signal, 128 + signal, stopping.clone())
            .and_then(|_| flag::register(signal, stopping.clone()))
            .and_then(|_| flag::register_usize(signal, number.clone(), signal as usize))
            .map_err(|e| Error::Resources(format!("signal {signal} cannot be handled: {e}")))?;
    }
    Ok(number)
}
