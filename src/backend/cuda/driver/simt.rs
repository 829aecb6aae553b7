//! The kernels on the CPU: the same sources, compiled by a C++ compiler, run by the engine in `engine.cpp`.

use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};

use super::{Address, Driver, Graph, Kernel};
use crate::Result;
use crate::error::Error;

#[repr(C)]
struct Entry {
    _opaque: [u8; 0],
}

// SAFETY: these are the functions at the end of engine.cpp.
unsafe extern "C" {
    fn simt_find(name: *const c_char) -> *const Entry;
    fn simt_parameters(entry: *const Entry, sizes: *mut c_uint) -> c_uint;
    fn simt_launch(
        entry: *const Entry,
        arguments: *const *const c_void,
        blocks: *const u32,
        threads: c_uint,
        schedule: *const u32,
        message: *mut c_char,
        message_size: usize,
    ) -> c_int;
    fn simt_allocate(bytes: usize) -> *mut c_void;
    fn simt_free(at: *mut c_void);
    #[cfg(test)]
    fn simt_forget_visits();
    #[cfg(test)]
    fn simt_visited(number: c_uint, file: *mut *const c_char, line: *mut c_int) -> bool;
}

/// The most parameters that the engine takes.
const PARAMETERS: usize = 32;

/// Which thread of a block goes next where several could.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Warps and lanes upwards, each as far as it can.
    Forward,
    /// The same downwards.
    Reverse,
    /// Shuffled by a seed, warps left half way now and then.
    Random(u32),
}

/// One way to run a grid that the CUDA model allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Schedule {
    /// The order of threads.
    pub(crate) order: Order,
    /// Asynchronous copies land when they are waited for; otherwise at once.
    pub(crate) late_copies: bool,
}

/// The schedules that tests run: between them they show every missing synchronisation that the model can show.
pub(crate) const SCHEDULES: [Schedule; 4] = [
    Schedule { order: Order::Forward, late_copies: false },
    Schedule { order: Order::Reverse, late_copies: true },
    Schedule { order: Order::Random(1), late_copies: true },
    Schedule { order: Order::Random(2), late_copies: false },
];

enum Recorded {
    Launch { kernel: &'static Kernel, blocks: [u32; 3], arguments: Vec<Vec<u8>> },
    Copy { from: Address, to: Address, bytes: usize },
}

/// A device that is the engine.
pub(crate) struct Simt {
    schedule: Schedule,
    allocated: Vec<Address>,
    capture: Option<Vec<Recorded>>,
    graphs: Vec<Vec<Recorded>>,
}

impl Simt {
    /// A device that runs every launch under this schedule.
    pub(crate) fn new(schedule: Schedule) -> Self {
        Simt { schedule, allocated: vec![], capture: None, graphs: vec![] }
    }

    /// An error while launches are recorded, as on a GPU.
    fn now(&self, what: &str) -> Result<()> {
        match self.capture {
            Some(_) => Err(Error::Device(format!("simt: {what} while launches are recorded"))),
            None => Ok(()),
        }
    }

    fn copy_now(&self, from: Address, to: Address, bytes: usize) {
        // SAFETY: the backend addresses its own allocations.
        unsafe { std::ptr::copy(from.0 as *const u8, to.0 as *mut u8, bytes) };
    }

    fn run(&self, kernel: &Kernel, blocks: [u32; 3], arguments: &[&[u8]]) -> Result<()> {
        let failed = |detail: String| Error::Device(format!("simt: kernel {}: {detail}", kernel.name));
        let name = CString::new(kernel.name).map_err(|_| failed("its name holds a zero".into()))?;
        // SAFETY: a string that outlives the call.
        let entry = unsafe { simt_find(name.as_ptr()) };
        if entry.is_null() {
            return Err(failed(format!("is not in {}", kernel.file)));
        }
        let mut sizes = [0; PARAMETERS];
        // SAFETY: `sizes` has room for the most parameters that an entry can have.
        let count = unsafe { simt_parameters(entry, sizes.as_mut_ptr()) } as usize;
        let given: Vec<u32> = arguments.iter().map(|a| a.len() as u32).collect();
        if given != sizes[..count] {
            return Err(failed(format!("takes parameters of {:?} bytes, got {given:?}", &sizes[..count])));
        }
        // The engine reads parameters through pointers of their types, so they must lie aligned.
        let aligned: Vec<Vec<u64>> = arguments
            .iter()
            .map(|bytes| {
                let mut words = vec![0u64; bytes.len().div_ceil(8)];
                bytemuck::cast_slice_mut::<u64, u8>(&mut words)[..bytes.len()].copy_from_slice(bytes);
                words
            })
            .collect();
        let pointers: Vec<*const c_void> = aligned.iter().map(|words| words.as_ptr().cast()).collect();
        let (order, seed) = match self.schedule.order {
            Order::Forward => (0, 1),
            Order::Reverse => (1, 1),
            Order::Random(seed) => (2, seed),
        };
        let schedule = [order, seed, u32::from(self.schedule.late_copies)];
        let mut message = [0 as c_char; 800];
        // SAFETY: the parameters have the sizes that the kernel's have; what they point at is guarded by the engine.
        let rc = unsafe {
            simt_launch(
                entry,
                pointers.as_ptr(),
                blocks.as_ptr(),
                kernel.threads,
                schedule.as_ptr(),
                message.as_mut_ptr(),
                message.len(),
            )
        };
        if rc == 0 {
            return Ok(());
        }
        // SAFETY: the engine ends its message with a zero.
        Err(failed(unsafe { CStr::from_ptr(message.as_ptr()) }.to_string_lossy().into_owned()))
    }
}

impl Driver for Simt {
    fn device(&self) -> String {
        "simt (CUDA kernels on the CPU)".into()
    }

