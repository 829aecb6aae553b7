//! The built program, and the small experiment that most tests run.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Ten steps an epoch for six epochs, a mask update every fifth step until step 45, snapshots after epochs 5 and 6.
pub(crate) const SMALL: [&str; 4] =
    ["data.train_limit=640", "data.test_limit=200", "train.epochs=6", "sparse.delta_t=5"];

/// The program, to be given arguments.
pub(crate) fn cigl() -> Command {
    Command::new(assert_cmd::cargo::cargo_bin!("cigl"))
}

/// `cigl train` of the small experiment with `method` into `out`, with more settings, the last one winning.
pub(crate) fn train(method: &str, out: &Path, settings: &[&str]) -> Command {
    let mut command = cigl();
    command.args(["train", "--preset", "digits", "--method", method, "--out"]).arg(out);
    for setting in SMALL.iter().chain(settings) {
        command.args(["--set", setting]);
    }
    command
}

/// Runs a command that must succeed.
pub(crate) fn succeed(mut command: Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}\n{}", stderr(&output));
    output
}

/// Trains the small experiment in a folder `name` of `parent`; returns the run folder.
pub(crate) fn trained(parent: &Path, name: &str, method: &str, settings: &[&str]) -> PathBuf {
    let out = parent.join(name);
    succeed(train(method, &out, settings));
    out
}

/// Runs a command that must fail with this exit code and one line on stderr; returns the line.
pub(crate) fn fail(mut command: Command, code: i32) -> String {
    let output = command.output().unwrap();
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(code), "{command:?}\n{text}");
    let errors: Vec<&str> = text.lines().filter(|line| !line.starts_with("warning:")).collect();
    let [line] = errors[..] else { panic!("{command:?}: expected one line, got\n{text}") };
    assert!(line.starts_with("error: ") && !text.contains("panicked"), "{command:?}: {line}");
    line.to_owned()
}

/// What a process said on stderr.
pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}
