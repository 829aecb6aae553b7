//! A device that runs nothing and notes every launch: what a training step would ask of a GPU.

use std::sync::{Arc, Mutex, PoisonError};

use super::{Address, Driver, Graph, Kernel};
use crate::Result;

/// One launch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Launch {
    /// The kernel.
    pub(crate) kernel: &'static str,
    /// Type and name of each parameter, as the launch table has them.
    pub(crate) parameters: &'static [&'static str],
    /// Threads of a block.
    pub(crate) threads: u32,
    /// The grid.
    pub(crate) blocks: [u32; 3],
    /// The bytes of each argument.
    pub(crate) arguments: Vec<Vec<u8>>,
}

/// The notes, which outlive the device.
#[derive(Clone, Default)]
pub(crate) struct Notes(Arc<Mutex<Vec<Launch>>>);

impl Notes {
    /// Takes what was noted so far.
    pub(crate) fn take(&self) -> Vec<Launch> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The device. Its memory is only addresses, and reads as zeros.
pub(crate) struct Tally {
    notes: Notes,
    next: u64,
}

impl Tally {
    /// A device that writes to these notes.
    pub(crate) fn new(notes: Notes) -> Self {
        Tally { notes, next: 1 << 20 }
    }
}

impl Driver for Tally {
    fn device(&self) -> String {
        "none: launches are only counted".into()
    }

    fn allocate(&mut self, bytes: usize) -> Result<Address> {
        let at = self.next;
        self.next += (bytes as u64).next_multiple_of(256);
        Ok(Address(at))
    }

    fn free(&mut self, _: Address) {}

    fn write(&mut self, _: Address, _: &[u8]) -> Result<()> {
        Ok(())
    }

    fn read(&mut self, _: Address, bytes: &mut [u8]) -> Result<()> {
        bytes.fill(0);
        Ok(())
    }

    fn copy(&mut self, _: Address, _: Address, _: usize) -> Result<()> {
        Ok(())
    }

    fn launch(&mut self, kernel: &'static Kernel, blocks: [u32; 3], arguments: &[&[u8]]) -> Result<()> {
        let Kernel { name, parameters, threads, .. } = *kernel;
        let arguments = arguments.iter().map(|bytes| bytes.to_vec()).collect();
        let launch = Launch { kernel: name, parameters, threads, blocks, arguments };
        self.notes.0.lock().unwrap_or_else(PoisonError::into_inner).push(launch);
        Ok(())
    }

    fn begin_capture(&mut self) -> Result<()> {
        Ok(())
    }

    fn end_capture(&mut self) -> Result<Graph> {
        Ok(Graph(0))
    }

    fn replay(&mut self, _: Graph) -> Result<()> {
        Ok(())
    }

    fn forget_graphs(&mut self) {}
}
