//! `cigl reproduce` at the scale of a test: the small convnet on a few hundred of the embedded digits.
#![cfg(unix)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use cigl::rng::{Domain, Stream};
use serde_json::Value;

use crate::program::{cigl, fail, stderr, succeed};
use crate::run_files::summary;

/// `cigl reproduce` of some experiments into `out`, with more options.
fn reproduce(experiments: &[&str], out: &Path, options: &[&str]) -> Command {
    let mut command = cigl();
    command.arg("reproduce").args(experiments).args(["--scale", "smoke", "--out"]).arg(out).args(options);
    command
}

/// Every number of every cell, by experiment, method, sparsity and metric.
struct Numbers(Vec<Value>);

impl Numbers {
    fn of(command: Command) -> Numbers {
        Numbers(serde_json::from_slice(&succeed(command).stdout).unwrap())
    }

    /// The line of a cell that was run here.
    fn here(&self, experiment: &str, method: &str, sparsity: f64, metric: &str) -> &Value {
        let found = self.0.iter().find(|line| {
            [&line["experiment"], &line["method"], &line["metric"], &line["dataset"]]
                == [experiment, method, metric, "digits"]
                && line["sparsity"] == sparsity
        });
        found.unwrap_or_else(|| panic!("no {experiment} {method} {sparsity} {metric}"))
    }

    fn mean(&self, experiment: &str, method: &str, sparsity: f64, metric: &str) -> f64 {
        self.here(experiment, method, sparsity, metric)["mean"].as_f64().unwrap()
    }
}

fn runs(out: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(out.join("runs")).unwrap();
    entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
}

fn run(out: &Path, name: &str) -> PathBuf {
    out.join("runs").join(format!("digits-small-convnet-{name}"))
}

/// The tables of an experiment: what a reader gets.
fn tables(out: &Path, experiment: &str) -> [String; 2] {
    ["md", "csv"].map(|ending| std::fs::read_to_string(out.join(format!("{experiment}.{ending}"))).unwrap())
}

/// `cigl train` of what the smoke scale trains, method by method, without `cigl reproduce`.
fn trained_alone(parent: &Path, method: &str) -> Value {
    let out = parent.join(method);
    let mut command = cigl();
    command.args(["train", "--preset", "digits", "--sparsity", "0.9", "--method", method, "--out"]).arg(&out);
    for set in
        ["data.train_limit=640", "data.validation=64", "data.test_limit=200", "sparse.delta_t=5", "train.epochs=6"]
    {
        command.args(["--set", set]);
    }
    succeed(command);
    summary(&out)
}

#[test]
fn every_number_is_that_of_a_run_of_the_method() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let experiments = ["table3", "fig4", "fig5"];
    let numbers = Numbers::of(reproduce(&experiments, &out, &["--json", "--sparsities", "0.9"]));
    // Eight methods need six trainings: MC-DP predicts with W-DP's network, TS with RigL's, CigL without averaging with CigL's.
    let trained = ["rigl", "rigl+wdp", "cigl", "rigl+mixup", "rigl+ls", "cigl-no-rm"];
    assert_eq!(runs(&out), trained.iter().map(|method| format!("digits-small-convnet-{method}-0.9-s0")).collect());
    for (experiment, method) in [
        ("table3", "rigl"),
        ("table3", "rigl+wdp"),
        ("table3", "rigl+mcdp"),
        ("table3", "cigl"),
        ("fig4", "rigl+mixup"),
        ("fig4", "rigl+ls"),
        ("fig4", "rigl+ts"),
        ("fig5", "cigl-no-rm"),
        ("fig5", "cigl-no-wma"),
    ] {
        let alone = trained_alone(folder.path(), method);
        for metric in ["accuracy", "ece_10", "nll"] {
            let line = numbers.here(experiment, method, 0.9, metric);
            assert_eq!((&line["state"], &line["seeds"]), (&"measured".into(), &1.into()), "{method}");
            assert_eq!(line["mean"], alone["test"][metric], "{method}: {metric}");
        }
    }
}

