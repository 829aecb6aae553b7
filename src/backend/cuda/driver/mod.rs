//! What the CUDA backend needs of a device: memory, ordered launches, captured graphs.
//!
//! One implementation drives a GPU; another runs the same kernels on the CPU, for tests.

#[cfg(test)]
pub(crate) mod available;
pub(crate) mod card;
mod code;
#[allow(dead_code)] // build.rs uses what is not used here
pub(crate) mod nvrtc;
pub(crate) mod real;
#[cfg(simt)]
pub(crate) mod simt;
mod staging;
pub(crate) mod tally;

use crate::Result;

/// A place in device memory, in bytes.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
pub(crate) struct Address(pub(crate) u64);

impl Address {
    /// The place this many bytes further.
    pub(crate) fn plus(self, bytes: usize) -> Self {
        Address(self.0 + bytes as u64)
    }
}

/// A kernel as the launch table has it.
#[derive(Debug)]
pub(crate) struct Kernel {
    /// The entry point.
    pub(crate) name: &'static str,
    /// Its file under kernels/.
    pub(crate) file: &'static str,
    /// Threads of a block, as its launch bounds say.
    pub(crate) threads: u32,
    /// Type and name of each parameter.
    pub(crate) parameters: &'static [&'static str],
}

/// A captured sequence of launches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Graph(pub(crate) usize);

/// A device. Everything happens in the order of the calls.
pub(crate) trait Driver: Send {
    /// The device in a few words.
    fn device(&self) -> String;
    /// Takes memory, zero at first.
    fn allocate(&mut self, bytes: usize) -> Result<Address>;
    /// Gives memory back.
    fn free(&mut self, at: Address);
    /// Copies bytes in; they may be reused on return.
    fn write(&mut self, to: Address, bytes: &[u8]) -> Result<()>;
    /// Waits for all that was asked for, and copies bytes out.
    fn read(&mut self, from: Address, bytes: &mut [u8]) -> Result<()>;
    /// Copies within the device.
    fn copy(&mut self, from: Address, to: Address, bytes: usize) -> Result<()>;
    /// Starts a kernel; each argument is the bytes of one parameter.
    fn launch(&mut self, kernel: &'static Kernel, blocks: [u32; 3], arguments: &[&[u8]]) -> Result<()>;
    /// From here on launches and copies are recorded and not run. What cannot be recorded is an error: taking memory, writing,
    /// reading, replaying.
    fn begin_capture(&mut self) -> Result<()>;
    /// Ends the recording.
    fn end_capture(&mut self) -> Result<Graph>;
    /// Runs what was recorded.
    fn replay(&mut self, graph: Graph) -> Result<()>;
    /// Forgets all recordings.
    fn forget_graphs(&mut self);
}
