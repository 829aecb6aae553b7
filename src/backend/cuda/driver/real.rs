//! A GPU, through CUDA's driver API. The library is loaded when it is first asked for, so the program runs without one.
//!
//! All work goes to one stream, in the order of the calls. The calls' preconditions are those of the "CUDA Driver API"
//! manual; what a comment claims of CUDA is said there.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{CString, c_void};

use cudarc::driver::result::{
    self, DriverError, ctx, graph as graphs, module as modules, primary_ctx, stream as streams,
};
use cudarc::driver::sys::{
    CUcontext, CUfunction, CUgraphExec, CUgraphInstantiate_flags, CUmodule, CUresult, CUstream, CUstreamCaptureMode,
};

use super::card::{Card, fault};
use super::code::{Code, code};
use super::staging::Staging;
use super::{Address, Driver, Graph, Kernel};
use crate::backend::cuda::ptx::Entry;
use crate::{Error, Result};

/// A GPU.
pub(crate) struct Real {
    card: Card,
    context: CUcontext,
    stream: CUstream,
    modules: Vec<CUmodule>,
    kernels: HashMap<String, (CUfunction, Entry)>,
    graphs: Vec<CUgraphExec>,
    staging: Staging,
    /// Bytes of each allocation, by its address.
    allocations: BTreeMap<u64, usize>,
    recording: bool,
    /// The last kernel launched, which errors that show later name.
    latest: &'static str,
}

// SAFETY: the handles are valid in every thread of the process, and each call makes the context current in its thread first.
unsafe impl Send for Real {}

impl Real {
    /// The GPU with this ordinal, with its kernels loaded.
    pub(crate) fn open(ordinal: usize) -> Result<Self> {
        let card = Card::find(ordinal)?;
        let place = |what: &str| format!("cuda:{ordinal} ({}): {what}", card.name);
        // Before a context takes memory on a device that cannot be used.
        let code = code(card.target).map_err(|why| Error::Device(place(&why)))?;

        // SAFETY: the device is one that CUDA has given; the context is released once, when `real` is dropped.
        let context = unsafe { primary_ctx::retain(card.handle) }.map_err(|e| fault(&place("no context"), e))?;
        let no_stream = place("no stream");
        let mut real = Real {
            card,
            context,
            stream: streams::null(),
            modules: Vec::new(),
            kernels: HashMap::new(),
            graphs: Vec::new(),
            staging: Staging::default(),
            allocations: BTreeMap::new(),
            recording: false,
            latest: "",
        };
        real.enter()?;
        // A stream of its own, since the default one cannot be recorded and waits for others.
        real.stream = streams::create(streams::StreamKind::NonBlocking).map_err(|e| fault(&no_stream, e))?;
        for file in code {
            real.load(file)?;
        }
        Ok(real)
    }

    /// Loads a kernel file. Done for all of them at the start, since loading may wait for the device, which a recording
    /// forbids; asking for a function loads it even where CUDA loads lazily.
    fn load(&mut self, code: Code) -> Result<()> {
        let what = format!("kernels/{} cannot be loaded on {}", code.file, self.device());
        // Of 8-byte words, because the manual asks for an image as it lies in a file or in a program, that is aligned.
        let mut words = vec![0_u64; code.image.len().div_ceil(8) + 1];
        bytemuck::cast_slice_mut(&mut words)[..code.image.len()].copy_from_slice(&code.image);
        // SAFETY: the image is a whole cubin or a PTX text with a NUL at its end, and CUDA copies what it needs of it.
        let module = unsafe { modules::load_data(words.as_ptr().cast()) }.map_err(|e| fault(&what, e))?;
        self.modules.push(module);
        for entry in code.entries {
            let name = CString::new(entry.name.as_str()).map_err(|e| Error::Device(format!("{what}: {e}")))?;
            // SAFETY: the module was loaded above; modules are unloaded when `self` is dropped, and never before.
            let function = unsafe { modules::get_function(module, name) }.map_err(|e| fault(&what, e))?;
            self.kernels.insert(entry.name.clone(), (function, entry));
        }
        Ok(())
    }

    /// Makes the context current in this thread, which may be another one than at the last call.
    fn enter(&self) -> Result<()> {
        // SAFETY: the context is retained until `self` is dropped.
        unsafe { ctx::set_current(self.context) }.map_err(|e| self.fault("its context", e))
    }

