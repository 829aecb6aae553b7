//! Fetches the pinned NVRTC from Python's package index, where that is allowed.
//!
//! `.cargo/config.toml` of this repository allows it by naming a folder. Cargo reads that file in this checkout only, so
//! dependants never download; neither do documentation servers and builds declared offline.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::nvrtc::Nvrtc;
use crate::nvrtc::find::{PINNED_PACKAGE, download, in_wheels, packages};
use crate::{Result, write};

/// SHA-256 of its wheels for Linux: x86-64, then aarch64.
const HASHES: [&str; 2] = [
    "800927308ccc5dd6246d3f61f7fcef2ed7ec4e59e199090d360d3293f78bd5a2",
    "3f3134f50963882373063901657554f230bedf6039d30b09f6be55c64c993a37",
];

/// Installs the package with whichever pip is there, checks its hash, and loads it.
pub(crate) fn fetch() -> Result<Nvrtc> {
    let folder = download().ok_or("none is installed")?;
    if env::var_os("DOCS_RS").is_some() || env::var("CARGO_NET_OFFLINE").is_ok_and(|value| value == "true") {
        return Err("none is installed, and this build is offline".into());
    }
    if !cfg!(target_os = "linux") {
        return Err("none is installed, and it is fetched on Linux only".into());
    }
    let partial = folder.join("partial");
    let requirements = folder.join("requirements.txt");
    let hashes = HASHES.map(|hash| format!(" --hash=sha256:{hash}")).concat();
    write(&requirements, format!("{PINNED_PACKAGE}{hashes}\n").as_bytes())?;
    let mut problem = "none is installed, and neither pip nor uv is there to fetch it".to_string();
    for (program, arguments) in pips() {
        // What an interrupted installation left.
        let _ = fs::remove_dir_all(&partial);
        let mut command = Command::new(&program);
        command.args(arguments).args(["install", "--quiet", "--no-deps", "--require-hashes", "--only-binary=:all:"]);
        command.arg("--target").arg(&partial).arg("-r").arg(&requirements).stdin(Stdio::null());
        // Without a network it is better to fail at once than to try again.
        command.env("PIP_RETRIES", "0").env("PIP_DEFAULT_TIMEOUT", "15").env("PIP_DISABLE_PIP_VERSION_CHECK", "1");
        command.env("UV_HTTP_TIMEOUT", "15");
        let Ok(output) = command.output() else { continue };
        if output.status.success() {
            let packages = packages(&folder);
            let _ = fs::remove_dir_all(&packages);
            fs::rename(&partial, &packages).map_err(|e| format!("{}: {e}", packages.display()))?;
            return in_wheels(&packages)
                .iter()
                .find_map(|folder| Nvrtc::open(folder))
                .unwrap_or_else(|| Err("the package holds no libnvrtc".into()));
        }
        let text = String::from_utf8_lossy(&output.stderr);
        let missing = text.contains("No module named");
        if let Some(line) = text.lines().rev().find(|line| !line.trim().is_empty()).filter(|_| !missing) {
            problem = format!("none is installed, and {} could not fetch it: {}", program.display(), line.trim());
            break;
        }
    }
    Err(problem)
}

fn pips() -> Vec<(PathBuf, &'static [&'static str])> {
    let active = env::var_os("VIRTUAL_ENV").map(|dir| Path::new(&dir).join("bin/python3"));
    let mut pips: Vec<(PathBuf, &'static [&'static str])> = Vec::new();
    pips.extend(active.map(|python| (python, &["-m", "pip"][..])));
    pips.push(("python3".into(), &["-m", "pip"]));
    pips.push(("pip3".into(), &[]));
    pips.push(("uv".into(), &["pip"]));
    pips
}
