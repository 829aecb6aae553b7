//! The code that a device runs: embedded images, or kernels compiled now.

use std::borrow::Cow;

use super::nvrtc::find;
use crate::backend::cuda::choice::{Choice, Target, choose, compile_for, dotted};
use crate::backend::cuda::images;
use crate::backend::cuda::ptx::{Entry, entries};

/// A kernel file's code for one device.
pub(crate) struct Code {
    /// The kernel file.
    pub(crate) file: &'static str,
    /// A cubin, or PTX with a NUL at its end.
    pub(crate) image: Cow<'static, [u8]>,
    /// The kernels in it.
    pub(crate) entries: Vec<Entry>,
}

/// Finds or makes the code of every kernel file for a device. The error says why there is none.
pub(crate) fn code(target: Target) -> Result<Vec<Code>, String> {
    match choose(target, &images::architectures(), images::compiler())? {
        Choice::Embedded(architecture) => embedded(architecture),
        Choice::Compile(why) => compiled(target).map_err(|problem| format!("{why}, and {problem}")),
    }
}

fn embedded(architecture: &str) -> Result<Vec<Code>, String> {
    let images = images::images().iter();
    let signatures = |file| images.clone().find(|image| image.file == file && image.ptx().is_some())?.ptx();
    let of_architecture = images.clone().filter(|image| image.architecture == architecture);
    of_architecture
        .map(|image| {
            // Machine code says nothing of its parameters' types, so they are read from the PTX of the same source.
            let ptx = signatures(image.file).ok_or_else(|| format!("{} has no PTX", image.file))?;
            Ok(Code { file: image.file, image: image.code.into(), entries: entries(ptx) })
        })
        .collect()
}

fn compiled(target: Target) -> Result<Vec<Code>, String> {
    let nvrtc = find::find().map_err(|problem| match problem.is_empty() {
        true => {
            "no NVRTC is installed to compile them now (pip install nvidia-cuda-nvrtc-cu12, or set NVRTC_DIR)".into()
        }
        false => format!("NVRTC cannot be loaded to compile them now: {problem}"),
    })?;
    let architecture = compile_for(target, nvrtc.version(), |name| nvrtc.knows(name))?;
    let version = dotted(nvrtc.version());
    let compile = |&(file, source): &(&'static str, &'static str)| {
        // NVRTC can crash on a kernel: then this line is the last one, and says on which.
        eprintln!("compiling kernels/{file} for {architecture} with NVRTC {version}");
        let made = nvrtc.compile((file, source), &images::headers(file), &architecture);
        let made = made.map_err(|log| format!("kernels/{file} does not compile with NVRTC {version}:\n{log}"))?;
        let entries = entries(&String::from_utf8_lossy(&made.ptx));
        Ok(Code { file, image: if made.cubin.is_empty() { made.ptx } else { made.cubin }.into(), entries })
    };
    images::sources().iter().map(compile).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_compiled_now_have_the_signatures_of_the_embedded_ones() {
        if images::compiler().is_none() {
            eprintln!("skipped: the build found no NVRTC");
            return;
        }
        let ada = Target { capability: (8, 9), driver: (13, 0) };
        let (embedded, compiled) = (code(ada).unwrap(), compiled(ada).unwrap());
        assert_eq!(embedded.len(), images::sources().len());
        for (embedded, compiled) in embedded.iter().zip(&compiled) {
            assert_eq!(embedded.file, compiled.file);
            assert_eq!(embedded.entries, compiled.entries, "{}", embedded.file);
            assert!(embedded.image.starts_with(b"\x7fELF") && compiled.image.starts_with(b"\x7fELF"));
        }
    }

    #[test]
    fn a_device_too_old_is_told_so_before_anything_is_compiled() {
        let why = code(Target { capability: (7, 5), driver: (13, 0) }).err().unwrap();
        assert!(why.contains("compute capability is 7.5"), "{why}");
    }
}
