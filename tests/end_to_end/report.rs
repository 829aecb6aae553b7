//! `cigl report`: a page from run folders.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::tempdir;

use crate::program::{SMALL, cigl, fail, succeed};
use crate::run_files::summary;

/// Two methods and two seeds in `parent`; returns the run folders.
fn four_runs(parent: &Path) -> Vec<PathBuf> {
    let mut command = cigl();
    command.args(["train", "--preset", "digits", "--method", "rigl", "--method", "cigl", "--seeds", "2", "--out"]);
    command.arg(parent);
    for setting in SMALL {
        command.args(["--set", setting]);
    }
    succeed(command);
    let name = |(method, seed)| parent.join(format!("digits-{method}-0.9-s{seed}"));
    [("rigl", 0), ("rigl", 1), ("cigl", 0), ("cigl", 1)].map(name).to_vec()
}

fn report(dir: &Path) -> std::process::Command {
    let mut command = cigl();
    command.arg("report").arg(dir);
    command
}

/// "mean ± sd" of two values: the sample standard deviation of a and b is |a - b| / sqrt 2.
fn mean_and_sd(a: f64, b: f64, decimals: usize) -> String {
    format!("{:.decimals$} ± {:.decimals$}", (a + b) / 2.0, (a - b).abs() / 2f64.sqrt())
}

fn copy(from: &Path, to: &Path, leave_out: &str) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let (name, target) = (path.file_name().unwrap(), to.join(path.file_name().unwrap()));
        match path.is_dir() {
            _ if name == leave_out => {}
            true => copy(&path, &target, leave_out),
            false => drop(fs::copy(&path, target).unwrap()),
        }
    }
}

#[test]
fn a_page_holds_every_run_and_the_means_over_seeds() {
    let dir = tempdir().unwrap();
    let runs = four_runs(&dir.path().join("deep/er"));
    succeed(report(dir.path()));
    let html = fs::read_to_string(dir.path().join("report.html")).unwrap();
    for pair in runs.chunks(2) {
        let value = |run: &Path, key: &str| -> f64 { summary(run)["test"][key].as_f64().unwrap() };
        for (key, scale, decimals) in [("accuracy", 100.0, 2), ("nll", 1.0, 3), ("ece", 1.0, 4), ("ece_10", 1.0, 4)] {
            let cell = mean_and_sd(scale * value(&pair[0], key), scale * value(&pair[1], key), decimals);
            assert!(html.contains(&format!("<td>{cell}</td>")), "{key} {cell}");
        }
    }
    for run in &runs {
        let name = run.file_name().unwrap().to_str().unwrap();
        assert_eq!(html.matches(&format!("<summary>{name}: accuracy ")).count(), 1, "{name}");
        let device = summary(run)["device"].as_str().unwrap().to_string();
        let seed = summary(run)["seed"].as_u64().unwrap();
        assert!(html.contains(&format!("seed {seed}, on {device} in f32 by cigl {}", env!("CARGO_PKG_VERSION"))));
    }
    // Each run's five pictures and its configuration; 640 of the 3,823 digits; 200 test images.
    assert_eq!(html.matches("<svg ").count(), 20);
    assert_eq!(html.matches("delta_t = 5\n").count(), 4);
    assert!(html.contains("trained on 640 images of digits for 6 epochs (60 steps of 64 images)"));
    assert!(html.contains("measured on 200 test images"));
    for reference in ["http", "src=", "<script", "<link", "@import", "url("] {
        assert!(!html.replace("http://www.w3.org/2000/svg", "").contains(reference), "{reference}");
    }
}

#[test]
fn runs_without_a_result_are_listed_with_the_reason() {
    let dir = tempdir().unwrap();
    let runs = four_runs(&dir.path().join("runs"));
    copy(&runs[3], &dir.path().join("stopped"), "summary.json");
    copy(&runs[3], &dir.path().join("broken"), "summary.json");
    fs::write(dir.path().join("broken/failure.json"), "{\"error\": \"loss is NaN <at> step 7\"}").unwrap();
    let out = dir.path().join("page.html");
    let mut command = report(&dir.path().join("stopped"));
    command.args([dir.path(), Path::new("--out"), &out]);
    let said = String::from_utf8(succeed(command).stdout).unwrap();
    assert!(said.contains("4 of 6 runs finished"), "{said}");
    let html = fs::read_to_string(out).unwrap();
    assert!(html.contains("<summary>stopped: unfinished: 6 of 6 epochs</summary>"));
    assert!(html.contains("<summary>broken: failed: loss is NaN &lt;at&gt; step 7</summary>"));
    assert!(html.contains("2 runs have no result"));
}

#[test]
fn what_cannot_be_read_is_one_error_that_names_the_file() {
    let dir = tempdir().unwrap();
    let error = fail(report(dir.path()), 1);
    assert!(error.contains(&dir.path().display().to_string()) && error.contains("holds no run"), "{error}");
    let runs = four_runs(dir.path());
    let path = runs[2].join("summary.json");
    let whole = fs::read_to_string(&path).unwrap();
    for broken in [&whole[..whole.len() / 2], "[]", ""] {
        fs::write(&path, broken).unwrap();
        let error = fail(report(dir.path()), 1);
        assert!(error.contains(&path.display().to_string()) && error.contains("is not a run's summary"), "{error}");
    }
    fs::write(&path, whole).unwrap();
    let picture = runs[0].join("plots/density.svg");
    fs::write(&picture, "<svg xmlns=\"http://www.w3.org/2000/svg\"><script>alert(1)</script></svg>").unwrap();
    let error = fail(report(dir.path()), 1);
    assert!(error.contains("density.svg") && error.contains("script"), "{error}");
}