    /// As [`Real::enter`], for what cannot be recorded.
    fn enter_now(&self, what: &str) -> Result<()> {
        if self.recording {
            return Err(Error::Device(format!("{}: {what} while launches are recorded", self.device())));
        }
        self.enter()
    }

    /// A failed call's error. A kernel's own failure shows at some later call, so the latest kernel is named.
    fn fault(&self, what: &str, error: DriverError) -> Error {
        let of_a_kernel = matches!(
            error.0,
            CUresult::CUDA_ERROR_ILLEGAL_ADDRESS
                | CUresult::CUDA_ERROR_ILLEGAL_INSTRUCTION
                | CUresult::CUDA_ERROR_MISALIGNED_ADDRESS
                | CUresult::CUDA_ERROR_INVALID_ADDRESS_SPACE
                | CUresult::CUDA_ERROR_INVALID_PC
                | CUresult::CUDA_ERROR_HARDWARE_STACK_ERROR
                | CUresult::CUDA_ERROR_LAUNCH_TIMEOUT
                | CUresult::CUDA_ERROR_LAUNCH_FAILED
                | CUresult::CUDA_ERROR_ASSERT
        );
        let kernels = match of_a_kernel && !self.latest.is_empty() {
            true => format!(
                " (in a kernel, {} or one before it: CUDA_LAUNCH_BLOCKING=1 makes each wait and names it)",
                self.latest
            ),
            false => String::new(),
        };
        fault(&format!("{}: {what}{kernels}", self.device()), error)
    }

    /// Checks that a range lies in one allocation, so that no copy from here can leave it.
    fn check(&self, at: Address, bytes: usize) -> Result<()> {
        let inside = self.allocations.range(..=at.0).next_back().is_some_and(|(&start, &len)| {
            usize::try_from(at.0 - start)
                .ok()
                .and_then(|offset| offset.checked_add(bytes))
                .is_some_and(|end| end <= len)
        });
        match inside {
            true => Ok(()),
            false => Err(Error::Device(format!("{}: {bytes} bytes at {:#x} are not allocated", self.device(), at.0))),
        }
    }
}

impl Driver for Real {
    fn device(&self) -> String {
        self.card.describe()
    }

    fn allocate(&mut self, bytes: usize) -> Result<Address> {
        self.enter_now("memory was asked for")?;
        // SAFETY: the context is current. CUDA refuses 0 bytes.
        let at = unsafe { result::malloc_sync(bytes.max(1)) }.map_err(|e| match e.0 {
            CUresult::CUDA_ERROR_OUT_OF_MEMORY => {
                let gib = |bytes: usize| bytes as f64 / f64::from(1 << 30);
                let free = result::mem_get_info().map_or(String::new(), |(free, total)| {
                    format!(", {:.2} of {:.2} GiB are free", gib(free), gib(total))
                });
                Error::Resources(format!("{}: out of memory: {:.2} GiB wanted{free}", self.device(), gib(bytes)))
            }
            _ => self.fault("memory cannot be allocated", e),
        })?;
        self.allocations.insert(at, bytes);
        // SAFETY: the allocation has this many bytes, and the stream is this context's.
        unsafe { result::memset_d8_async(at, 0, bytes, self.stream) }
            .map_err(|e| self.fault("memory cannot be cleared", e))?;
        Ok(Address(at))
    }

    fn free(&mut self, at: Address) {
        if self.allocations.remove(&at.0).is_none() || self.enter().is_err() {
            return;
        }
        // SAFETY: the address is an allocation of this context, removed from the list above, and nothing that was launched
        // before uses it any more once the stream is idle. An error is one of an earlier launch, and shows at the next call.
        unsafe {
            let _ = streams::synchronize(self.stream);
            let _ = result::free_sync(at.0);
        }
    }

    fn write(&mut self, to: Address, bytes: &[u8]) -> Result<()> {
        self.enter_now("a write was asked for")?;
        self.check(to, bytes.len())?;
        if bytes.is_empty() {
            return Ok(());
        }
        // SAFETY: the context is current, the stream is its own, and the range is allocated.
        if unsafe { self.staging.write(to.0, bytes, self.stream) }.map_err(|e| self.fault("a write", e))? {
            return Ok(());
        }
        // SAFETY: the range is allocated. A source that is not pinned has been read, or copied aside, when the call returns
        // ("API synchronization behavior", asynchronous copies from pageable memory).
        unsafe { result::memcpy_htod_async(to.0, bytes, self.stream) }.map_err(|e| self.fault("a write", e))
    }