    fn allocate(&mut self, bytes: usize) -> Result<Address> {
        self.now("memory was asked for")?;
        // SAFETY: any size is allowed.
        let at = unsafe { simt_allocate(bytes.max(16)) };
        if at.is_null() {
            return Err(Error::Resources(format!("simt: no memory for {bytes} bytes")));
        }
        let at = Address(at as u64);
        self.allocated.push(at);
        Ok(at)
    }

    fn free(&mut self, at: Address) {
        self.allocated.retain(|a| *a != at);
        // SAFETY: nobody keeps what the backend frees.
        unsafe { simt_free(at.0 as *mut c_void) }
    }

    fn write(&mut self, to: Address, bytes: &[u8]) -> Result<()> {
        self.now("a write was asked for")?;
        // SAFETY: the backend addresses its own allocations.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to.0 as *mut u8, bytes.len()) };
        Ok(())
    }

    fn read(&mut self, from: Address, bytes: &mut [u8]) -> Result<()> {
        self.now("a read was asked for")?;
        // SAFETY: as for `write`.
        unsafe { std::ptr::copy_nonoverlapping(from.0 as *const u8, bytes.as_mut_ptr(), bytes.len()) };
        Ok(())
    }

    fn copy(&mut self, from: Address, to: Address, bytes: usize) -> Result<()> {
        match &mut self.capture {
            Some(capture) => capture.push(Recorded::Copy { from, to, bytes }),
            None => self.copy_now(from, to, bytes),
        }
        Ok(())
    }

    fn launch(&mut self, kernel: &'static Kernel, blocks: [u32; 3], arguments: &[&[u8]]) -> Result<()> {
        if let Some(capture) = &mut self.capture {
            let arguments = arguments.iter().map(|bytes| bytes.to_vec()).collect();
            capture.push(Recorded::Launch { kernel, blocks, arguments });
            return Ok(());
        }
        self.run(kernel, blocks, arguments)
    }

    fn begin_capture(&mut self) -> Result<()> {
        self.now("a recording was asked for")?;
        self.capture = Some(vec![]);
        Ok(())
    }

    fn end_capture(&mut self) -> Result<Graph> {
        let recorded = self.capture.take();
        self.graphs.push(recorded.ok_or_else(|| Error::Device("simt: nothing was being recorded".into()))?);
        Ok(Graph(self.graphs.len() - 1))
    }

    fn replay(&mut self, graph: Graph) -> Result<()> {
        self.now("a replay was asked for")?;
        let recorded = self.graphs.get(graph.0);
        let recorded =
            recorded.ok_or_else(|| Error::Device(format!("simt: no recording has the number {}", graph.0)))?;
        recorded.iter().try_for_each(|call| match call {
            Recorded::Launch { kernel, blocks, arguments } => {
                let arguments: Vec<&[u8]> = arguments.iter().map(Vec::as_slice).collect();
                self.run(kernel, *blocks, &arguments)
            }
            Recorded::Copy { from, to, bytes } => {
                self.copy_now(*from, *to, *bytes);
                Ok(())
            }
        })
    }

    fn forget_graphs(&mut self) {
        self.graphs.clear();
    }
}

impl Drop for Simt {
    fn drop(&mut self) {
        for at in std::mem::take(&mut self.allocated) {
            self.free(at);
        }
    }
}

/// A place where a kernel's threads wait for each other or for memory.
#[cfg(test)]
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Site {
    /// The source, as the compiler was told of it.
    pub(crate) file: String,
    pub(crate) line: u32,
}

/// The places of synchronisation that launches on this thread passed since the last call.
#[cfg(test)]
pub(crate) fn take_visits() -> Vec<Site> {
    let visit = |number| {
        let (mut file, mut line) = (std::ptr::null(), 0);
        // SAFETY: two places to write to; the string is a literal.
        unsafe {
            simt_visited(number, &mut file, &mut line)
                .then(|| Site { file: CStr::from_ptr(file).to_string_lossy().into_owned(), line: line as u32 })
        }
    };
    let mut sites: Vec<Site> = (0..).map_while(visit).collect();
    // SAFETY: no arguments.
    unsafe { simt_forget_visits() };
    sites.sort();
    sites.dedup();
    sites
}
