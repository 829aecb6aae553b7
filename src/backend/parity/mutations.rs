//! Whether the tests notice a synchronisation that is not there: each `__syncthreads`, `__syncwarp`, wait for asynchronous
//! copies and fence of the kernels is left out in turn, and some case must fail.
//!
//! A line that says `redundant:` or `not modelled:` behind the call, with the reason, is excused. `cargo test` tries a few of
//! the others, `CIGL_MUTATIONS=all` all of them.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::simt::{self, Site};

/// Where cases write down which places they pass.
const VISITS: &str = "CIGL_SIMT_VISITS";
/// The tests that write them down.
const TESTS: [&str; 2] = ["backend::parity", "backend::cuda::ptx_probe"];
/// What a place of synchronisation looks like.
const CALLS: [&str; 4] = ["__syncthreads", "__syncwarp(", "cp_async_wait<", "__threadfence("];
/// A kernel that no longer ends has been noticed too.
const PATIENCE: Duration = Duration::from_secs(120);
/// Places that `cargo test` tries.
const SAMPLE: usize = 4;

/// Writes down the places that the calling thread's launches passed, if a test asks for it.
pub(crate) fn record(test: &str) {
    let Some(path) = std::env::var_os(VISITS) else { return };
    let lines: String =
        simt::take_visits().iter().map(|site| format!("{}\t{}\t{test}\n", site.file, site.line)).collect();
    let mut file = OpenOptions::new().append(true).create(true).open(path).unwrap();
    file.write_all(lines.as_bytes()).unwrap();
}

/// Some tests, run by another process of this test program.
fn cases(names: &[&str]) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--test-threads=2", "--skip", "mutations"]).args(names).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// The places that the sources have, each with its line's text.
fn places() -> BTreeMap<Site, String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels");
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        // These two define the calls.
        if name == "ptx.cuh" || name == "port.cuh" {
            continue;
        }
        for (number, line) in fs::read_to_string(&path).unwrap().lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            if CALLS.iter().any(|call| code.contains(call)) {
                found.insert(Site { file: name.clone(), line: number as u32 + 1 }, line.trim().to_string());
            }
        }
    }
    found
}

/// The cases that pass each place, and the path that the compiler knows its source by.
fn visits(scratch: &Path) -> BTreeMap<Site, (String, Vec<String>)> {
    let log = scratch.join("visits");
    let status = cases(&TESTS).env(VISITS, &log).status().unwrap();
    assert!(status.success(), "the tests fail without any mutation");
    let mut found: BTreeMap<Site, (String, Vec<String>)> = BTreeMap::new();
    for line in fs::read_to_string(log).unwrap().lines() {
        let [path, line, test] = line.split('\t').collect::<Vec<_>>()[..] else { panic!("{line}") };
        let file = PathBuf::from(path).file_name().unwrap().to_string_lossy().into_owned();
        let (_, tests) =
            found.entry(Site { file, line: line.parse().unwrap() }).or_insert_with(|| (path.to_string(), vec![]));
        if !tests.iter().any(|t| t == test) {
            tests.push(test.to_string());
        }
    }
    found
}

/// Whether some case fails, or does not end, when this place is left out.
fn noticed(path: &str, line: u32, tests: &[String]) -> bool {
    tests.iter().any(|test| {
        let mut child = cases(&["--exact", test]).env("CIGL_SIMT_SKIP", format!("{path}:{line}")).spawn().unwrap();
        let started = Instant::now();
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return !status.success();
            }
            if started.elapsed() > PATIENCE {
                child.kill().unwrap();
                child.wait().unwrap();
                return true;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    })
}

#[test]
fn a_synchronisation_left_out_is_noticed() {
    let scratch = tempfile::tempdir().unwrap();
    let visits = visits(scratch.path());
    let excused = |text: &str| text.contains("redundant:") || text.contains("not modelled:");
    let places: Vec<(Site, String)> = places().into_iter().filter(|(_, text)| !excused(text)).collect();
    let all = std::env::var("CIGL_MUTATIONS").is_ok_and(|v| v == "all");
    let step = if all { 1 } else { places.len().div_ceil(SAMPLE).max(1) };
    let mut missed = vec![];
    for (site, text) in places.iter().step_by(step) {
        let found = visits.get(site).is_some_and(|(path, tests)| noticed(path, site.line, tests));
        println!("{}:{} {}: {text}", site.file, site.line, if found { "noticed" } else { "MISSED" });
        if !found {
            missed.push(format!("{}:{}: {text}", site.file, site.line));
        }
    }
    assert!(missed.is_empty(), "no test notices when these are left out:\n{}", missed.join("\n"));
}
