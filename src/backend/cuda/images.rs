//! The kernels that build.rs compiled and embedded, their sources, and what the compiler said about them.

use std::collections::BTreeMap;

use super::driver::nvrtc::report::{Usage, usage};
use super::driver::nvrtc::{Source, includes};
use super::ptx;

/// A kernel file compiled for one architecture.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Image {
    /// The kernel file, as "conv.cu".
    pub(crate) file: &'static str,
    /// `sm_XX` for machine code, `compute_XX` for PTX.
    pub(crate) architecture: &'static str,
    /// A cubin, which is an ELF file, or a PTX text with a NUL at its end.
    pub(crate) code: &'static [u8],
    /// The compiler's and the assembler's messages.
    pub(crate) log: &'static str,
}

// COMPILER, KERNEL_FILES, HEADERS and IMAGES.
include!(concat!(env!("OUT_DIR"), "/images.rs"));

impl Image {
    /// The text, if this is PTX.
    pub(crate) fn ptx(&self) -> Option<&'static str> {
        let text = self.code.strip_suffix(&[0]).unwrap_or(self.code);
        self.architecture.starts_with("compute_").then(|| str::from_utf8(text).ok()).flatten()
    }
}

/// The version of CUDA whose compiler made the images, None if there are none.
pub(crate) fn compiler() -> Option<(u32, u32)> {
    COMPILER
}

/// All images, by file and then architecture.
pub(crate) fn images() -> &'static [Image] {
    IMAGES
}

/// The architectures that every kernel file was compiled for.
pub(crate) fn architectures() -> Vec<&'static str> {
    let first = IMAGES.first().map(|image| image.file);
    IMAGES.iter().filter(|image| Some(image.file) == first).map(|image| image.architecture).collect()
}

/// The kernel files with their sources.
pub(crate) fn sources() -> &'static [Source<'static>] {
    KERNEL_FILES
}

/// The headers that a kernel file includes, directly or through others, with their sources.
pub(crate) fn headers(file: &str) -> Vec<Source<'static>> {
    let all = || KERNEL_FILES.iter().chain(HEADERS);
    let names = includes(file, |name| all().find(|source| source.0 == name).map(|source| source.1));
    all().filter(|source| names.contains(source.0)).copied().collect()
}

/// What the compiler said about a kernel.
#[derive(Clone, Debug)]
pub(crate) struct Compiled {
    /// The entry point.
    pub(crate) name: String,
    /// Its file.
    pub(crate) file: &'static str,
    /// Most threads a block may have.
    pub(crate) max_threads: u32,
    /// Its use of a multiprocessor, by architecture.
    pub(crate) usage: BTreeMap<&'static str, Usage>,
}

/// Every embedded kernel, in the order of files and then of names.
pub(crate) fn compiled() -> Vec<Compiled> {
    let of_file = |ptx: &Image| {
        let file = ptx.file;
        let mut entries = ptx.ptx().map(ptx::entries).unwrap_or_default();
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        entries.into_iter().map(move |entry| {
            let of_image = |image: &Image| {
                let usage = usage(image.log).into_iter().find(|usage| usage.name == entry.name)?;
                Some((image.architecture, usage))
            };
            let usage = IMAGES.iter().filter(|image| image.file == file).filter_map(of_image).collect();
            Compiled { name: entry.name, file, max_threads: entry.max_threads, usage }
        })
    };
    IMAGES.iter().flat_map(of_file).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use object::elf::STT_FUNC;
    use object::read::elf::ElfFile64;
    use object::{Object, ObjectSymbol, SymbolFlags};

    use super::*;
    use crate::backend::cuda::kernels::KERNELS;

    /// The entry points in a cubin: its symbol table's functions that are marked so.
    fn in_cubin(code: &[u8]) -> BTreeSet<String> {
        // STO_CUDA_ENTRY of NVIDIA's ELF files, in st_other.
        const ENTRY: u8 = 0x10;
        let elf = ElfFile64::<object::Endianness>::parse(code).expect("a cubin is an ELF file");
        let entries = elf.symbols().filter(|symbol| match symbol.flags() {
            SymbolFlags::Elf { st_info, st_other, .. } => st_info & 0xf == STT_FUNC && st_other & ENTRY != 0,
            _ => false,
        });
        entries.map(|symbol| symbol.name().expect("a kernel has a name").to_string()).collect()
    }

    /// Without a compiler there is nothing to look at; REQUIRE_NVRTC=1 has made that an error of the build.
    fn skipped() -> bool {
        if COMPILER.is_none() {
            eprintln!("skipped: the kernels are not compiled in, since the build found no NVRTC");
        }
        COMPILER.is_none()
    }

    #[test]
    fn every_image_holds_exactly_the_kernels_that_the_launch_table_has_for_its_file() {
        if skipped() {
            return;
        }
        assert_eq!(KERNEL_FILES.iter().map(|source| source.0).collect::<BTreeSet<_>>(), files_of_the_table());
        for file in files_of_the_table() {
            let table: BTreeSet<String> =
                KERNELS.iter().filter(|kernel| kernel.file == file).map(|kernel| kernel.name.into()).collect();
            for architecture in architectures() {
                let found: Vec<&Image> =
                    IMAGES.iter().filter(|i| i.file == file && i.architecture == architecture).collect();
                let [image] = found[..] else { panic!("{file} has {} images for {architecture}", found.len()) };
                let held = match image.ptx() {
                    Some(text) => ptx::entries(text).into_iter().map(|entry| entry.name).collect(),
                    None => in_cubin(image.code),
                };
                assert_eq!(held, table, "{file} for {architecture}");
            }
        }
        assert_eq!(IMAGES.len(), files_of_the_table().len() * architectures().len());
    }

    fn files_of_the_table() -> BTreeSet<&'static str> {
        KERNELS.iter().map(|kernel| kernel.file).collect()
    }

    #[test]
    fn the_compiler_reports_on_every_kernel_for_every_architecture() {
        if skipped() {
            return;
        }
        let architectures: Vec<_> = architectures().into_iter().filter(|name| name.starts_with("sm_")).collect();
        let compiled = compiled();
        assert_eq!(compiled.len(), KERNELS.len());
        for kernel in compiled {
            let row = KERNELS.iter().find(|row| row.name == kernel.name && row.file == kernel.file).unwrap();
            assert_eq!(kernel.max_threads, row.threads, "{}: launch bounds", kernel.name);
            assert_eq!(kernel.usage.keys().copied().collect::<Vec<_>>(), architectures, "{}", kernel.name);
            for (architecture, usage) in kernel.usage {
                let name = format!("{} for {architecture}", kernel.name);
                assert!((1..=255).contains(&usage.registers), "{name}: {} registers", usage.registers);
                // A block must fit: a multiprocessor has 65,536 registers, static shared memory is at most 48 KB.
                assert!(usage.registers * row.threads <= 65_536, "{name}: {} registers", usage.registers);
                assert!(usage.shared <= 48 << 10, "{name}: {} bytes of shared memory", usage.shared);
            }
        }
    }

    #[test]
    fn the_headers_of_a_file_are_those_it_includes_and_those_they_include() {
        let text = |name: &str| match name {
            "a.cu" => Some("#include \"b.cuh\"\n  #include \"missing.cuh\"\nint a;"),
            "b.cuh" => Some("#pragma once\n#include \"c.cuh\""),
            "c.cuh" => Some("#include \"b.cuh\""),
            "d.cuh" => Some(""),
            _ => None,
        };
        assert_eq!(includes("a.cu", text), BTreeSet::from(["b.cuh", "c.cuh"]));
    }
}
