//! `cigl calibrate` on files, and recalibration and sampling in `eval`.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::program::{cigl, fail, stderr, succeed, trained};

/// Four samples of confidence 0.75, three of them right, and four of 0.95, two of them right.
const PROBS: &str = "\
label,cat,dog
0,0.75,0.25
0,0.75,0.25
1,0.75,0.25
0,0.75,0.25
1,0.05,0.95
1,0.05,0.95
0,0.05,0.95
0,0.05,0.95
";

fn calibrate(file: &Path) -> Command {
    let mut command = cigl();
    command.arg("calibrate").arg(file);
    command
}

fn json(mut command: Command) -> Value {
    command.arg("--json");
    serde_json::from_slice(&succeed(command).stdout).unwrap()
}

fn write(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

fn close(value: &Value, expected: f64) -> bool {
    value.as_f64().is_some_and(|found| (found - expected).abs() < 1e-6)
}

// Four at .75 with three right, four at .95 with two right: gaps 0 and .45.
#[test]
fn a_table_of_eight_samples_gives_the_numbers_by_hand() {
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path(), "probs.csv", PROBS);
    let found = json(calibrate(&file));
    assert!(
        close(&found["accuracy"], 5.0 / 8.0) && close(&found["ece"], 0.225) && close(&found["mce"], 0.45),
        "{found}"
    );
    assert!(close(&found["nll"], -(3.0 * 0.75f64.ln() + 0.25f64.ln() + 2.0 * 0.95f64.ln() + 2.0 * 0.05f64.ln()) / 8.0));
    assert_eq!((&found["kind"], &found["kind_guessed"], &found["classes"]), (&"probs".into(), &true.into(), &2.into()));
    let bins = found["bins"].as_array().unwrap();
    assert_eq!(bins.len(), 15);
    let filled: Vec<&Value> = bins.iter().filter(|bin| bin["n"] != 0).collect();
    assert_eq!(filled.len(), 2);
    assert!(close(&filled[0]["accuracy"], 0.75) && close(&filled[1]["confidence"], 0.95), "{filled:?}");
    assert!(found.get("top5").is_none() && found.get("ece_ci95").is_none() && found.get("auroc").is_none());

    let mut text = calibrate(&file);
    text.args(["--bins", "2", "--intervals"]);
    let text = String::from_utf8(succeed(text).stdout).unwrap();
    assert!(text.contains("8 samples, 2 classes, probabilities by the look of the first rows"), "{text}");
    // One bin from .5 to 1: |5/8 - .85|.
    let row = text.lines().find(|line| line.starts_with("ece ")).unwrap();
    assert!(
        row.contains("0.2250") && row.ends_with("2 equal-width bins (lo, hi], l1") && row.contains(" to "),
        "{row}"
    );
}

#[test]
fn a_recalibration_is_fitted_reported_saved_and_applied() {
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path(), "probs.csv", PROBS);
    let validation = write(folder.path(), "validation.csv", &PROBS.replace("0.05,0.95", "0.06,0.94"));
    for (method, changes) in [("temperature", false), ("vector", true), ("histogram", true), ("isotonic", true)] {
        let saved = folder.path().join(format!("{method}.json"));
        let mut fit = calibrate(&file);
        fit.args(["--recalibrate", method, "--fit"]).arg(&validation).arg("--save").arg(&saved);
        let fitted = json(fit);
        assert!(close(&fitted["before"]["ece"], 0.225), "{fitted}");
        assert!(fitted["nll"].as_f64() < fitted["before"]["nll"].as_f64(), "{method}: {fitted}");
        if !changes {
            assert_eq!(fitted["accuracy"], fitted["before"]["accuracy"]);
        }
        let mut apply = calibrate(&file);
        apply.arg("--apply").arg(&saved);
        assert_eq!(json(apply), fitted, "{method}");
    }
    // The last one's file is for two classes.
    let three = write(folder.path(), "three.csv", "0,0.5,0.25,0.25\n");
    let mut apply = calibrate(&three);
    apply.arg("--apply").arg(folder.path().join("isotonic.json"));
    assert!(fail(apply, 1).contains("is for 2 classes, the predictions have 3"));
    let mut apply = calibrate(&file);
    apply.arg("--apply").arg(&file);
    assert!(fail(apply, 1).contains("not a saved recalibration"));
}

