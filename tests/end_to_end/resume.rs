//! Runs that are stopped at any moment and resumed end as if nothing had happened.
#![cfg(unix)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cigl::rng::{Domain, Stream};

use crate::program::{cigl, fail, stderr, succeed, train};
use crate::run_files::{assert_same_run, files, last};

/// Longer than any of these runs takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// When a process is killed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Moment {
    /// So many milliseconds after it was started.
    Milliseconds(u32),
    /// As soon as its log has so many lines.
    Logged(usize),
    /// As soon as a temporary file of a checkpoint is seen after the log has so many lines.
    WritingCheckpoint(usize),
    /// As soon as this file is there.
    There(&'static str),
}

impl Moment {
    fn has_come(self, run: &Path, since: Instant) -> bool {
        let lines = || std::fs::read_to_string(run.join("metrics.jsonl")).map_or(0, |text| text.lines().count());
        let temporary = || {
            let entries = std::fs::read_dir(run.join("checkpoint")).into_iter().flatten().flatten();
            entries.into_iter().any(|entry| entry.file_name().to_string_lossy().starts_with('.'))
        };
        match self {
            Moment::Milliseconds(n) => since.elapsed() >= Duration::from_millis(n.into()),
            Moment::Logged(n) => lines() >= n,
            Moment::WritingCheckpoint(n) => lines() >= n && temporary(),
            Moment::There(file) => run.join(file).exists(),
        }
    }
}

/// Starts a command and kills it with SIGKILL at a moment. Returns whether it had not ended by itself.
pub(crate) fn kill_at(mut command: Command, run: &Path, moment: Moment) -> bool {
    let since = Instant::now();
    let mut process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    while !moment.has_come(run, since) {
        assert!(since.elapsed() < PATIENCE, "{moment:?} never came");
        if process.try_wait().unwrap().is_some() {
            return false;
        }
        std::thread::sleep(Duration::from_micros(100));
    }
    process.kill().unwrap();
    !process.wait().unwrap().success()
}

/// An experiment that is compared with its interrupted self.
struct Experiment {
    folder: tempfile::TempDir,
    method: &'static str,
    settings: Vec<&'static str>,
}

impl Experiment {
    fn new(method: &'static str, settings: &[&'static str]) -> Experiment {
        // Steps of 32 images, twice as many as usual, so that there is time to kill in.
        let settings = [&["train.batch_size=32", "train.log_every=3"], settings].concat();
        let experiment = Experiment { folder: tempfile::tempdir().unwrap(), method, settings };
        succeed(train(method, &experiment.expected(), &experiment.settings));
        experiment
    }

    /// The run that nobody interrupted.
    fn expected(&self) -> PathBuf {
        self.folder.path().join("expected")
    }

    /// Runs, kills at each of the moments, resumes each time, and compares. Returns how many kills hit.
    fn survives(&self, name: &str, moments: &[Moment]) -> usize {
        let run = self.folder.path().join(name);
        let command = || {
            let mut command = train(self.method, &run, &self.settings);
            command.arg("--resume");
            command
        };
        let hits = moments.iter().filter(|&&moment| kill_at(command(), &run, moment)).count();
        succeed(command());
        assert_same_run(&run, &self.expected());
        hits
    }
}

fn assert_survives_kills(method: &'static str, settings: &[&'static str]) {
    let experiment = Experiment::new(method, settings);
    let (finished, model) = (Moment::There("plots/reliability.png"), Moment::There("checkpoint/model.safetensors"));
    let known = [Moment::Logged(1), Moment::WritingCheckpoint(12), Moment::Logged(40), model, finished];
    // On a fast disk a checkpoint may be written between two looks.
    assert!(experiment.survives("known", &known) >= known.len() - 1, "some kills came too late");
    let mut stream = Stream::new(7, Domain::Shuffle, 0, 0);
    let random: Vec<Moment> = (0..4).map(|_| Moment::Milliseconds(20 + stream.below(300))).collect();
    experiment.survives("random", &random);
}

#[test]
fn cigl_survives_kills() {
    assert_survives_kills("cigl", &[]);
}

#[test]
fn cigl_with_the_official_semantics_survives_kills() {
    assert_survives_kills("cigl", &["random_mask.semantics=official", "random_mask.keep=0.8"]);
}

#[test]
fn snfs_survives_kills() {
    assert_survives_kills("snfs", &[]);
}

#[test]
fn gmp_with_adam_and_mixup_survives_kills() {
    assert_survives_kills("gmp", &["train.optimizer=adam", "train.lr=0.001", "train.mixup=0.3"]);
}

