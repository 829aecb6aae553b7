//! The referee: controlled runs of the built program on the digits, replayed in f64 from the method's description.
//!
//! The replay shares nothing with the crate but its files. It reads the initial weights and masks that the program
//! wrote, trains on the same digits with plain loops in f64, and both must tell the same story. The learning rate is
//! small because in a small batch-norm network a rounding difference grows about tenfold a step at a rate of .1.
//!
//! How close can f32 come? Either to 1e-7 in every loss, or, where rounding decides the sign of one ReLU input or one
//! place in a ranking, to 1e-3 and some hundred mask bits. The bounds of the long run allow for the second; a mistake in
//! the method is far outside them.

mod digits;
mod layers;
mod model;
mod network;
mod rigl;
mod training;

use std::path::{Path, PathBuf};

use digits::Digits;
use model::Model;
use network::Network;
use rigl::{Schedule, erk_counts};
use tempfile::TempDir;
use training::{Sgd, Training};

const BATCH: usize = 64;
const RATE: f64 = 0.002;
const DENSITY: f64 = 0.1;
const MASKED: [&str; 6] = ["conv1.weight", "conv2.weight", "conv3.weight", "conv4.weight", "conv5.weight", "fc.weight"];

/// A run in file order at the constant rate `RATE`, from weights and masks of seed 0.
struct Controlled {
    steps: usize,
    weight_decay: f64,
    delta_t: usize,
}

/// What such a run did, by the program or by the replay.
struct Outcome {
    model: Model,
    losses: Vec<f64>,
}

impl Controlled {
    /// Runs the built program as a user would, in `folder`.
    fn by_program(&self, folder: &TempDir, initial: &Path) -> Outcome {
        let out = folder.path().join("run");
        let settings = [
            format!("train.init={}", initial.display()),
            format!("train.steps={}", self.steps),
            format!("train.lr={RATE}"),
            format!("train.weight_decay={}", self.weight_decay),
            format!("sparse.delta_t={}", self.delta_t),
        ];
        let fixed = ["warmup_steps=0", "lr_milestones=[]", "log_every=1"].map(|setting| format!("train.{setting}"));
        let file_order = ["data.shuffle=false", "data.augment=false"].map(str::to_owned);
        cigl_train(&out, settings.into_iter().chain(fixed).chain(file_order));

        let log = std::fs::read_to_string(out.join("metrics.jsonl")).unwrap();
        let points = log.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        let (losses, rates): (Vec<_>, Vec<_>) =
            points.filter_map(|point| Some((point["loss"].as_f64()?, point["lr"].as_f64()?))).unzip();
        assert_eq!(losses.len(), self.steps, "one logged loss for each step");
        assert!(rates.iter().all(|rate| (rate / RATE - 1.0).abs() < 1e-6), "{rates:?}");
        Outcome { model: Model::read(&model_file(&out)), losses }
    }

    /// Does the same in f64.
    fn by_replay(&self, initial: Model) -> Outcome {
        let digits = Digits::training_set();
        let steps_an_epoch = digits.len() / BATCH; // the last, partial batch is left out
        assert!(self.steps <= steps_an_epoch, "a second epoch is not spelled out here");
        let schedule = Schedule { alpha: 0.3, delta_t: self.delta_t, t_end: 20 * steps_an_epoch * 3 / 4 };
        let optimiser = Sgd { rate: RATE, momentum: 0.9, weight_decay: self.weight_decay };
        let mut training = Training::new(Network::small_convnet(), initial, optimiser, schedule);
        let step = |step| {
            let (images, labels) = digits.batch(step, BATCH);
            training.step(step, images, labels)
        };
        let losses = (0..self.steps).map(step).collect();
        Outcome { model: training.model, losses }
    }
}

fn cigl_train(out: &Path, settings: impl IntoIterator<Item = String>) {
    let mut command = assert_cmd::cargo::cargo_bin_cmd!("cigl");
    command.args(["train", "--preset", "digits", "--method", "rigl", "--seed", "0", "--out"]).arg(out);
    for setting in settings {
        command.args(["--set", &setting]);
    }
    command.assert().success();
}