#[test]
fn the_top_label_alone_keeps_predictions_where_one_against_the_rest_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path(), "probs.csv", PROBS);
    let validation = write(folder.path(), "validation.csv", &PROBS.replace("\n0,0.75", "\n1,0.75"));
    let run = |more: &[&str]| {
        let mut command = calibrate(&file);
        command.args(["--recalibrate", "histogram", "--fit"]).arg(&validation).args(more);
        json(command)
    };
    let (all, top) = (run(&[]), run(&["--top-label"]));
    // .75 and .25 become 0 and 1; .05 and .95 become halves, of which the lower class is predicted.
    assert_eq!(all["recalibration"]["changed_predictions"], 8);
    assert_eq!(top["recalibration"]["changed_predictions"], 0);
    assert_eq!(top["accuracy"], top["before"]["accuracy"]);
    // Of those at .75 none was right in the validation file.
    assert!(close(&top["bins"][0]["confidence"], 0.0) && top["bins"][0]["n"] == 4, "{top}");
    let mut wrong = calibrate(&file);
    wrong.args(["--recalibrate", "temperature", "--top-label", "--fit"]).arg(&validation);
    assert!(fail(wrong, 2).contains("--top-label"));
}

#[test]
fn another_set_is_told_apart_by_confidence() {
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path(), "probs.csv", PROBS);
    let ood = write(folder.path(), "ood.csv", "0.5,0.5\n0.2,0.8\n0.4,0.6\n");
    let mut command = calibrate(&file);
    command.arg("--ood").arg(&ood);
    let found = json(command);
    // Of 8 x 3 pairs those of .75 against .8 are lost. At the threshold .75, one outsider of three is accepted.
    assert!(close(&found["auroc"], 20.0 / 24.0) && close(&found["fpr95"], 1.0 / 3.0), "{found}");
    assert!(close(&found["aupr"], 0.5 * 1.0 + 0.5 * (8.0 / 9.0)), "{found}");
    assert!(found.get("auroc_ci95").is_none());
    let with_intervals = || {
        let mut command = calibrate(&file);
        command.arg("--intervals").arg("--ood").arg(&ood);
        command
    };
    let found = json(with_intervals());
    for key in ["auroc", "aupr", "fpr95", "class_ece", "tace", "brier_reliability", "brier_within_bin"] {
        let ends: Vec<f64> = serde_json::from_value(found[format!("{key}_ci95")].clone()).unwrap();
        let value = found[key].as_f64().unwrap();
        assert!(ends[0] <= value + 1e-9 && value <= ends[1] + 1e-9 && ends.len() == 2, "{key}: {found}");
    }
    assert_eq!(found["separation_ci95_method"], "basic bootstrap, 1000 resamples");
    let text = String::from_utf8(succeed(with_intervals()).stdout).unwrap();
    assert!(text.contains("AUROC 0.8333 ("), "{text}");
}

#[test]
fn pictures_are_drawn_beside_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path(), "probs.csv", PROBS);
    for ending in ["svg", "png"] {
        let mut command = calibrate(&file);
        command.args(["--intervals", "--plot"]).arg(folder.path().join(format!("out.{ending}")));
        let text = String::from_utf8(succeed(command).stdout).unwrap();
        for name in ["out", "out-confidence", "out-bins"] {
            let path = folder.path().join(format!("{name}.{ending}"));
            assert!(std::fs::metadata(&path).unwrap().len() > 2000, "{}", path.display());
            assert!(text.contains(path.to_str().unwrap()), "{text}");
        }
    }
}

#[test]
fn a_zero_at_the_label_is_a_warning_and_an_infinite_loss() {
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path(), "zero.csv", "0,0.5,0.5\n1,1,0\n");
    let output = succeed(calibrate(&file));
    assert!(stderr(&output).contains("warning: 1 label has probability 0, so the NLL is infinite"), "{output:?}");
    assert!(String::from_utf8(output.stdout).unwrap().contains("infinite"));
    let found = json(calibrate(&file));
    assert!(found["nll"].is_null() && found["nll_infinite"] == 1, "{found}");
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let folder = tempfile::tempdir().unwrap();
    let rows: String =
        (0..500).map(|i: u32| format!("{},{},{},{}\n", i * 7 % 3, i * 31 % 17, i * 13 % 11, i * 5 % 7)).collect();
    let file = write(folder.path(), "logits.csv", &rows);
    let run = |threads: &str| {
        let mut command = calibrate(&file);
        command.args(["--intervals", "--seed", "3", "--threads", threads, "--json"]);
        succeed(command).stdout
    };
    assert_eq!(run("1"), run("3"));
}