#[test]
fn an_ensemble_of_snapshots_survives_kills() {
    assert_survives_kills("cigl-no-wma", &["averaging.start=4", "sparse.t_end=0.5"]);
}

/// Starts a command and waits until its log has so many lines.
fn start(mut command: Command, run: &Path, lines: usize) -> Child {
    let since = Instant::now();
    let mut process = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    while !Moment::Logged(lines).has_come(run, since) {
        assert!(since.elapsed() < PATIENCE && process.try_wait().unwrap().is_none(), "{command:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
    process
}

fn send(process: &Child, signal: &str) {
    succeed({
        let mut kill = Command::new("sh");
        kill.args(["-c", &format!("kill -{signal} {}", process.id())]);
        kill
    });
}

#[test]
fn signals_save_a_checkpoint_in_the_middle_of_an_epoch_and_resuming_gives_the_same_bits() {
    let experiment = Experiment::new("cigl", &["train.epochs=18"]);
    for (signal, code) in [("TERM", 143), ("INT", 130)] {
        let run = experiment.folder.path().join(signal);
        let process = start(train("cigl", &run, &experiment.settings), &run, 10);
        send(&process, signal);
        let output = process.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{}", stderr(&output));
        let said = stderr(&output);
        let line = said.lines().last().unwrap();
        assert!(line.starts_with("error: stopped by signal") && line.contains("--resume"), "{said}");
        let step = last(&run).about["step"].as_u64().unwrap();
        assert!(step > 0 && !run.join("summary.json").exists(), "stopped at step {step}");
        // Only the folder is named: it knows what it is.
        let mut resume = cigl();
        succeed({
            resume.args(["train", "--resume", "--out"]).arg(&run);
            resume
        });
        assert_same_run(&run, &experiment.expected());
    }
}

/// A run of the small experiment that was stopped by SIGTERM in its third epoch or later.
fn interrupted(parent: &Path) -> PathBuf {
    let run = parent.join("interrupted");
    let process = start(train("cigl", &run, &["train.epochs=120", "averaging.start=100"]), &run, 7);
    send(&process, "TERM");
    assert_eq!(process.wait_with_output().unwrap().status.code(), Some(143));
    run
}

pub(crate) fn resume(run: &Path) -> Command {
    let mut command = cigl();
    command.args(["train", "--resume", "--out"]).arg(run);
    command
}

#[test]
fn a_damaged_checkpoint_is_told_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let run = interrupted(folder.path());
    let checkpoint = run.join("checkpoint/last.safetensors");
    let whole = std::fs::read(&checkpoint).unwrap();
    let header = u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    let text = String::from_utf8(whole[8..8 + header].to_vec()).unwrap();
    let step = 8 + text.find("\\\"step\\\":").unwrap() + 9;
    let flipped = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        bytes
    };
    let metrics = std::fs::read(run.join("metrics.jsonl")).unwrap();
    let before = files(&run);
    let failed = [before.clone(), vec!["failure.json".into()]].concat();
    for (what, bytes) in [
        ("a tensor's byte", flipped(8 + header + 1000)),
        ("the last byte", flipped(whole.len() - 1)),
        ("the step number", flipped(step)),
        ("the header's length", flipped(0)),
        ("half of it", whole[..whole.len() / 2].to_vec()),
        ("its last byte missing", whole[..whole.len() - 1].to_vec()),
        ("nothing in it", vec![]),
    ] {
        std::fs::write(&checkpoint, &bytes).unwrap();
        let error = fail(resume(&run), 1);
        assert!(error.contains("last.safetensors: "), "{what}: {error}");
        assert!(std::fs::read(&checkpoint).unwrap() == bytes, "{what}: the checkpoint was touched");
        assert!(std::fs::read(run.join("metrics.jsonl")).unwrap() == metrics, "{what}: the log was touched");
        // Nothing is added but the reason.
        assert_eq!(BTreeSet::from_iter(files(&run)), BTreeSet::from_iter(failed.clone()), "{what}");
        assert!(std::fs::read_to_string(run.join("failure.json")).unwrap().contains("last.safetensors"), "{what}");
    }
    std::fs::write(&checkpoint, &whole).unwrap();
    succeed(resume(&run));
    assert!(!run.join("failure.json").exists());
}

#[test]
fn a_run_that_another_process_works_on_is_not_touched() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let settings = ["train.epochs=5000"];
    let mut process = start(train("cigl", &run, &settings), &run, 3);
    let error = fail(resume(&run), 1);
    assert!(error.contains("another process is working on this run"), "{error}");
    let error = fail(train("cigl", &run, &settings), 2);
    assert!(error.contains("--resume"), "{error}");
    assert!(process.try_wait().unwrap().is_none(), "the first process was disturbed");
    process.kill().unwrap();
    process.wait().unwrap();
}

