//! Compiles images, each in a child process, and keeps them for builds to come.
//!
//! A child, because NVRTC can crash (12.9 and 13.0 do on a wgmma with a constant descriptor), so that the parent can say on
//! which kernel; and because NVRTC compiles one program at a time in a process.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::thread;

use crate::kernels::Kernels;
use crate::nvrtc::{Nvrtc, options};
use crate::{Result, read, write};

/// A kernel file compiled for one architecture.
pub(crate) struct Image {
    pub(crate) file: String,
    pub(crate) architecture: String,
    /// The file with the cubin or PTX.
    pub(crate) code: PathBuf,
    /// What the compiler said.
    pub(crate) log: String,
}

/// Compiles every kernel file for each of these architectures, except where `store` has the image of the same inputs, and
/// copies the images to `out`.
pub(crate) fn all(
    nvrtc: &Nvrtc,
    kernels: &Kernels,
    architectures: &[&str],
    store: &Path,
    out: &Path,
) -> Result<Vec<Image>> {
    let store = store.join("images");
    fs::create_dir_all(&store).map_err(|e| format!("{}: {e}", store.display()))?;
    let files = kernels.files();
    let pairs: Vec<_> = files.iter().flat_map(|&file| architectures.iter().map(move |&arch| (file, arch))).collect();
    let images: Vec<Mutex<Option<Result<Image>>>> = pairs.iter().map(|_| Mutex::new(None)).collect();
    let next = Mutex::new(pairs.iter().zip(&images));
    let jobs = env::var("NUM_JOBS").ok().and_then(|jobs| jobs.parse().ok()).unwrap_or(1);
    let work = || {
        let take = || next.lock().ok()?.next();
        while let Some((&(file, architecture), image)) = take() {
            let made = stored(nvrtc, kernels, file, architecture, &store, out);
            *image.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(made);
        }
    };
    thread::scope(|scope| (0..jobs).for_each(|_| drop(scope.spawn(work))));
    let images = images.into_iter().map(|image| image.into_inner().ok().flatten());
    images.map(|image| image.unwrap_or_else(|| Err("a compiling thread died".into()))).collect()
}

fn stored(nvrtc: &Nvrtc, kernels: &Kernels, file: &str, architecture: &str, store: &Path, out: &Path) -> Result<Image> {
    let name = format!("{}.{architecture}", file.trim_end_matches(".cu"));
    let [code, log, inputs] = ["code", "log", "inputs"].map(|part| store.join(format!("{name}.{part}")));
    let (unit, headers) = kernels.unit(file).ok_or_else(|| format!("{file}: no such kernel file"))?;
    // All that the image depends on: not a hash of it, so that there is nothing to collide.
    let now = format!("{:?} {:?}\n{:?}\n{unit:?}\n{headers:?}", nvrtc.path(), nvrtc.version(), options(architecture));
    if fs::read(&inputs).ok().as_deref() != Some(now.as_bytes()) {
        let _ = fs::remove_file(&inputs);
        child(nvrtc, kernels, file, architecture, [&code, &log])?;
        // Last, so that an interrupted compilation is not taken for a finished one.
        write(&inputs, now.as_bytes())?;
    }
    let copy = out.join(name);
    write(&copy, &read(&code)?)?;
    let log = String::from_utf8_lossy(&read(&log)?).into_owned();
    Ok(Image { file: file.into(), architecture: architecture.into(), code: copy, log })
}

fn child(nvrtc: &Nvrtc, kernels: &Kernels, file: &str, architecture: &str, results: [&Path; 2]) -> Result<()> {
    let me = env::current_exe().map_err(|e| format!("the build script's own program: {e}"))?;
    let compiler = std::path::absolute(nvrtc.path()).map_err(|e| format!("{}: {e}", nvrtc.path().display()))?;
    let mut command = Command::new(me);
    // The line information names the sources below the working directory: so the images are the same wherever this lies.
    command.current_dir("/");
    command.arg(compiler.parent().unwrap_or(Path::new("/"))).arg(kernels.path("")).args([file, architecture]);
    let output = command.args(results).output().map_err(|e| format!("the compiling process: {e}"))?;
    let place = format!("kernels/{file} for {architecture}");
    match output.status.code() {
        Some(0) => Ok(()),
        Some(1) => Err(format!("{place} does not compile:\n{}", String::from_utf8_lossy(&output.stdout))),
        _ => {
            let (major, minor) = nvrtc.version();
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            Err(format!("NVRTC {major}.{minor} itself failed on {place}: {}\n{said}", output.status))
        }
    }
}

/// The child: compiles what its arguments say, as [`child`] gives them.
pub(crate) fn one(arguments: &[String]) -> Result<()> {
    let [compiler, folder, file, architecture, code, log] = arguments else {
        return Err("a build script takes no arguments".into());
    };
    let nvrtc = Nvrtc::open(Path::new(compiler)).unwrap_or_else(|| Err(format!("{compiler}: no NVRTC")))?;
    let kernels = Kernels::read(Path::new(folder))?;
    let (unit, headers) = kernels.unit(file).ok_or_else(|| format!("{file}: no such kernel file"))?;
    let compiled = nvrtc.compile(unit, &headers, architecture)?;
    write(Path::new(code), if compiled.cubin.is_empty() { &compiled.ptx } else { &compiled.cubin })?;
    write(Path::new(log), compiled.log.as_bytes())
}
