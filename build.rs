//! Compiles the CUDA kernels and embeds them.
//!
//! Every kernels/*.cu becomes one image an architecture. The compiler, NVRTC, is looked for on this machine; in this
//! repository's own checkout it may be fetched once (`build/fetch.rs`). Without one the build goes on with a warning: the
//! CPU works, and a machine with a GPU compiles the embedded sources when it starts.
//!
//! With the feature `simt` the kernels are compiled for the CPU too (`build/simt.rs`), for tests.
//!
//! `REQUIRE_NVRTC=1` makes an absent compiler an error.

#[path = "build/compile.rs"]
mod compile;
#[path = "build/fetch.rs"]
mod fetch;
#[path = "build/kernels.rs"]
mod kernels;
#[allow(dead_code)] // the crate uses what is not used here
#[path = "src/backend/cuda/driver/nvrtc/mod.rs"]
mod nvrtc;
#[path = "build/simt.rs"]
mod simt;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::{env, process};

use kernels::Kernels;
use nvrtc::{Nvrtc, find, report};

/// Machine code for each generation of GPUs since 2020, and PTX, which the driver compiles on anything newer.
const ARCHITECTURES: [&str; 5] = ["sm_80", "sm_86", "sm_89", "sm_90a", "compute_80"];

/// The version whose spills are errors. Another one has another register allocator: there they are warnings.
const PINNED: (u32, u32) = (12, 6);

type Result<T, E = String> = std::result::Result<T, E>;

fn main() {
    // With arguments this is the child process of `compile::all` that compiles one image.
    let arguments: Vec<String> = env::args().skip(1).collect();
    let done = if arguments.is_empty() { build() } else { compile::one(&arguments) };
    if let Err(error) = done {
        let prefix = if arguments.is_empty() { "cargo::error=" } else { "" };
        error.lines().for_each(|line| println!("{prefix}{line}"));
        process::exit(1);
    }
}

fn build() -> Result<()> {
    println!("cargo::rustc-check-cfg=cfg(simt)");
    println!("cargo::rerun-if-changed=kernels");
    let variables = ["REQUIRE_NVRTC", find::DOWNLOAD, "DOCS_RS", "CARGO_NET_OFFLINE"];
    variables.iter().chain(&find::VARIABLES).for_each(|name| println!("cargo::rerun-if-env-changed={name}"));

    let out = PathBuf::from(variable("OUT_DIR")?);
    let kernels = Kernels::read(&Path::new(&variable("CARGO_MANIFEST_DIR")?).join("kernels"))?;
    if env::var_os("CARGO_FEATURE_SIMT").is_some() {
        simt::simt(&kernels)?;
    }
    let store = find::download().unwrap_or_else(|| out.clone());
    fs::create_dir_all(&store).map_err(|e| format!("{}: {e}", store.display()))?;
    // Builds of several profiles run side by side and share the download and the compiled images.
    let _lock =
        File::create(store.join("lock")).and_then(|file| file.lock().map(|()| file)).map_err(|e| e.to_string())?;

    let nvrtc = match find::find() {
        Ok(nvrtc) => Ok(nvrtc),
        Err(problem) if problem.is_empty() => fetch::fetch(),
        Err(problem) => fetch::fetch().map_err(|why| format!("{problem}; {why}")),
    };
    let nvrtc = match nvrtc {
        Ok(nvrtc) => Some(nvrtc),
        Err(why) => {
            absent(&why)?;
            None
        }
    };
    let images = nvrtc.as_ref().map_or(Ok(Vec::new()), |nvrtc| compile(nvrtc, &kernels, &store, &out))?;
    let table = table(nvrtc.as_ref(), &kernels, &images).map_err(|e| e.to_string())?;
    write(&out.join("images.rs"), table.as_bytes())
}

fn absent(why: &str) -> Result<()> {
    let message = format!(
        "no NVRTC: the CUDA kernels are not compiled in ({why}). The CPU works without them. Install the Python package \
         {} or a CUDA toolkit, or set NVRTC_DIR to the folder of libnvrtc.so",
        find::PINNED_PACKAGE
    );
    if env::var("REQUIRE_NVRTC").is_ok_and(|value| value == "1") {
        return Err(format!("{message} (REQUIRE_NVRTC=1)"));
    }
    println!("cargo::warning={message}");
    Ok(())
}

/// Compiles every kernel file for every architecture the compiler knows, and judges what came out.
fn compile(nvrtc: &Nvrtc, kernels: &Kernels, store: &Path, out: &Path) -> Result<Vec<compile::Image>> {
    println!("cargo::rerun-if-changed={}", nvrtc.path().display());
    let (major, minor) = nvrtc.version();
    let (known, unknown): (Vec<&str>, Vec<&str>) = ARCHITECTURES.iter().partition(|arch| nvrtc.knows(arch));
    if !unknown.is_empty() {
        println!("cargo::warning=NVRTC {major}.{minor} does not know {}: left out", unknown.join(", "));
    }
    let images = compile::all(nvrtc, kernels, &known, store, out)?;
    // A set, since each architecture repeats the compiler's warnings.
    let warnings: BTreeSet<&str> = images.iter().flat_map(|image| report::warnings(&image.log)).collect();
    warnings.iter().for_each(|line| println!("cargo::warning={line}"));
    let mut slow = Vec::new();
    for image in &images {
        let place = format!("kernels/{} for {}", image.file, image.architecture);
        slow.extend(report::problems(&image.log).into_iter().map(|problem| format!("{place}: {problem}")));
    }
    if (major, minor) == PINNED && !slow.is_empty() {
        return Err(slow.join("\n"));
    }
    slow.iter().for_each(|line| println!("cargo::warning={line} (NVRTC {major}.{minor})"));
    Ok(images)
}

/// The Rust source that embeds sources and images: `src/backend/cuda/images.rs` includes it.
fn table(nvrtc: Option<&Nvrtc>, kernels: &Kernels, images: &[compile::Image]) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    writeln!(text, "static COMPILER: Option<(u32, u32)> = {:?};", nvrtc.map(Nvrtc::version))?;
    for (name, files) in [("KERNEL_FILES", kernels.files()), ("HEADERS", kernels.headers())] {
        writeln!(text, "static {name}: &[(&str, &str)] = &[")?;
        for name in files {
            writeln!(text, "    ({name:?}, include_str!({:?})),", kernels.path(name))?;
        }
        writeln!(text, "];")?;
    }
    writeln!(text, "static IMAGES: &[Image] = &[")?;
    for compile::Image { file, architecture, code, log } in images {
        writeln!(
            text,
            "    Image {{ file: {file:?}, architecture: {architecture:?}, code: include_bytes!({code:?}), log: {log:?} }},"
        )?;
    }
    writeln!(text, "];")?;
    Ok(text)
}

fn variable(name: &str) -> Result<String> {
    env::var(name).map_err(|e| format!("{name}: {e}"))
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(path, bytes).map_err(|e| format!("{}: {e}", path.display()))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(|e| format!("{}: {e}", path.display()))
}