#[test]
fn an_unfinished_run_is_continued_only_when_asked_and_only_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let run = interrupted(folder.path());
    let same = ["train.epochs=120", "averaging.start=100"];
    let error = fail(train("cigl", &run, &same), 2);
    assert!(error.contains("holds an unfinished run") && error.contains("--resume"), "{error}");
    let mut other = train("cigl", &run, &[&same[..], &["train.lr=0.2"]].concat());
    other.arg("--resume");
    let error = fail(other, 2);
    assert!(error.contains("train.lr") && error.contains("--resume"), "{error}");
    let mut other = train("rigl", &run, &same);
    other.arg("--resume");
    assert!(fail(other, 2).contains("method"), "another method");
    // What a process that was killed while it wrote has left is cleared away.
    for left in
        ["checkpoint/.last.safetensors.77.cigl-tmp", "plots/.density.png.77.cigl-tmp", ".summary.json.7.cigl-tmp"]
    {
        std::fs::write(run.join(left), "half").unwrap();
    }
    let mut command = train("cigl", &run, &same);
    command.arg("--resume");
    succeed(command);
    assert!(files(&run).iter().all(|file| !file.to_string_lossy().ends_with("-tmp")), "{:?}", files(&run));
}

#[test]
fn a_finished_run_is_kept_and_the_next_one_is_numbered() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let short = ["train.steps=3"];
    succeed(train("rigl", &run, &short));
    let first = std::fs::read(run.join("summary.json")).unwrap();
    succeed(train("rigl", &run, &short));
    succeed(train("rigl", &run, &short));
    assert!(std::fs::read(run.join("summary.json")).unwrap() == first);
    let mut names: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["run", "run-2", "run-3"]);
    assert_same_run(&folder.path().join("run-3"), &run);
    // Resuming what is finished trains nothing.
    succeed(resume(&run));
    assert!(std::fs::read(run.join("summary.json")).unwrap() == first);
}

#[test]
fn resuming_reaches_the_numbered_run_that_is_unfinished() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let short = ["train.steps=3"];
    let command = || train("rigl", &run, &short);
    (0..3).for_each(|_| _ = succeed(command()));
    // As if the third had been killed after its last checkpoint.
    let third = folder.path().join("run-3");
    for what in ["the same command", "no more than the folder"] {
        std::fs::remove_file(third.join("summary.json")).unwrap();
        let error = fail(command(), 2);
        assert!(error.contains("run-3 holds an unfinished run") && error.contains("--resume"), "{error}");
        let mut again = command();
        again.arg("--resume");
        let output = succeed(if what == "the same command" { again } else { resume(&run) });
        assert!(String::from_utf8(output.stdout).unwrap().contains("run-3"), "{what}");
        assert_same_run(&third, &run);
    }
    assert!(!folder.path().join("run-4").exists());
}

#[test]
fn a_finished_run_of_another_experiment_is_not_the_answer() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    succeed(train("rigl", &run, &["train.steps=3"]));
    for (method, settings, key) in
        [("cigl", &["train.steps=3"][..], "method"), ("rigl", &["train.steps=3", "sparsity=0.5"], "sparsity")]
    {
        let mut other = train(method, &run, settings);
        other.arg("--resume");
        let error = fail(other, 2);
        assert!(error.contains(&format!("run was begun with another {key}")), "{error}");
    }
    let mut same = train("rigl", &run, &["train.steps=3"]);
    same.arg("--resume");
    succeed(same);
}

#[test]
fn several_runs_of_one_command_are_resumed_together() {
    let folder = tempfile::tempdir().unwrap();
    let command = |out: &str| {
        let mut command = train("rigl", &folder.path().join(out), &["train.steps=30"]);
        command.args(["--method", "set", "--seeds", "2"]);
        command
    };
    succeed(command("expected"));
    let second = folder.path().join("killed/digits-rigl-0.9-s1");
    assert!(kill_at(command("killed"), &second, Moment::Logged(2)));
    let mut again = command("killed");
    again.arg("--resume");
    let output = succeed(again);
    for run in ["digits-rigl-0.9-s0", "digits-rigl-0.9-s1", "digits-set-0.9-s0", "digits-set-0.9-s1"] {
        assert_same_run(&folder.path().join("killed").join(run), &folder.path().join("expected").join(run));
    }
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(table.contains("rigl") && table.contains("set") && table.contains("±"), "{table}");
}
