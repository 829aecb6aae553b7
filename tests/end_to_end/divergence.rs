//! A loss that is no longer a number stops the run, and the last good checkpoint stays.

use crate::program::{cigl, fail, succeed, train};
use crate::run_files::last;

#[test]
fn a_diverging_run_names_step_and_layer() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let error = fail(train("rigl", &run, &["train.lr=1e30"]), 1);
    let step = error.split("at step ").nth(1).and_then(|rest| rest.split(':').next()).unwrap();
    // The first step of the warm-up has rate 0, the second one ruins the weights, a later one sees it.
    assert!((2..10).contains(&step.parse::<u64>().unwrap()), "{error}");
    assert!(error.contains("non-finite values are in ") && !run.join("summary.json").exists(), "{error}");
}

#[test]
fn the_last_good_checkpoint_survives_divergence() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    // Two good epochs, then the configuration is changed behind the program's back.
    let good = ["train.steps=20", "sparse.delta_t=7"];
    succeed(train("rigl", &run, &good));
    let before = std::fs::read(run.join("checkpoint/last.safetensors")).unwrap();
    std::fs::remove_file(run.join("summary.json")).unwrap();
    let config = std::fs::read_to_string(run.join("config.toml")).unwrap();
    let ruinous = config.replace("lr = 0.1", "lr = 1e30").replace("steps = 20", "steps = 60");
    std::fs::write(run.join("config.toml"), ruinous).unwrap();
    let resume = || {
        let mut command = cigl();
        command.args(["train", "--resume", "--out"]).arg(&run);
        command
    };
    let error = fail(resume(), 1);
    assert!(error.contains("loss is ") && error.contains(" at step 2"), "{error}");
    assert!(std::fs::read(run.join("checkpoint/last.safetensors")).unwrap() == before, "the good checkpoint is gone");
    assert_eq!(last(&run).about["step"], 20);
    // With the configuration mended the run goes on from there.
    std::fs::write(run.join("config.toml"), config).unwrap();
    succeed(resume());
}

#[test]
fn weights_ruined_at_the_end_of_an_epoch_do_not_replace_the_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    // One step an epoch: what ruins the weights is followed by a checkpoint, before any loss could tell.
    succeed(train("rigl", &run, &["train.batch_size=640", "train.steps=2"]));
    let before = std::fs::read(run.join("checkpoint/last.safetensors")).unwrap();
    std::fs::remove_file(run.join("summary.json")).unwrap();
    let config = std::fs::read_to_string(run.join("config.toml")).unwrap();
    let ruinous =
        [("lr = 0.1", "lr = 3e38"), ("weight_decay = 0.0005", "weight_decay = 1e9"), ("steps = 2", "steps = 6")]
            .iter()
            .fold(config, |text, (from, to)| text.replace(from, to));
    std::fs::write(run.join("config.toml"), ruinous).unwrap();
    let mut resume = cigl();
    resume.args(["train", "--resume", "--out"]).arg(&run);
    let error = fail(resume, 1);
    assert!(error.contains(" at step 2: the first non-finite values are in conv1.weight"), "{error}");
    assert!(std::fs::read(run.join("checkpoint/last.safetensors")).unwrap() == before, "the good checkpoint is gone");
}

#[test]
fn weights_ruined_by_the_last_step_are_not_a_result() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    // Rate 0, then 3e38 in the second and last step: no later step sees it, the evaluation does.
    let error = fail(train("rigl", &run, &["train.steps=2", "train.lr=3e38", "train.warmup_steps=1.1"]), 1);
    assert!(error.contains("not finite") || error.contains("non-finite"), "{error}");
    assert!(!run.join("summary.json").exists() && !run.join("checkpoint/model.safetensors").exists());
}
