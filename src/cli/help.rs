//! The long parts of the help: what the tables of presets and keys say.

use crate::config::{key::KEYS, preset};
use crate::reproduce::Experiment;

/// Columns of the help: what clap wraps at where the terminal is no narrower.
const WIDTH: usize = 98;

/// The presets and what each is for.
pub(super) fn presets() -> String {
    let mut text = String::from("Presets:\n");
    for preset in preset::all() {
        text += &entry(preset.name, 18, &preset.description);
    }
    text
}

/// The keys of `--set` and of configuration files, with what they take.
pub(super) fn keys() -> String {
    let mut text = String::from("Keys of --set and of configuration files ([section] and name):\n");
    for key in KEYS.iter().filter(|key| key.name != "version") {
        text += &entry(key.name, 22, &format!("{} ({})", key.meaning, key.allowed));
    }
    text
}

/// A name of at most `column` columns, and beside it the text, wrapped at words.
fn entry(name: &str, column: usize, text: &str) -> String {
    let mut lines = format!("  {name:<column$}");
    let mut used = column + 2;
    for word in text.split_whitespace() {
        if used + 1 + word.len() > WIDTH {
            lines += &format!("\n{:width$}", "", width = column + 2);
            used = column + 2;
        }
        lines += " ";
        lines += word;
        used += 1 + word.len();
    }
    lines + "\n"
}

/// What follows the options of `cigl train --help`.
pub(super) fn train() -> String {
    format!("{TRAIN_EXAMPLES}\n\n{}\n{}", presets(), keys())
}

/// What follows the options of `cigl info --help`.
pub(super) fn info() -> String {
    format!("{INFO_EXAMPLES}\n\n{}", presets())
}

/// What follows the options of `cigl calibrate --help`.
pub(super) fn calibrate() -> String {
    format!("{CALIBRATE_EXAMPLES}\n\n{CALIBRATE_FILES}")
}

/// Examples of the whole program.
pub(super) const EXAMPLES: &str = "\
Examples:
  cigl
  cigl train --preset fashion-mnist --data ~/data --method rigl --method cigl
  cigl eval runs/digits-cigl-0.9-s0
  cigl calibrate predictions.npz
  cigl reproduce table3 --scale short --data ~/data
  cigl train --help";

/// Examples of `train`.
pub(super) const TRAIN_EXAMPLES: &str = "\
Examples:
  cigl train
  cigl train --preset fashion-mnist --data ~/data --method rigl --method cigl
  cigl train --preset cifar10-wrn22-2 --data ~/data --sparsity 0.95 --set train.epochs=1
  cigl train --preset fashion-mini --set random_mask.keep=0.99 --set averaging.start=30 --seeds 3
  cigl train --config mine.toml --out runs/mine
  cigl train --out runs/mine --resume
  cigl train --preset digits --tensorboard";

/// Examples of `eval`.
pub(super) const EVAL_EXAMPLES: &str = "\
Examples:
  cigl eval runs/digits-cigl-0.9-s0
  cigl eval runs/digits-cigl-0.9-s0 --split train --json
  cigl eval runs/mine/checkpoint/model.safetensors --data ~/data --predictions test.npz
  cigl eval runs/mine --recalibrate temperature
  cigl eval runs/mine --mc-samples 20";

/// Examples of `predict`.
pub(super) const PREDICT_EXAMPLES: &str = "\
Examples:
  cigl predict runs/fashion-mini-cigl-0.9-s0 shoe.png shirt.png
  cigl predict runs/mine/checkpoint/model.safetensors a.jpg b.jpg --out predictions.csv";

/// Examples of `export`.
pub(super) const EXPORT_EXAMPLES: &str = "\
Examples:
  cigl export runs/mine --out mine.safetensors
  cigl export runs/mine --format sparse --out mine.sparse.safetensors
  cigl export runs/mine --format onnx --out mine.onnx
  cigl export runs/mine/checkpoint/model.safetensors --names cigl --out copy.safetensors";

/// Examples of `report`.
pub(super) const REPORT_EXAMPLES: &str = "\
Examples:
  cigl report runs
  cigl report runs/digits-rigl-0.9-s0 runs/digits-cigl-0.9-s0 --out comparison.html";

/// Examples of `bench`.
pub(super) const BENCH_EXAMPLES: &str = "\
Examples:
  cigl bench step --sparsity 0.95
  cigl bench step --preset cifar10-resnet50 --batch 32 --sparsity 0.9 --json
  cigl bench inference --sparsity 0.95 --batch 1 --threads 1
  cigl bench kernels --sparsity 0.99 --rounds 30
  cigl bench kernels --model h200
  cigl bench kernels --model h100 --preset cifar10-resnet50 --batch 512 --json";

/// Examples of `calibrate`.
pub(super) const CALIBRATE_EXAMPLES: &str = "\
Examples:
  cigl calibrate predictions.npz
  cigl calibrate logits.npy --labels labels.npy --intervals --plot calibration.png
  cigl calibrate test.npz --recalibrate temperature --fit validation.npz --save temperature.json
  cigl calibrate later.csv --kind probs --apply temperature.json --json
  cigl calibrate test.npz --ood other.npz";

/// What the files of `calibrate` hold.
const CALIBRATE_FILES: &str = "\
Files:
  .npz          logits or probs (N, C), labels (N)
  .npy          (N, C); labels by --labels
  .csv          a label, then C columns; with --labels all columns are scores. A header line is passed over
  .safetensors  as .npz
Scores are f16, bf16, f32 or f64 (text: f64), labels whole numbers from 0 to C - 1. Files are read in chunks.";

/// What follows the options of `cigl reproduce --help`.
pub(super) fn reproduce() -> String {
    let mut text = format!("{REPRODUCE_EXAMPLES}\n\nExperiments:\n");
    for experiment in Experiment::ALL {
        text += &entry(experiment.name(), 12, experiment.title());
    }
    text + "\n" + REPRODUCE_FILES
}

/// Examples of `reproduce`.
pub(super) const REPRODUCE_EXAMPLES: &str = "\
Examples:
  cigl reproduce table3 --scale short --data ~/data
  cigl reproduce table3 fig5 --scale short --data ~/data --sparsities 0.8,0.9 --seeds 3
  cigl reproduce --list --data ~/data --device cuda
  cigl reproduce table2 --data ~/data --only wrn22-2-cigl-0.95-s0
  cigl reproduce --emit slurm --data /data --out /scratch/cigl --device cuda";

/// What `reproduce` leaves.
const REPRODUCE_FILES: &str = "\
Files in --out:
  runs/NAME       the run folders, NAME being DATASET-NETWORK-METHOD-SPARSITY-sSEED
  EXPERIMENT.md   tables, here and in the paper; .csv has one number a line
  EXPERIMENT.svg  the figure; .png too
  report.html     all of it and every run on one page";

/// Examples of `info`.
pub(super) const INFO_EXAMPLES: &str = "\
Examples:
  cigl info
  cigl info --preset cifar10-wrn22-2 --sparsity 0.95 --json
  cigl info --preset fashion-mini --plan";