#[test]
fn every_published_cell_is_in_the_tables_and_one_not_run_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let published = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/src/reproduce/paper_results.csv"));
    let published = published.unwrap();
    let experiments = ["table1", "table2", "table3", "fig1c"];
    // Only one of many trainings is run.
    let only = ["--only", "digits-small-convnet-rigl-0.95-s0"];
    let numbers = Numbers::of(reproduce(&experiments, folder.path(), &[&only[..], &["--json"]].concat()));
    let mut seen = 0;
    for line in published.lines().skip(1) {
        let [source, dataset, network, method, sparsity, metric, mean, sd] = line.split(',').collect::<Vec<_>>()[..]
        else {
            panic!("{line}")
        };
        let metric = if metric == "ece" { "ece_10" } else { metric };
        let found = numbers.0.iter().find(|line| {
            [&line["experiment"], &line["dataset"], &line["network"], &line["method"], &line["metric"]]
                == [source, dataset, network, method, metric]
                && line["sparsity"] == sparsity.parse::<f64>().unwrap()
        });
        let found = found.unwrap_or_else(|| panic!("{line} is not in the tables"));
        assert_eq!(found["paper_mean"], mean.parse::<f64>().unwrap(), "{line}");
        assert_eq!(found["paper_sd"].as_f64(), sd.parse().ok(), "{line}");
        assert_eq!((&found["state"], &found["mean"]), (&"not run".into(), &Value::Null), "{line}");
        seen += 1;
    }
    assert_eq!(seen, 102);
    assert_eq!(numbers.here("table3", "rigl", 0.95, "ece_10")["state"], "measured");
    assert_eq!(numbers.here("table3", "rigl", 0.9, "ece_10")["state"], "not run");
    // In the table for people: a published percentage with its deviation, and what is missing.
    let [text, _] = tables(folder.path(), "table1");
    assert!(text.contains("94.02 ± 0.11") && text.contains("not run"), "{text}");
}

#[test]
fn several_seeds_give_a_mean_and_a_standard_deviation() {
    let folder = tempfile::tempdir().unwrap();
    let options = ["--seeds", "3", "--sparsities", "0.9", "--json"];
    let numbers = Numbers::of(reproduce(&["fig3", "table1"], folder.path(), &options));
    let values: Vec<f64> = (0..3)
        .map(|seed| summary(&run(folder.path(), &format!("cigl-0.9-s{seed}")))["test"]["ece_10"].as_f64().unwrap())
        .collect();
    let mean = values.iter().sum::<f64>() / 3.0;
    let sd = (values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / 2.0).sqrt();
    let line = numbers.here("table1", "cigl", 0.9, "ece_10");
    assert!((line["mean"].as_f64().unwrap() - mean).abs() < 1e-12 && (line["sd"].as_f64().unwrap() - sd).abs() < 1e-12);
    assert!(sd > 0.0);
    assert!(numbers.0.iter().any(|line| line["experiment"] == "fig3" && line["dataset"] == "imagenet"));
    // A fourth seed trains that one alone, and an incomplete cell counts what is there.
    std::fs::remove_dir_all(run(folder.path(), "cigl-0.9-s1")).unwrap();
    let options = ["--seeds", "4", "--sparsities", "0.9", "--json", "--only", "cigl-0.9-s3"];
    let numbers = Numbers::of(reproduce(&["table1"], folder.path(), &options));
    let line = numbers.here("table1", "cigl", 0.9, "ece_10");
    assert_eq!((&line["seeds"], &line["state"]), (&3.into(), &"partial".into()));
    assert!(tables(folder.path(), "table1")[0].contains("(3 of 4)"));
}

// CigL, appendix C: a network that was not trained with Z is hurt by it.
#[test]
fn a_fresh_random_mask_hurts_networks_that_were_trained_without_one() {
    let folder = tempfile::tempdir().unwrap();
    let numbers = Numbers::of(reproduce(&["appendix-c"], folder.path(), &["--json"]));
    for sparsity in [0.0, 0.9, 0.95] {
        let nll = |row| numbers.mean("appendix-c", row, sparsity, "nll");
        assert!(nll("rigl, fresh Z") > nll("rigl"), "at {sparsity}");
    }
    assert!(run(folder.path(), "dense-0-s0").is_dir() && !run(folder.path(), "rigl-0-s0").exists());
    assert_eq!(
        numbers.here("appendix-c", "rigl", 0.95, "nll")["mean"],
        summary(&run(folder.path(), "rigl-0.95-s0"))["test"]["nll"]
    );
}

