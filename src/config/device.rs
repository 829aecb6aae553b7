//! Which device does the work.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Where the work is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Device {
    /// The first GPU, or the processor where there is none.
    #[default]
    Auto,
    /// The processor.
    Cpu,
    /// The GPU with this number, from 0.
    Cuda(usize),
    /// The CUDA kernels, run on the processor by the engine that proves them: slow, for tests.
    Simt,
}

impl Device {
    /// What a device may be called.
    pub const EXPECTED: &str = "auto, cpu, cuda, cuda:N or simt";
}

impl fmt::Display for Device {
    /// The name on the command line and in files.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Device::Auto => f.write_str("auto"),
            Device::Cpu => f.write_str("cpu"),
            Device::Cuda(number) => write!(f, "cuda:{number}"),
            Device::Simt => f.write_str("simt"),
        }
    }
}

impl FromStr for Device {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Device::Auto),
            "cpu" => Ok(Device::Cpu),
            "cuda" => Ok(Device::Cuda(0)),
            "simt" => Ok(Device::Simt),
            _ => {
                let number = text.strip_prefix("cuda:").and_then(|number| number.parse().ok());
                number.map(Device::Cuda).ok_or_else(|| format!("expected {}", Device::EXPECTED))
            }
        }
    }
}

impl From<Device> for String {
    fn from(device: Device) -> String {
        device.to_string()
    }
}

impl TryFrom<String> for Device {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_read_as_it_is_written() {
        for (text, device) in
            [("auto", Device::Auto), ("cpu", Device::Cpu), ("cuda:3", Device::Cuda(3)), ("simt", Device::Simt)]
        {
            assert_eq!((text.parse(), device.to_string().as_str()), (Ok(device), text));
        }
        assert_eq!("cuda".parse(), Ok(Device::Cuda(0)));
        for text in ["", "gpu", "cuda:", "cuda:-1", "cuda:x", "CPU"] {
            assert_eq!(text.parse::<Device>(), Err("expected auto, cpu, cuda, cuda:N or simt".into()));
        }
    }
}
