//! Writes that do not wait for the device: through pinned memory, which it reads by itself.

use std::ffi::c_void;
use std::{mem, ptr, slice};

use cudarc::driver::result::{self, DriverError, event};
use cudarc::driver::sys::{CUdeviceptr, CUevent, CUevent_flags, CUstream};

/// Larger writes are made directly: they are rare, and copying them twice would take longer than waiting.
const LARGEST: usize = 4 << 20;

/// How many writes may be under way. Two a step, the batch and the step's state, and as many of the next step.
const SLOTS: usize = 4;

/// A ring of pinned buffers.
#[derive(Default)]
pub(super) struct Staging {
    slots: Vec<Slot>,
    next: usize,
}

struct Slot {
    memory: *mut c_void,
    bytes: usize,
    /// Recorded after the latest copy from this slot.
    read: CUevent,
}

impl Staging {
    /// Copies to the device in the stream's order, if the bytes are few enough; otherwise does nothing and says false.
    ///
    /// # Safety
    /// The stream's context is current, the same at every call, and `to` is followed by as many allocated bytes.
    pub(super) unsafe fn write(
        &mut self,
        to: CUdeviceptr,
        bytes: &[u8],
        stream: CUstream,
    ) -> Result<bool, DriverError> {
        if bytes.len() > LARGEST {
            return Ok(false);
        }
        // SAFETY: a context is current, by this function's contract. Waiting for an event that was never recorded returns at
        // once. After the wait the device no longer reads the buffer, so it may be freed and overwritten.
        unsafe {
            if self.slots.len() < SLOTS {
                let read = event::create(CUevent_flags::CU_EVENT_DISABLE_TIMING)?;
                self.slots.push(Slot { memory: ptr::null_mut(), bytes: 0, read });
            }
            let slot = &mut self.slots[self.next % SLOTS];
            self.next += 1;
            event::synchronize(slot.read)?;
            if slot.bytes < bytes.len() {
                slot.free()?;
                let wanted = bytes.len().next_power_of_two();
                // Pinned memory may be limited; a direct write needs none.
                let Ok(memory) = result::malloc_host(wanted, 0) else { return Ok(false) };
                (slot.memory, slot.bytes) = (memory, wanted);
            }
            ptr::copy_nonoverlapping(bytes.as_ptr(), slot.memory.cast(), bytes.len());
            result::memcpy_htod_async(to, slice::from_raw_parts(slot.memory.cast::<u8>(), bytes.len()), stream)?;
            event::record(slot.read, stream)?;
        }
        Ok(true)
    }

    /// Gives the buffers back.
    ///
    /// # Safety
    /// The context of all writes is current, and no copy is under way.
    pub(super) unsafe fn free(&mut self) {
        for mut slot in self.slots.drain(..) {
            // SAFETY: the event was made by `write`, is destroyed once, and is not in use by this function's contract.
            unsafe {
                let _ = event::destroy(slot.read);
                let _ = slot.free();
            }
        }
    }
}

impl Slot {
    /// Gives the buffer back.
    ///
    /// # Safety
    /// The context is current, and no copy from the buffer is under way.
    unsafe fn free(&mut self) -> Result<(), DriverError> {
        self.bytes = 0;
        let memory = mem::replace(&mut self.memory, ptr::null_mut());
        // SAFETY: the memory came from `malloc_host`, and this was the last pointer to it.
        if memory.is_null() { Ok(()) } else { unsafe { result::free_host(memory) } }
    }
}