fn model_file(run: &Path) -> PathBuf {
    run.join("checkpoint/model.safetensors")
}

/// Has the program write its initial model, in `folder`.
fn initial_model(folder: &TempDir) -> PathBuf {
    let out = folder.path().join("start");
    cigl_train(&out, ["train.steps=0".to_owned()]);
    model_file(&out)
}

fn assert_losses_agree(program: &[f64], replay: &[f64], tolerance: f64) {
    for (step, (loss, expected)) in program.iter().zip(replay).enumerate() {
        assert!((loss / expected - 1.0).abs() < tolerance, "step {step}: loss {loss}, {expected} in the replay");
    }
}

/// The number of positions at which two models' masks differ, and of all positions.
fn mask_difference(a: &Model, b: &Model) -> (usize, usize) {
    let bits = MASKED.iter().flat_map(|&weight| a.masks[weight].iter().zip(&b.masks[weight]));
    bits.fold((0, 0), |(different, all), (a, b)| (different + usize::from(a != b), all + 1))
}

/// Asserts that no tensor is further from the replay's than this fraction of the way it went in training.
fn assert_tensors_agree(program: &Model, replay: &Model, initial: &Model, fraction: f64) {
    assert_eq!(program.tensors.keys().collect::<Vec<_>>(), replay.tensors.keys().collect::<Vec<_>>());
    let distance = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt();
    for (name, tensor) in &replay.tensors {
        assert_eq!(program.tensors[name].shape, tensor.shape, "{name}");
        let gap = distance(program.values(name), &tensor.values);
        let way = distance(initial.values(name), &tensor.values);
        assert!(gap < fraction * way, "{name} went {way} and ended {gap} from the replay's");
    }
}

#[test]
fn the_initial_masks_have_the_counts_of_erk() {
    let folder = tempfile::tempdir().unwrap();
    let initial = Model::read(&initial_model(&folder));
    assert!(initial.masks.keys().eq(MASKED));
    let shapes = MASKED.map(|weight| initial.tensors[weight].shape.clone());
    assert_eq!(MASKED.map(|weight| initial.ones(weight)).to_vec(), erk_counts(&shapes, DENSITY));
}

// The decay is far above the usual one, so that it tells: it moves a weight as much as the gradient does.
#[test]
fn nine_sgd_steps_before_any_mask_update_follow_the_f64_replay() {
    let folder = tempfile::tempdir().unwrap();
    let file = initial_model(&folder);
    let controlled = Controlled { steps: 9, weight_decay: 0.1, delta_t: 10 };
    let program = controlled.by_program(&folder, &file);
    let initial = Model::read(&file);
    let replay = controlled.by_replay(initial.clone());

    assert_losses_agree(&program.losses, &replay.losses, 1e-4);
    assert_eq!(mask_difference(&program.model, &initial).0, 0, "mask bits changed without an update");
    assert_tensors_agree(&program.model, &replay.model, &initial, 0.02);
}

#[test]
fn thirty_two_steps_of_rigl_follow_the_f64_replay() {
    let folder = tempfile::tempdir().unwrap();
    let file = initial_model(&folder);
    let controlled = Controlled { steps: 32, weight_decay: 5e-4, delta_t: 10 };
    let program = controlled.by_program(&folder, &file);
    let initial = Model::read(&file);
    let replay = controlled.by_replay(initial.clone());

    assert_losses_agree(&program.losses[..20], &replay.losses[..20], 1e-3);
    for weight in MASKED {
        let ones = [&program.model, &replay.model, &initial].map(|model| model.ones(weight));
        assert!(ones[0] == ones[2] && ones[1] == ones[2], "{weight}: {ones:?} ones in program, replay, start");
    }
    let (different, all) = mask_difference(&program.model, &replay.model);
    assert!(100 * different < 3 * all, "{different} of {all} mask bits differ");
    let (changed, _) = mask_difference(&replay.model, &initial);
    assert!(100 * changed > 5 * all, "only {changed} of {all} mask bits changed, so agreement says little");
    assert_tensors_agree(&program.model, &replay.model, &initial, 0.25);
}
