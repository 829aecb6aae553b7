//! What the program prints, and what becomes of it when nobody reads.

use std::process::{Command, Stdio};

use crate::program::{cigl, succeed, train, trained};

/// What `command` says on stdout.
fn said(command: Command) -> String {
    String::from_utf8(succeed(command).stdout).unwrap()
}

#[test]
fn a_reader_that_stops_reading_is_no_error() {
    let folder = tempfile::tempdir().unwrap();
    let run = trained(folder.path(), "run", "rigl", &["train.steps=0"]);
    let image = folder.path().join("image.png");
    image::GrayImage::new(8, 8).save(&image).unwrap();
    let command = |arguments: &[&str]| {
        let mut command = cigl();
        command.args(arguments);
        command
    };
    let [run, image] = [&run, &image].map(|path| path.to_str().unwrap());
    for mut command in [
        command(&["info"]),
        command(&["info", "--preset", "cifar10-wrn22-2", "--plan"]),
        command(&["info", "--preset", "digits", "--json"]),
        command(&["eval", run]),
        command(&["predict", run, image]),
        command(&["train", "--resume", "--out", run]),
        train("rigl", &folder.path().join("new"), &["train.steps=0"]),
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = command.stdout(writer).stderr(Stdio::piped()).output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{command:?}: {output:?}");
    }
    // Nor is one that does not want to hear of a mistake.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let status = command(&["eval", "nothing"]).stderr(writer).status().unwrap();
    assert_eq!(status.code(), Some(1));
}

#[test]
#[cfg(target_os = "linux")]
fn output_that_is_lost_is_an_error() {
    let mut info = cigl();
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = info.arg("info").stdout(full).stderr(Stdio::piped()).output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(
        error.starts_with("error: standard output could not be written: ") && error.lines().count() == 1,
        "{error}"
    );
}

/// The rows of the table that begin with one of these names, as (name, seeds).
fn rows<'a>(table: &str, names: &[&'a str]) -> Vec<(&'a str, String)> {
    let row = |line: &str| {
        let line = line.trim_start();
        let name = names.iter().find(|name| line.starts_with(&format!("{name}  ")))?;
        Some((*name, line[name.len()..].split_whitespace().next()?.to_owned()))
    };
    table.lines().filter_map(row).collect()
}

#[test]
fn only_runs_that_differ_in_nothing_but_the_seed_share_a_row() {
    let folder = tempfile::tempdir().unwrap();
    let runs = folder.path().join("runs");
    // In the order of their names no two runs of one experiment are neighbours.
    for (name, settings) in [
        ("a", ["sparsity=0.8", "seed=0"]),
        ("b", ["sparsity=0.9", "seed=0"]),
        ("c", ["sparsity=0.8", "seed=1"]),
        ("d", ["sparsity=0.9", "network.name=mlp"]),
    ] {
        trained(&runs, name, "cigl", &[&settings[..], &["train.steps=0", "data.test_limit=50"]].concat());
    }
    let resume = || {
        let mut command = cigl();
        command.args(["train", "--resume", "--out"]).arg(&runs);
        command
    };
    let table = said(resume());
    let network = crate::run_files::summary(&runs.join("a"))["network"].as_str().unwrap().to_owned();
    let names = [80, 90].map(|percent| format!("{network} cigl {percent} %"));
    let [sparse, sparser] = names.each_ref().map(String::as_str);
    let expected = [(sparse, "2"), (sparser, "1"), ("mlp cigl 90 %", "1")];
    assert_eq!(
        rows(&table, &[sparse, sparser, "mlp cigl 90 %"]),
        expected.map(|(name, seeds)| (name, seeds.to_owned())),
        "{table}"
    );
    assert!(table.contains("on 50 test images; ECE falls"), "{table}");
    // One more, measured on other images.
    trained(&runs, "e", "rigl", &["train.steps=0"]);
    let table = said(resume());
    assert!(!table.contains("test images") && table.contains("ECE falls"), "{table}");
}

#[test]
fn runs_that_differ_in_the_method_alone_are_named_by_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = train("rigl", &folder.path().join("runs"), &["train.steps=0"]);
    command.args(["--method", "set", "--seeds", "2"]);
    let table = said(command);
    assert_eq!(rows(&table, &["rigl", "set"]), [("rigl", "2".to_owned()), ("set", "2".to_owned())], "{table}");
}