#[test]
fn a_signal_saves_a_checkpoint_and_stops_everything() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = reproduce(&["table3"], folder.path(), &[]);
    let process = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let log = run(folder.path(), "rigl-0.9-s0").join("metrics.jsonl");
    let since = Instant::now();
    while !std::fs::read_to_string(&log).is_ok_and(|text| text.lines().count() > 3) {
        assert!(since.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_micros(200));
    }
    succeed({
        let mut kill = Command::new("kill");
        kill.args(["-TERM", &process.id().to_string()]);
        kill
    });
    let output = process.wait_with_output().unwrap();
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(143), "{said}");
    assert!(
        said.lines().last().unwrap().starts_with("error: stopped by signal 15; the same command goes on"),
        "{said}"
    );
    assert!(runs(folder.path()).len() <= 2, "others were begun after the signal");
}

/// Longer than any of these takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

#[test]
fn whatever_is_killed_goes_on_and_ends_in_the_same_tables() {
    let folder = tempfile::tempdir().unwrap();
    let (expected, out) = (folder.path().join("expected"), folder.path().join("out"));
    succeed(reproduce(&["table3", "fig5"], &expected, &[]));
    let mut stream = Stream::new(3, Domain::Shuffle, 0, 0);
    let mut hits = 0;
    for _ in 0..12 {
        let mut command = reproduce(&["table3", "fig5"], &out, &[]);
        let mut process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(u64::from(30 + stream.below(700))));
        process.kill().unwrap();
        hits += usize::from(!process.wait().unwrap().success());
    }
    assert!(hits > 3, "only {hits} kills hit");
    succeed(reproduce(&["table3", "fig5"], &out, &[]));
    for experiment in ["table3", "fig5"] {
        assert_eq!(tables(&out, experiment), tables(&expected, experiment));
    }
}

#[test]
fn two_processes_share_a_folder_and_train_each_run_once() {
    let folder = tempfile::tempdir().unwrap();
    let (expected, out) = (folder.path().join("expected"), folder.path().join("out"));
    succeed(reproduce(&["table3"], &expected, &[]));
    let start = || {
        let mut command = reproduce(&["table3"], &out, &[]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let outputs = [start(), start()].map(|process| process.wait_with_output().unwrap());
    let mut trained = vec![];
    for output in &outputs {
        let said = stderr(output);
        assert!(output.status.success(), "{said}");
        // Each training tells what it takes, once, after its first steps.
        let names = said.lines().filter(|line| line.contains("to train")).filter_map(|line| {
            let (name, _) = line.split_once("] ")?.1.split_once(": ")?;
            Some(name.to_string())
        });
        trained.extend(names);
    }
    trained.sort();
    assert_eq!(trained, runs(&out).into_iter().collect::<Vec<_>>(), "{trained:?}");
    assert_eq!(tables(&out, "table3"), tables(&expected, "table3"));
}

#[test]
fn a_run_that_another_process_holds_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let held = run(folder.path(), "cigl-0.9-s0");
    std::fs::create_dir_all(&held).unwrap();
    let lock = std::fs::File::create(held.join(".lock")).unwrap();
    lock.lock().unwrap();
    let mut command = reproduce(&["table1"], folder.path(), &["--sparsities", "0.9"]);
    let mut process = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let since = Instant::now();
    while !run(folder.path(), "rigl-0.9-s0").join("summary.json").is_file() {
        assert!(since.elapsed() < PATIENCE && process.try_wait().unwrap().is_none());
        std::thread::sleep(Duration::from_millis(5));
    }
    std::thread::sleep(Duration::from_millis(300));
    assert!(process.try_wait().unwrap().is_none(), "it did not wait");
    lock.unlock().unwrap();
    let output = process.wait_with_output().unwrap();
    assert!(output.status.success() && stderr(&output).contains("waiting for 1 training"), "{}", stderr(&output));
    assert!(held.join("summary.json").is_file());
}

#[test]
fn a_failed_run_is_in_the_table_with_its_reason_and_the_others_are_run() {
    let folder = tempfile::tempdir().unwrap();
    let options = ["--sparsities", "0.9"];
    succeed(reproduce(&["table1"], folder.path(), &options));
    let broken = run(folder.path(), "rigl-0.9-s0");
    std::fs::remove_file(broken.join("summary.json")).unwrap();
    std::fs::write(broken.join("checkpoint/last.safetensors"), "not a checkpoint").unwrap();
    std::fs::remove_dir_all(run(folder.path(), "cigl-0.9-s0")).unwrap();
    let output = reproduce(&["table1"], folder.path(), &options).output().unwrap();
    let (said, shown) = (stderr(&output), String::from_utf8(output.stdout).unwrap());
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.lines().last().unwrap().contains("1 of 2 trainings failed, the tables say why"), "{said}");
    let why = "failed: rigl at 90 %: ";
    assert!(shown.contains(why) && shown.contains("last.safetensors: is not a complete safetensors file"), "{shown}");
    let [text, csv] = tables(folder.path(), "table1");
    assert!(text.contains(why) && csv.contains("failed"), "{text}\n{csv}");
    assert!(run(folder.path(), "cigl-0.9-s0").join("summary.json").is_file());
    // Mended, it is run again and the failure forgotten.
    std::fs::remove_file(broken.join("checkpoint/last.safetensors")).unwrap();
    let numbers = Numbers::of(reproduce(&["table1"], folder.path(), &["--sparsities", "0.9", "--json"]));
    assert_eq!(numbers.here("table1", "rigl", 0.9, "accuracy")["state"], "measured");
    assert!(!broken.join("failure.json").exists());
}

