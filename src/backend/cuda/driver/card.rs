//! The GPUs of this machine, as CUDA's driver API describes them.

use std::ffi::{CStr, c_int};

use cudarc::driver::result::{self, DriverError, device as devices};
use cudarc::driver::sys::{self, CUdevice, CUdevice_attribute, CUresult};

use crate::backend::cuda::choice::{Target, dotted, own_architecture};
use crate::{Error, Result};

/// A GPU, without a context on it.
pub(crate) struct Card {
    /// CUDA's handle.
    pub(super) handle: CUdevice,
    /// What its maker calls it.
    pub(super) name: String,
    /// Its architecture and driver.
    pub(crate) target: Target,
}

impl Card {
    /// How many GPUs there are, in the order of CUDA_VISIBLE_DEVICES where that is set. The error says why CUDA cannot be
    /// used at all.
    pub(crate) fn count() -> Result<usize> {
        initialise()?;
        let count = devices::get_count().map_err(|e| fault("the GPUs cannot be counted", e))?;
        Ok(count.unsigned_abs() as usize)
    }

    /// The GPU with this ordinal.
    pub(crate) fn find(ordinal: usize) -> Result<Self> {
        let driver = initialise()?;
        let count = Self::count()?;
        let Some(number) = c_int::try_from(ordinal).ok().filter(|_| ordinal < count) else {
            let there = if count == 1 { "is 1 GPU".into() } else { format!("are {count} GPUs") };
            return Err(Error::Device(format!("cuda:{ordinal}: there {there}, counted from 0")));
        };
        let failed = |e| fault(&format!("cuda:{ordinal} cannot be asked what it is"), e);
        let handle = devices::get(number).map_err(failed)?;
        let name = devices::get_name(handle).map_err(failed)?;
        let attribute = |which| {
            // SAFETY: the device is one that CUDA has just given.
            unsafe { devices::get_attribute(handle, which) }.map(c_int::unsigned_abs).map_err(failed)
        };
        let major = attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
        let minor = attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
        Ok(Card { handle, name, target: Target { capability: (major, minor), driver } })
    }

    /// As "NVIDIA H100 80GB HBM3 (sm_90, driver 13.0)".
    pub(crate) fn describe(&self) -> String {
        let architecture = own_architecture(self.target.capability);
        format!("{} ({}, driver {})", self.name, architecture.trim_end_matches('a'), dotted(self.target.driver))
    }
}

/// Loads and initialises CUDA, once or again, and gives the newest version that the driver supports.
fn initialise() -> Result<(u32, u32)> {
    // SAFETY: it only tries to load the library. Without this check the first call would panic.
    if !unsafe { sys::is_culib_present() } {
        return Err(Error::Device("no NVIDIA driver is installed: there is no libcuda.so.1".into()));
    }
    result::init().map_err(|e| match e.0 {
        CUresult::CUDA_ERROR_NO_DEVICE => Error::Device("no GPU: the driver finds none, or none is visible".into()),
        _ => fault("CUDA cannot be initialised", e),
    })?;
    let mut version = 0;
    // SAFETY: the number outlives the call.
    let asked = unsafe { sys::cuDriverGetVersion(&mut version) }.result();
    asked.map_err(|e| fault("the driver's version cannot be had", e))?;
    let version = version.unsigned_abs();
    Ok((version / 1000, version % 1000 / 10))
}

/// A failed call's error, in CUDA's words.
pub(super) fn fault(what: &str, error: DriverError) -> Error {
    let text = |text: std::result::Result<&CStr, DriverError>| {
        text.map_or_else(|_| "unknown".into(), |text| text.to_string_lossy().into_owned())
    };
    Error::Device(format!("{what}: {} ({})", text(error.error_string()), text(error.error_name())))
}