    fn read(&mut self, from: Address, bytes: &mut [u8]) -> Result<()> {
        self.enter_now("a read was asked for")?;
        self.check(from, bytes.len())?;
        if bytes.is_empty() {
            return Ok(());
        }
        // SAFETY: the range is allocated, and the destination stays borrowed until the stream is idle.
        let copied = unsafe { result::memcpy_dtoh_async(bytes, from.0, self.stream) };
        copied.map_err(|e| self.fault("a read", e))?;
        // SAFETY: the stream is this context's.
        unsafe { streams::synchronize(self.stream) }.map_err(|e| self.fault("a read", e))
    }

    fn copy(&mut self, from: Address, to: Address, bytes: usize) -> Result<()> {
        self.enter()?;
        self.check(from, bytes)?;
        self.check(to, bytes)?;
        if bytes == 0 {
            return Ok(());
        }
        // SAFETY: both ranges are allocated in this context.
        unsafe { result::memcpy_dtod_async(to.0, from.0, bytes, self.stream) }.map_err(|e| self.fault("a copy", e))
    }

    fn launch(&mut self, kernel: &'static Kernel, blocks: [u32; 3], arguments: &[&[u8]]) -> Result<()> {
        self.enter()?;
        let refuse = |what: String| Error::Device(format!("{}: kernel {}: {what}", self.device(), kernel.name));
        let Some((function, entry)) = self.kernels.get(kernel.name) else {
            return Err(refuse(format!("it is not in the code of kernels/{}", kernel.file)));
        };
        let sizes: Vec<usize> = arguments.iter().map(|argument| argument.len()).collect();
        if sizes != entry.parameters {
            return Err(refuse(format!("its parameters have {:?} bytes, the arguments {sizes:?}", entry.parameters)));
        }
        if kernel.threads > entry.max_threads {
            let (threads, most) = (kernel.threads, entry.max_threads);
            return Err(refuse(format!("it is launched with {threads} threads a block, at most {most} are possible")));
        }
        let mut pointers: Vec<*mut c_void> = arguments.iter().map(|a| a.as_ptr().cast_mut().cast()).collect();
        // SAFETY: the function's module stays loaded, and there is one pointer a parameter, to as many bytes as it has, which
        // CUDA only reads, before the call returns. What the kernel does with addresses among them is the backend's matter.
        let launched = unsafe {
            let [x, y, z] = blocks;
            result::launch_kernel(*function, (x, y, z), (kernel.threads, 1, 1), 0, self.stream, &mut pointers)
        };
        self.latest = kernel.name;
        launched.map_err(|e| self.fault(&format!("kernel {} on {blocks:?} blocks", kernel.name), e))
    }

    fn begin_capture(&mut self) -> Result<()> {
        self.enter_now("a recording was asked for")?;
        // SAFETY: the stream is this context's, and not the default one. Other threads may go on using CUDA.
        unsafe { streams::begin_capture(self.stream, CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL) }
            .map_err(|e| self.fault("a recording cannot begin", e))?;
        self.recording = true;
        Ok(())
    }

    fn end_capture(&mut self) -> Result<Graph> {
        self.enter()?;
        if !std::mem::take(&mut self.recording) {
            return Err(Error::Device(format!("{}: nothing was being recorded", self.device())));
        }
        // SAFETY: the stream is recording, since `recording` was set. An error leaves no graph.
        let graph = unsafe { streams::end_capture(self.stream) }.map_err(|e| self.fault("the recording failed", e))?;
        // SAFETY: the graph is valid, and destroyed once: what is instantiated does not need it.
        let executable = unsafe {
            let executable = graphs::instantiate(graph, CUgraphInstantiate_flags(0));
            let _ = graphs::destroy(graph);
            executable.map_err(|e| self.fault("the recording cannot be made into a graph", e))?
        };
        self.graphs.push(executable);
        // SAFETY: both are valid. This only saves the first replay some time.
        unsafe { graphs::upload(executable, self.stream) }.map_err(|e| self.fault("a graph cannot be uploaded", e))?;
        Ok(Graph(self.graphs.len() - 1))
    }

    fn replay(&mut self, graph: Graph) -> Result<()> {
        self.enter_now("a replay was asked for")?;
        let Some(&executable) = self.graphs.get(graph.0) else {
            return Err(Error::Device(format!("{}: no recording has the number {}", self.device(), graph.0)));
        };
        // SAFETY: the graph stays instantiated until `self` is dropped, and the stream is this context's.
        unsafe { graphs::launch(executable, self.stream) }.map_err(|e| self.fault("a replay", e))?;
        self.latest = "a recorded one";
        Ok(())
    }