#[test]
fn bad_files_are_one_line_and_exit_1() {
    let folder = tempfile::tempdir().unwrap();
    for (name, text, part) in [
        ("a.csv", "0,0.5,0.5\n1,0.9,0.3\n1,0.5,0.5\n", "a.csv: row 1 adds up to 1.2000"),
        ("b.csv", "0,0.5,0.5\n1,nan,0.3\n", "b.csv: row 1 holds NaN"),
        ("c.csv", "0,0.5,0.5\n2,0.7,0.3\n", "c.csv: row 1 has label 2"),
        ("d.npz", "", "d.npz: not a zip archive, or truncated"),
        ("e.csv", "", "e.csv: holds no samples"),
    ] {
        let file = write(folder.path(), name, text);
        assert!(fail(calibrate(&file), 1).contains(part), "{name}");
    }
    assert!(fail(calibrate(&folder.path().join("none.npz")), 1).contains("none.npz"));
}

#[test]
fn what_eval_wrote_is_measured_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let run = trained(folder.path(), "run", "cigl", &["data.validation=64"]);
    let npz = folder.path().join("eval.npz");
    let eval = |more: &[&str]| {
        let mut command = cigl();
        command.arg("eval").arg(&run).args(more);
        command
    };
    let mut first = eval(&["--predictions"]);
    first.arg(&npz);
    let (own, theirs) = (json(first), json(calibrate(&npz)));
    for key in ["n", "accuracy", "nll", "brier", "ece", "ace", "class_ece", "tace", "aurc"] {
        assert_eq!(own[key], theirs[key], "{key}");
    }
    for method in ["temperature", "vector", "histogram", "isotonic"] {
        let mut command = eval(&["--recalibrate", method, "--predictions"]);
        command.arg(&npz);
        let (mended, read) = (json(command), json(calibrate(&npz)));
        assert_eq!(mended["before"]["ece"], own["ece"]);
        assert_eq!(mended["accuracy"], read["accuracy"], "{method}");
        let ece = |value: &Value| value["ece"].as_f64().unwrap();
        assert!((ece(&mended) - ece(&read)).abs() < 1e-5, "{method}: {} {}", ece(&mended), ece(&read));
    }
}

#[test]
fn eval_samples_masks_where_a_run_has_some_and_takes_snapshots_where_it_kept_some() {
    let folder = tempfile::tempdir().unwrap();
    let cigl_run = trained(folder.path(), "cigl", "cigl", &[]);
    let eval = |run: &Path, more: &[&str]| {
        let mut command = cigl();
        command.arg("eval").arg(run).args(more);
        command
    };
    let nll = |run: &Path, more: &[&str]| json(eval(run, more))["nll"].as_f64().unwrap();
    let (one, few) = (nll(&cigl_run, &["--mc-samples", "1"]), nll(&cigl_run, &["--mc-samples", "8"]));
    assert_ne!(one, nll(&cigl_run, &[]));
    assert!(few < one, "the mean of eight masks, {few}, should be better than one, {one}");
    assert_eq!(few, nll(&cigl_run, &["--mc-samples", "8"]), "the same masks every time");
    assert!(fail(eval(&cigl_run, &["--ensemble"]), 2).contains("kept no snapshots"));

    // MC-DP draws ten by itself.
    let mcdp = trained(folder.path(), "mcdp", "rigl+mcdp", &[]);
    assert_eq!(nll(&mcdp, &["--mc-samples", "10"]), nll(&mcdp, &[]));

    let ensemble = trained(folder.path(), "ensemble", "cigl-no-wma", &[]);
    assert_eq!(nll(&ensemble, &["--ensemble"]), nll(&ensemble, &[]));
    assert_ne!(nll(&ensemble, &["--mc-samples", "2"]), nll(&ensemble, &[]));
    let rigl = trained(folder.path(), "rigl", "rigl", &[]);
    assert!(fail(eval(&rigl, &["--mc-samples", "2"]), 2).contains("without a random mask"));
    assert!(fail(eval(&rigl, &["--recalibrate", "temperature"]), 2).contains("no validation images"));
}
