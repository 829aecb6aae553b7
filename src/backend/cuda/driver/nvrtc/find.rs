//! Where NVRTC may be.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::Nvrtc;

/// The variables that name a folder with NVRTC or a CUDA toolkit, or Python's environment.
pub(crate) const VARIABLES: [&str; 5] = ["NVRTC_DIR", "CUDA_PATH", "CUDA_HOME", "CUDA_ROOT", "VIRTUAL_ENV"];

/// The variable that names a folder for a download. `.cargo/config.toml` sets it for what Cargo runs in this checkout.
pub(crate) const DOWNLOAD: &str = "CIGL_NVRTC_DOWNLOAD";

/// The package that is downloaded, at the version that all figures were made with.
pub(crate) const PINNED_PACKAGE: &str = "nvidia-cuda-nvrtc-cu12==12.6.85";

/// Where NVIDIA's wheels put the library, below the folder they are installed in. The second is that of CUDA 13.
const IN_WHEELS: [&str; 2] = ["nvidia/cuda_nvrtc/lib", "nvidia/cu13/lib"];

/// The first NVRTC that can be loaded: from NVRTC_DIR, a CUDA toolkit, the system's folders, Python's packages, or an
/// earlier download. The error says what was found and could not be loaded; it is empty when nothing was found.
pub(crate) fn find() -> Result<Nvrtc, String> {
    let mut problems = Vec::new();
    let python = std::iter::once_with(python_packages).flatten();
    let download = download().into_iter().flat_map(|folder| in_wheels(&packages(&folder)));
    for folder in named().into_iter().chain(python).chain(download) {
        match Nvrtc::open(&folder) {
            Some(Ok(nvrtc)) => return Ok(nvrtc),
            Some(Err(problem)) => problems.push(problem),
            None => {}
        }
    }
    Err(problems.join("; "))
}

/// The folder for downloads and compiled images, where there is one.
pub(crate) fn download() -> Option<PathBuf> {
    env::var_os(DOWNLOAD).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// Where below that folder the downloaded package is installed.
pub(crate) fn packages(download: &Path) -> PathBuf {
    download.join(PINNED_PACKAGE.replace("==", "-"))
}

/// The folders with libraries among the packages installed in `folder`.
pub(crate) fn in_wheels(folder: &Path) -> Vec<PathBuf> {
    IN_WHEELS.iter().map(|below| folder.join(below)).collect()
}

fn named() -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = env::var_os("NVRTC_DIR").map(PathBuf::from).into_iter().collect();
    folders.extend(env::var_os("NVRTC_DIR").iter().flat_map(|dir| in_wheels(Path::new(dir))));
    let target = format!("targets/{}-linux/lib", if cfg!(target_arch = "aarch64") { "sbsa" } else { "x86_64" });
    let toolkits = VARIABLES[1..4].iter().filter_map(env::var_os).map(PathBuf::from);
    for toolkit in toolkits.chain(["/usr/local/cuda".into(), "/opt/cuda".into()]) {
        folders.extend(["lib64", "lib", &target].map(|lib| toolkit.join(lib)));
    }
    let multiarch = format!("/usr/lib/{}-linux-gnu", env::consts::ARCH);
    folders.extend([PathBuf::from(multiarch), "/usr/lib64".into()]);
    folders
}

/// Where Python looks for packages, by its own account.
fn python_packages() -> Vec<PathBuf> {
    let ask = "import site, sys; print('\\n'.join(dict.fromkeys(sys.path + [site.getusersitepackages()])))";
    let active = env::var_os("VIRTUAL_ENV").map(|dir| Path::new(&dir).join("bin/python3"));
    let pythons = active.into_iter().chain(["python3".into()]);
    let answers = pythons.filter_map(|python| {
        Command::new(python).args(["-c", ask]).stdin(Stdio::null()).stderr(Stdio::null()).output().ok()
    });
    let lines = answers.flat_map(|answer| {
        let text = String::from_utf8_lossy(&answer.stdout).into_owned();
        text.lines().filter(|line| !line.is_empty()).map(PathBuf::from).collect::<Vec<_>>()
    });
    lines.flat_map(|folder| in_wheels(&folder)).collect()
}