    fn forget_graphs(&mut self) {
        if self.enter().is_ok() {
            // SAFETY: the graphs were instantiated in this context and are destroyed once, when none of them runs any more.
            // An error is one of an earlier launch, and shows at the next call.
            unsafe {
                let _ = streams::synchronize(self.stream);
                for graph in self.graphs.drain(..) {
                    let _ = graphs::exec_destroy(graph);
                }
            }
        }
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        if self.enter().is_err() {
            return;
        }
        self.forget_graphs();
        // SAFETY: everything here was made in this context, is destroyed once, and is not in use when the stream is idle.
        // Errors are those of earlier launches, and there is no one left to tell.
        unsafe {
            if self.recording
                && let Ok(graph) = streams::end_capture(self.stream)
            {
                let _ = graphs::destroy(graph);
            }
            let _ = streams::synchronize(self.stream);
            for &at in self.allocations.keys() {
                let _ = result::free_sync(at);
            }
            self.staging.free();
            for &module in &self.modules {
                let _ = modules::unload(module);
            }
            if !self.stream.is_null() {
                let _ = streams::destroy(self.stream);
            }
            let _ = primary_ctx::release(self.card.handle);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cuda::driver::available::gpu;

    fn read(gpu: &mut Real, at: Address, bytes: usize) -> Vec<u8> {
        let mut read = vec![0xaa; bytes];
        gpu.read(at, &mut read).unwrap();
        read
    }

    #[test]
    fn a_device_that_is_not_there_is_an_error_of_one_line() {
        let error = Real::open(usize::MAX).err().unwrap().to_string();
        assert!(error.contains("GPU") || error.contains("NVIDIA driver"), "{error}");
        assert_eq!(error.lines().count(), 1);
    }

    #[test]
    fn memory_starts_as_zeros_and_holds_what_is_written_in_the_order_of_the_calls() {
        let Some(mut gpu) = gpu() else { return };
        // The last two: the largest write through pinned memory, and one beyond it.
        for bytes in [0, 1, 4097, 4 << 20, (4 << 20) + 1] {
            let [a, b] = [(); 2].map(|()| gpu.allocate(bytes).unwrap());
            assert!(read(&mut gpu, a, bytes).iter().all(|&byte| byte == 0));
            // More writes than there are pinned buffers, of which the last stays.
            for value in 0..9 {
                gpu.write(a, &vec![value; bytes]).unwrap();
            }
            gpu.copy(a, b, bytes).unwrap();
            gpu.write(a, &vec![1; bytes / 2]).unwrap();
            assert!(read(&mut gpu, b, bytes).iter().all(|&byte| byte == 8));
            let mixed = read(&mut gpu, a, bytes);
            assert!(mixed.iter().enumerate().all(|(i, &byte)| byte == if i < bytes / 2 { 1 } else { 8 }));
            gpu.free(a);
            gpu.free(b);
        }
    }

    #[test]
    fn what_would_leave_an_allocation_is_refused() {
        let Some(mut gpu) = gpu() else { return };
        let a = gpu.allocate(64).unwrap();
        gpu.write(Address(a.0 + 32), &[1; 32]).unwrap();
        assert!(gpu.write(Address(a.0 + 32), &[1; 33]).is_err());
        assert!(gpu.read(Address(a.0 + 65), &mut []).is_err());
        assert!(gpu.copy(a, Address(u64::MAX), 2).is_err());
        gpu.free(a);
        assert!(gpu.read(a, &mut [0]).is_err());
    }

    #[test]
    fn more_memory_than_there_is_is_an_error_that_says_how_much() {
        let Some(mut gpu) = gpu() else { return };
        let error = gpu.allocate(1 << 50).unwrap_err().to_string();
        assert!(error.contains("1048576.00 GiB wanted"), "{error}");
        // And the device goes on.
        assert!(gpu.allocate(64).is_ok());
    }

    #[test]
    fn a_launch_that_does_not_fit_the_kernel_is_refused() {
        static NO_KERNEL: Kernel = Kernel { name: "no_kernel", file: "no.cu", threads: 32, parameters: &[] };
        let Some(mut gpu) = gpu() else { return };
        let error = gpu.launch(&NO_KERNEL, [1, 1, 1], &[]).unwrap_err().to_string();
        assert!(error.contains("kernel no_kernel"), "{error}");
    }
}
