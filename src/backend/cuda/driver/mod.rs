//! What a CUDA device is to the backend: memory, launches in order, and recordings of launches.

mod code;
pub(crate) mod nvrtc;
pub(crate) mod real;
mod staging;

use crate::Result;

/// A place in device memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Address(pub(crate) u64);

/// A recorded sequence of launches, by its ordinal on its driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Graph(pub(crate) usize);

/// A kernel, by its name and its file's.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Kernel {
    /// The entry point.
    pub(crate) name: &'static str,
    /// The file in `kernels`, as "conv.cu".
    pub(crate) file: &'static str,
    /// The names of its parameters, in order.
    pub(crate) parameters: &'static [&'static str],
}

/// A device. Everything happens in the order of the calls.
pub(crate) trait Driver: Send {
    /// Its name, architecture and driver, as "NVIDIA H100 80GB HBM3 (sm_90, driver 13.0)".
    fn device(&self) -> String;

    /// How many blocks' worth of arithmetic it has: streaming multiprocessors.
    fn multiprocessors(&self) -> u32;

    /// Device memory, zeroed, aligned to 256 bytes.
    fn allocate(&mut self, bytes: usize) -> Result<Address>;

    /// Gives back what [`Driver::allocate`] gave.
    fn free(&mut self, at: Address);

    /// Copies to the device, after earlier launches. The bytes may be overwritten on return.
    fn write(&mut self, to: Address, bytes: &[u8]) -> Result<()>;

    /// Waits for everything before it, then copies from the device.
    fn read(&mut self, from: Address, bytes: &mut [u8]) -> Result<()>;

    /// Copies within the device. The ranges do not overlap.
    fn copy(&mut self, from: Address, to: Address, bytes: usize) -> Result<()>;

    /// Launches a kernel. Each of `arguments` holds the bytes of one parameter, passed by value.
    fn launch(&mut self, kernel: &'static Kernel, grid: [u32; 3], threads: u32, arguments: &[&[u8]]) -> Result<()>;

    /// From here on launches and copies within the device are recorded and not run.
    fn begin_capture(&mut self) -> Result<()>;

    /// Ends the recording.
    fn end_capture(&mut self) -> Result<Graph>;

    /// Runs a recording, as one launch.
    fn replay(&mut self, graph: Graph) -> Result<()>;

    /// Waits for everything before it.
    fn synchronise(&mut self) -> Result<()>;
}