#[test]
fn data_that_are_not_there_fail_each_run_with_where_to_get_them() {
    let folder = tempfile::tempdir().unwrap();
    let (out, data) = (folder.path().join("out"), folder.path().join("data"));
    std::fs::create_dir(&data).unwrap();
    let short = || {
        let mut command = cigl();
        command.args(["reproduce", "table1", "--scale", "short", "--sparsities", "0.9", "--out"]).arg(&out);
        command
    };
    // Forgotten, they are asked for before anything is begun.
    let error = fail(short(), 2);
    assert!(error.contains("expected --data DIR") && error.contains("cifar-10-binary.tar.gz"), "{error}");
    assert!(!out.exists());
    let mut command = short();
    let output = command.arg("--data").arg(&data).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let shown = String::from_utf8(output.stdout).unwrap();
    for archive in ["cifar-10-binary.tar.gz", "cifar-100-binary.tar.gz"] {
        assert!(shown.contains("failed: rigl at 90 %: ") && shown.contains(archive), "{shown}");
    }
}

#[test]
fn a_folder_of_another_scale_is_not_mixed_up() {
    let folder = tempfile::tempdir().unwrap();
    succeed(reproduce(&["table1"], folder.path(), &["--sparsities", "0.9"]));
    let config = run(folder.path(), "rigl-0.9-s0").join("config.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("epochs = 6", "epochs = 7")).unwrap();
    let error = fail(reproduce(&["table1"], folder.path(), &["--sparsities", "0.9"]), 2);
    assert!(error.contains("was begun with another train.epochs"), "{error}");
}

#[test]
fn recipes_and_semantics_are_other_experiments() {
    let folder = tempfile::tempdir().unwrap();
    let options = ["--sparsities", "0.9", "--json"];
    let official = [&options[..], &["--semantics", "official"]].concat();
    let [paper, official] =
        [&options[..], &official].map(|options| Numbers::of(reproduce(&["table1"], folder.path(), options)));
    let nll = |numbers: &Numbers, method| numbers.mean("table1", method, 0.9, "nll");
    assert_ne!(nll(&paper, "cigl"), nll(&official, "cigl"));
    // RigL has no random mask: its run is shared.
    assert_eq!(nll(&paper, "rigl"), nll(&official, "rigl"));
    let names = ["cigl-0.9-s0", "cigl-0.9-s0-official", "rigl-0.9-s0"];
    assert_eq!(runs(folder.path()), names.iter().map(|name| format!("digits-small-convnet-{name}")).collect());
    let error = fail(reproduce(&["table1"], folder.path(), &["--recipe", "rigl"]), 2);
    assert!(error.contains("preset digits has only recipe cigl"), "{error}");
}

#[test]
fn the_list_counts_what_is_shared_done_and_missing() {
    let folder = tempfile::tempdir().unwrap();
    let list = |experiments: &[&str]| {
        let output = succeed(reproduce(experiments, folder.path(), &["--list", "--json"]));
        serde_json::from_slice::<Vec<Value>>(&output.stdout).unwrap()
    };
    let all = list(&["table3", "fig5"]);
    // rigl, W-DP, cigl and cigl without its random mask at two sparsities; rigl and cigl are in both.
    assert_eq!(all.len(), 8);
    assert_eq!(all.iter().filter(|run| run["experiments"].as_array().unwrap().len() == 2).count(), 4);
    assert!(all.iter().all(|run| run["state"] == "missing" && run["seconds"].as_f64().unwrap() > 0.0));
    assert!(!folder.path().join("runs").exists(), "a list leaves nothing behind");
    succeed(reproduce(&["table1"], folder.path(), &[]));
    let done = list(&["table3", "fig5"]).iter().filter(|run| run["state"] == "done").count();
    assert_eq!(done, 4);
    // The dense network's count by hand: 6 operations a multiply-add, 576 images, 6 epochs.
    let dense = list(&["fig1c"]).into_iter().find(|run| run["name"].as_str().unwrap().contains("dense")).unwrap();
    let macs = 144 * 64 + 4_608 * 16 + 9_216 * 16 + 18_432 * 4 + 36_864 * 4 + 640;
    assert_eq!(dense["operations"].as_f64().unwrap(), f64::from(6 * macs) * 576.0 * 6.0);
    let text = succeed(reproduce(&["table3", "fig5"], folder.path(), &["--list"])).stdout;
    let text = String::from_utf8(text).unwrap();
    let total = text.lines().find(|line| line.starts_with("all, each once")).unwrap();
    assert_eq!(total.split_whitespace().collect::<Vec<_>>()[3..8], ["8", "4", "4", "0", "4"], "{text}");
}

#[test]
fn emitted_commands_end_in_the_folders_that_the_tables_are_made_from() {
    let folder = tempfile::tempdir().unwrap();
    let (expected, out) = (folder.path().join("expected"), folder.path().join("o ut's"));
    succeed(reproduce(&["table3"], &expected, &["--sparsities", "0.9"]));
    let commands = succeed(reproduce(&["table3"], &out, &["--sparsities", "0.9", "--emit", "list"])).stdout;
    let commands = String::from_utf8(commands).unwrap();
    assert_eq!(commands.lines().count(), 3);
    for line in commands.lines() {
        let mut shell = Command::new("sh");
        shell.args(["-c", line]);
        succeed(shell);
    }
    let names = runs(&out);
    assert_eq!(names, runs(&expected));
    // Nothing is left to do, so nothing is emitted, and the tables are those of one process.
    assert!(succeed(reproduce(&["table3"], &out, &["--sparsities", "0.9", "--emit", "list"])).stdout.is_empty());
    succeed(reproduce(&["table3"], &out, &["--sparsities", "0.9"]));
    assert_eq!(tables(&out, "table3"), tables(&expected, "table3"));
}

#[test]
fn tasks_of_the_job_array_train_one_run_each_and_are_requeued_when_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let (out, bin) = (folder.path().join("out"), folder.path().join("bin"));
    let script = succeed(reproduce(&["table1"], &out, &["--sparsities", "0.9", "--emit", "slurm"])).stdout;
    let script = String::from_utf8(script).unwrap();
    assert!(script.starts_with("#!/bin/bash\n") && script.contains("#SBATCH --array=0-1\n"), "{script}");
    assert!(script.contains("#SBATCH --signal=TERM@") && script.contains("#SBATCH --requeue\n"), "{script}");
    // Stand-ins for the scheduler's own commands.
    std::fs::create_dir_all(&bin).unwrap();
    let stand_in = |name: &str, text: &str| {
        use std::os::unix::fs::PermissionsExt;
        let path = bin.join(name);
        std::fs::write(&path, format!("#!/bin/bash\n{text}\n")).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    };
    let requeued = folder.path().join("requeued");
    stand_in("scontrol", &format!("echo \"$@\" >> '{}'", requeued.display()));
    stand_in("srun", "exec \"$@\"");
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let job = folder.path().join("job.sh");
    std::fs::write(&job, script).unwrap();
    let task = |number: &str| {
        let mut command = Command::new("bash");
        command.arg(&job).env("PATH", &path).env("SLURM_ARRAY_TASK_ID", number).env("SLURM_ARRAY_JOB_ID", "77");
        command
    };
    succeed(task("1"));
    assert_eq!(runs(&out).into_iter().collect::<Vec<_>>(), ["digits-small-convnet-cigl-0.9-s0"]);
    assert!(!requeued.exists());
    // One that is stopped by the signal asks to be queued again, under its own number.
    stand_in("srun", "exit 143");
    assert_eq!(task("0").output().unwrap().status.code(), Some(143));
    assert_eq!(std::fs::read_to_string(requeued).unwrap(), "requeue 77_0\n");
}

#[test]
fn a_filter_that_fits_nothing_names_the_nearest_training() {
    let folder = tempfile::tempdir().unwrap();
    let only = ["--only", "digits-small-convnet-cigl-0.9-s1"];
    let error = fail(reproduce(&["table1"], folder.path(), &only), 2);
    assert!(error.contains("did you mean digits-small-convnet-cigl-0.9-s0?"), "{error}");
}
