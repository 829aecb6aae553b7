//! What can be typed, and the configurations that follow from it.

mod bench;
mod calibrate;
mod export;
mod report;
mod reproduce;

pub use bench::{Bench, BenchArgs, GpuModel};
pub use calibrate::{BinScheme, CalibrateArgs, Recalibration, ScoreKind};
pub use export::{ExportArgs, ExportFormat, Names};
pub use report::ReportArgs;
pub use reproduce::{Emit, ReproduceArgs};

use crate::backend::Precision;
use crate::cli::help;
use crate::config::{Assignment, Config, Device, Method, Settings, preset};
use crate::{Error, Result};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

/// Sparse neural networks that know when they don't know.
///
/// Trains networks with 80 to 99 % of their weights at zero from scratch, with RigL, CigL and the methods they are
/// compared with, and measures how far their confidence can be trusted. Without a command: the demo, `cigl train` with
/// the preset fashion-mini.
#[derive(Debug, Parser)]
#[command(name = "cigl", version, after_help = help::EXAMPLES)]
pub struct Cli {
    /// What to do; the demo if nothing is said.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Train a network, or several, each into a run folder.
    ///
    /// Trains what a preset or a configuration file says, once for every method and seed, and writes a folder for each
    /// run: its whole configuration, a log, checkpoints, the final metrics and plots. Several runs end with a table. A
    /// run that was interrupted goes on with --resume.
    #[command(after_help = help::TRAIN_EXAMPLES, after_long_help = help::train())]
    Train(Box<TrainArgs>),
    /// Measure a trained network on a split of its data.
    ///
    /// Takes a run folder, or a model file in one, and prints accuracy, likelihood and calibration of its predictions
    /// on the test, validation or training images; --predictions keeps the predictions themselves.
    #[command(after_help = help::EVAL_EXAMPLES)]
    Eval(EvalArgs),
    /// Classify new images.
    ///
    /// Predicts the classes of image files (PNG or JPEG, scaled to the network's size) and says with which confidence;
    /// --out writes the probabilities of every class.
    #[command(after_help = help::PREDICT_EXAMPLES)]
    Predict(PredictArgs),
    /// Measure and mend the calibration of predictions from any framework.
    ///
    /// Takes a file of logits or probabilities with labels (.npz, .npy, .csv or .safetensors) and prints every metric, each
    /// with its bins. Recalibration is fitted on a second file and reported before and after; --plot draws the pictures.
    #[command(after_help = help::CALIBRATE_EXAMPLES, after_long_help = help::calibrate())]
    Calibrate(CalibrateArgs),
    /// Reproduce the paper's tables and figures.
    ///
    /// Trains what they need, each training once, and prints the results beside the published numbers. What is done is kept: stopped
    /// at any moment and started again it goes on, and several processes may share one folder. Tables and figures are
    /// written beside the run folders, as Markdown, CSV, SVG, PNG and one HTML report.
    #[command(after_help = help::REPRODUCE_EXAMPLES, after_long_help = help::reproduce())]
    Reproduce(Box<ReproduceArgs>),
    /// Write a trained network for other programs.
    ///
    /// safetensors that torchvision's networks load, a sparse file of mask bits and values that this program loads back to the
    /// last bit, or an ONNX model.
    #[command(after_help = help::EXPORT_EXAMPLES)]
    Export(ExportArgs),
    /// Say what this program and a preset consist of, without training.
    ///
    /// Prints the device, threads and instruction sets in use and, for a preset, parameters, densities by layer, costs
    /// relative to dense training, mask updates, snapshots and memory.
    #[command(after_help = help::INFO_EXAMPLES, after_long_help = help::info())]
    Info(InfoArgs),
    /// Show run folders on one self-contained HTML page.
    ///
    /// Takes run folders, or folders that hold some at any depth, and writes a page with a table of all runs, curves over sparsity,
    /// and for each run its metrics, its plots and its configuration. It opens offline, needs no other file and prints well.
    #[command(after_help = help::REPORT_EXAMPLES)]
    Report(ReportArgs),
    /// Measure how fast this machine trains.
    ///
    /// `step` times whole training steps (augmentation, masks, forward, backward, optimiser) of a preset's network and of the
    /// same network dense, in turn, on random images, and prints medians. `inference` does the same for predictions,
    /// `kernels` for single convolutions and for what happens to masks and weights; with --model it runs nothing: for each product of a step in bf16 it prints the
    /// registers, shared memory and occupancy of its CUDA kernel, its operations and bytes, and the time below which no kernel
    /// can be on that GPU.
    #[command(after_help = help::BENCH_EXAMPLES)]
    Bench(BenchArgs),
}

/// Where the work is done.
#[derive(Args, Clone, Debug, Default)]
pub struct Machine {
    /// auto, cpu, cuda, cuda:N or simt; auto is the first GPU, or the CPU where there is none
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<Device>,
    /// Threads; default: as many as the machine has. Results do not depend on it
    #[arg(long, value_name = "N")]
    pub threads: Option<NonZeroUsize>,
}

/// Options of `cigl train`.
#[derive(Args, Clone, Debug, Default)]
pub struct TrainArgs {
    /// The experiment; default: fashion-mini
    #[arg(long, value_name = "NAME", conflicts_with = "config", value_parser = preset_name())]
    pub preset: Option<String>,
    /// A configuration file, complete or naming the preset that it changes
    #[arg(long, value_name = "FILE.toml")]
    pub config: Option<PathBuf>,
    /// Set one key (--help lists all); may be repeated, the last one wins
    #[arg(long, value_name = "KEY=VALUE", value_parser = Assignment::parse)]
    pub set: Vec<Assignment>,
    /// The method; may be repeated. Default: rigl then cigl for fashion-mini, else cigl
    #[arg(long, value_name = "METHOD", value_parser = method())]
    pub method: Vec<Method>,
    /// Fraction of the weights that are zero, from 0 to below 1; default: the preset's
    #[arg(long, value_name = "S", value_parser = sparsity)]
    pub sparsity: Option<f64>,
    /// The seed of every random number; default: 0
    #[arg(long, value_name = "N", conflicts_with = "seeds", value_parser = clap::value_parser!(u64).range(..=MAX_SEED))]
    pub seed: Option<u64>,
    /// Run this many seeds (at most 1000), from the configuration's seed on, and report mean and standard deviation
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u64).range(1..=MAX_SEEDS))]
    pub seeds: Option<u64>,
    /// The folder with the data files, or a parent holding cifar10/, fashion-mnist/, ...; default: what the program embeds
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Where the work is done
    #[command(flatten)]
    pub machine: Machine,
    /// How activations, their gradients and effective weights are stored; default: f32 on the CPU, where bf16 is no faster but
    /// for comparing with devices that have it
    #[arg(long, value_name = "PRECISION", value_parser = precision())]
    pub precision: Option<Precision>,
    /// The run folder, or the parent of several; default: runs/PRESET-METHOD-SPARSITY-sSEED
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Go on from the last checkpoint of an unfinished run
    #[arg(long)]
    pub resume: bool,
    /// Write the log for TensorBoard too: events.out.tfevents.* in the run folder
    #[arg(long)]
    pub tensorboard: bool,
    /// Measure both kernels of every layer on this machine first, and train on the faster one. Results do not depend on it
    #[arg(long)]
    pub tune: bool,
    /// Print the final metrics as JSON
    #[arg(long)]
    pub json: bool,
}

/// Options of `cigl eval`.
#[derive(Args, Clone, Debug)]
pub struct EvalArgs {
    /// A run folder, or a model file in one
    #[arg(value_name = "RUN|MODEL.safetensors")]
    pub model: PathBuf,
    /// The images to predict
    #[arg(long, value_enum, default_value_t = Split::Test)]
    pub split: Split,
    /// Predict by the mean over S random masks drawn as in training
    #[arg(long, value_name = "S", conflicts_with = "ensemble", value_parser = clap::value_parser!(u32).range(1..=MAX_MASKS))]
    pub mc_samples: Option<u32>,
    /// Predict by the mean over the snapshots that the run kept (cigl-no-wma, averaging.keep_snapshots)
    #[arg(long)]
    pub ensemble: bool,
    /// Recalibrate the predictions by a map fitted on those of the validation images
    #[arg(long, value_name = "METHOD", value_enum)]
    pub recalibrate: Option<Recalibration>,
    /// With histogram or isotonic: map the confidence alone, so that predictions stay
    #[arg(long, requires = "recalibrate")]
    pub top_label: bool,
    /// Write logits or probabilities (N, C) and labels (N) to this file
    #[arg(long, value_name = "OUT.npz", value_parser = npz)]
    pub predictions: Option<PathBuf>,
    /// The folder with the data files; default: the run's own
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Where the work is done
    #[command(flatten)]
    pub machine: Machine,
    /// Print the metrics as JSON
    #[arg(long)]
    pub json: bool,
}

/// Options of `cigl predict`.
#[derive(Args, Clone, Debug)]
pub struct PredictArgs {
    /// A model file, or the run folder that holds it
    #[arg(value_name = "MODEL.safetensors|RUN")]
    pub model: PathBuf,
    /// Image files
    #[arg(value_name = "IMAGES", required = true)]
    pub images: Vec<PathBuf>,
    /// Write the probabilities of all classes to this file, .csv or .npz
    #[arg(long, value_name = "PREDICTIONS.csv|.npz", value_parser = csv_or_npz)]
    pub out: Option<PathBuf>,
    /// Where the work is done
    #[command(flatten)]
    pub machine: Machine,
}

/// Options of `cigl info`.
#[derive(Args, Clone, Debug)]
pub struct InfoArgs {
    /// The experiment to describe
    #[arg(long, value_name = "NAME", value_parser = preset_name())]
    pub preset: Option<String>,
    /// Fraction of the weights that are zero, from 0 to below 1; default: the preset's
    #[arg(long, value_name = "S", value_parser = sparsity, requires = "preset")]
    pub sparsity: Option<f64>,
    /// Print the memory table of a training step
    #[arg(long, requires = "preset")]
    pub plan: bool,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// A split of a data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Split {
    /// The test images
    Test,
    /// The validation images: the last of the training file
    Val,
    /// The training images, not augmented
    Train,
}

/// More random masks than anybody needs.
const MAX_MASKS: i64 = 100_000;

/// TOML's integers end here.
const MAX_SEED: u64 = i64::MAX as u64;

/// More than anybody needs, and few enough to plan all runs before the first.
const MAX_SEEDS: u64 = 1000;

impl Cli {
    /// The command, the demo if there is none.
    pub fn into_command(self) -> Command {
        self.command.unwrap_or_else(|| Command::Train(Box::default()))
    }
}

impl TrainArgs {
    /// Whether the command says what to train, rather than leave it to a run folder that is resumed.
    pub fn says_what(&self) -> bool {
        self.preset.is_some()
            || self.config.is_some()
            || !self.set.is_empty()
            || !self.method.is_empty()
            || self.sparsity.is_some()
            || self.precision.is_some()
            || self.seed.is_some()
            || self.seeds.is_some()
    }

    /// The configuration of a run that is resumed, with what may have changed since: where the data is, and the device.
    ///
    /// # Errors
    /// A folder whose name is not UTF-8.
    pub fn moved(&self, mut config: Config) -> Result<Config> {
        if let Some(dir) = &self.data {
            config.data.dir = Some(absolute(dir)?);
        }
        config.device = self.machine.device.unwrap_or(config.device);
        config.precision = config.precision.or(self.precision);
        Ok(config)
    }

    /// The configurations to run: every seed of the first method, then of the next.
    ///
    /// # Errors
    /// As [`Settings::new`] and [`Settings::resolve`]; a method that is given twice; a path that is not UTF-8.
    pub fn configs(&self) -> Result<Vec<Config>> {
        // A preset named by the file or by --set stands; the demo is for a command that names nothing.
        let demo = self.config.is_none() && !self.set.iter().any(|set| set.is("preset"));
        let preset = self.preset.as_deref().or(demo.then_some(preset::DEMO));
        let mut settings = Settings::new(preset, self.config.as_deref(), &self.set)?;
        if let Some(sparsity) = self.sparsity {
            settings.set(Assignment::new("sparsity", sparsity)?);
        }
        if let Some(seed) = self.seed {
            settings.set(Assignment::new("seed", seed as i64)?);
        }
        if let Some(dir) = &self.data {
            let dir = absolute(dir)?;
            settings.set(Assignment::new("data.dir", dir.to_string_lossy().into_owned())?);
        }
        if let Some(device) = self.machine.device {
            settings.set(Assignment::new("device", device.to_string())?);
        }
        if let Some(precision) = self.precision {
            settings.set(Assignment::new("precision", precision.name())?);
        }
        let methods = if self.method.is_empty() { settings.methods() } else { self.method.clone() };
        let mut configs = Vec::new();
        for (i, &method) in methods.iter().enumerate() {
            if methods[..i].contains(&method) {
                return Err(Error::Usage(format!("--method {method}: given twice, expected each method once")));
            }
            settings.set(Assignment::new("method", method.name())?);
            let mut first = settings.resolve()?;
            for path in [&mut first.data.dir, &mut first.train.init, &mut first.sparse.mask_from] {
                *path = path.as_deref().map(absolute).transpose()?;
            }
            for offset in 0..self.seeds.unwrap_or(1) {
                match first.seed.checked_add(offset).filter(|&seed| seed <= MAX_SEED) {
                    Some(seed) => configs.push(Config { seed, ..first.clone() }),
                    None => return Err(Error::Usage(format!("seed = {}: too large for more seeds", first.seed))),
                }
            }
        }
        Ok(configs)
    }
}

impl InfoArgs {
    /// The configuration to describe, if a preset is named: with the last of its methods.
    ///
    /// # Errors
    /// As [`Settings::resolve`].
    pub fn config(&self) -> Result<Option<Config>> {
        let Some(preset) = self.preset.as_deref() else { return Ok(None) };
        let sparsity = self.sparsity.map(|sparsity| Assignment::new("sparsity", sparsity)).transpose()?;
        Config::resolve(Some(preset), None, sparsity.as_slice()).map(Some)
    }
}

/// The path from the root, so that a run can be resumed and evaluated from anywhere.
pub(super) fn absolute(path: &Path) -> Result<PathBuf> {
    let absolute = std::path::absolute(path).map_err(|e| Error::file_because(path, "cannot be made absolute", e))?;
    match absolute.to_str() {
        Some(_) => Ok(absolute),
        None => Err(Error::file(&absolute, "the path is not UTF-8, which config.toml cannot hold")),
    }
}

fn preset_name() -> PossibleValuesParser {
    PossibleValuesParser::new(preset::names())
}

fn method() -> impl TypedValueParser<Value = Method> {
    PossibleValuesParser::new(Method::NAMES).try_map(|name| name.parse::<Method>())
}

fn precision() -> impl TypedValueParser<Value = Precision> {
    let named = |name: String| Precision::ALL.into_iter().find(|p| p.name() == name).unwrap_or_default();
    PossibleValuesParser::new(Precision::ALL.map(Precision::name)).map(named)
}

fn sparsity(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|s| (0.0..1.0).contains(s));
    number.ok_or_else(|| "expected a fraction from 0 to below 1, such as 0.9".into())
}

fn npz(text: &str) -> Result<PathBuf, String> {
    file_ending(text, &["npz"])
}

fn csv_or_npz(text: &str) -> Result<PathBuf, String> {
    file_ending(text, &["csv", "npz"])
}

fn file_ending(text: &str, endings: &[&str]) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    let known = path.extension().and_then(|e| e.to_str()).is_some_and(|ending| endings.contains(&ending));
    if known { Ok(path) } else { Err(format!("expected a file ending in .{}", endings.join(" or ."))) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(line: &str) -> std::result::Result<Command, clap::Error> {
        Cli::try_parse_from(line.split_whitespace()).map(Cli::into_command)
    }

    fn train(line: &str) -> Vec<Config> {
        match parse(line).unwrap() {
            Command::Train(args) => args.configs().unwrap(),
            other => panic!("{line} is {other:?}"),
        }
    }

    #[test]
    fn the_definitions_are_consistent() {
        <Cli as CommandFactory>::command().debug_assert();
    }

    #[test]
    fn the_bare_command_is_the_demo_with_rigl_and_then_cigl() {
        let runs = train("cigl");
        assert_eq!(runs, train("cigl train --preset fashion-mini"));
        let methods: Vec<Method> = runs.iter().map(|run| run.method).collect();
        assert_eq!(methods, [Method::Rigl, Method::Cigl]);
        assert!(runs.iter().all(|run| run.preset.as_deref() == Some("fashion-mini") && run.seed == 0));
        assert_eq!(train("cigl train --preset digits").len(), 1);
    }

    #[test]
    fn options_become_configurations_by_method_and_seed() {
        let runs = train(
            "cigl train --preset digits --method set --method rigl+ts --sparsity 0.8 --seeds 2 --device cpu \
                          --precision bf16 --set data.validation=100 --set train.epochs=3",
        );
        let each: Vec<(Method, u64)> = runs.iter().map(|run| (run.method, run.seed)).collect();
        assert_eq!(each, [(Method::Set, 0), (Method::Set, 1), (Method::RiglTs, 0), (Method::RiglTs, 1)]);
        for run in &runs {
            assert_eq!((run.sparsity, run.train.epochs, run.data.validation), (0.8, 3, 100));
            assert_eq!((run.device, run.precision), (Device::Cpu, Some(Precision::Bf16)));
        }
        let seeds: Vec<u64> =
            train("cigl train --set seed=7 --set method=rigl --seeds 3").iter().map(|r| r.seed).collect();
        assert_eq!(seeds, [7, 8, 9]);
        assert_eq!(train("cigl train --set preset=digits")[0].preset.as_deref(), Some("digits"));
        assert!(train("cigl train --data some")[0].data.dir.as_ref().unwrap().is_absolute());
    }

    #[test]
    fn a_configuration_file_brings_its_own_preset_and_method() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("mine.toml");
        let line = format!("cigl train --config {}", file.display());
        std::fs::write(&file, "preset = \"fashion-mini\"").unwrap();
        assert_eq!(train(&line), train("cigl"));
        std::fs::write(&file, "preset = \"digits\"\nmethod = \"snfs\"\nseed = 4").unwrap();
        let runs = train(&line);
        assert_eq!((runs.len(), runs[0].method, runs[0].seed), (1, Method::Snfs, 4));
        std::fs::write(&file, runs[0].to_toml()).unwrap();
        assert_eq!(train(&line), runs);
    }

    #[test]
    fn only_what_names_a_run_says_what_to_train() {
        for (line, says) in [
            ("cigl train --out a --resume", false),
            ("cigl train --out a --resume --threads 2 --data d --json", false),
            ("cigl train --out a --resume --tensorboard --tune", false),
            ("cigl train --resume --method rigl", true),
            ("cigl train --seeds 3", true),
            ("cigl train --out a --resume --precision f32", true),
        ] {
            let Command::Train(args) = parse(line).unwrap() else { panic!("{line}") };
            assert_eq!(args.says_what(), says, "{line}");
        }
    }

    #[test]
    fn info_describes_a_preset_with_the_last_of_its_methods() {
        let Command::Info(args) = parse("cigl info --preset fashion-mini --sparsity 0.8 --plan").unwrap() else {
            panic!()
        };
        let config = args.config().unwrap().unwrap();
        assert_eq!((config.method, config.sparsity), (Method::Cigl, 0.8));
        let Command::Info(args) = parse("cigl info --json").unwrap() else { panic!() };
        assert_eq!(args.config().unwrap(), None);
    }

    #[test]
    fn usage_errors_exit_with_2_and_suggest_the_nearest_known_word() {
        for (line, part) in [
            ("cigl trian", "train"),
            ("cigl train --presett digits", "--preset"),
            ("cigl train --preset digit", "digits"),
            ("cigl train --method cigl-no-mr", "cigl-no-rm"),
            ("cigl train --set train.epoch=3", "did you mean train.epochs?"),
            ("cigl train --set train.lr=-1", "train.lr = -1: expected a number above 0"),
            ("cigl train --set train.lr", "expected KEY=VALUE"),
            ("cigl train --sparsity 1", "from 0 to below 1"),
            ("cigl train --sparsity nan", "from 0 to below 1"),
            ("cigl train --seed 1 --seeds 2", "cannot be used with"),
            ("cigl train --seeds 0", "0"),
            ("cigl train --seeds 1001", "1..=1000"),
            ("cigl train --threads 0", "0"),
            ("cigl train --preset digits --config a.toml", "cannot be used with"),
            ("cigl train --device cuda:x", "expected auto, cpu, cuda, cuda:N or simt"),
            ("cigl train --device tpu", "expected auto, cpu, cuda, cuda:N or simt"),
            ("cigl train --precision f16", "bf16"),
            ("cigl train --tensorboard=runs", "--tensorboard"),
            ("cigl reproduce tabel3", "table3"),
            ("cigl reproduce --scale tiny", "smoke"),
            ("cigl reproduce --list --emit slurm", "cannot be used with"),
            ("cigl reproduce --emit pbs", "slurm"),
            ("cigl reproduce --sparsities 0.9,1", "from 0 to below 1"),
            ("cigl reproduce --seeds 0", "1..=1000"),
            ("cigl eval", "RUN|MODEL.safetensors"),
            ("cigl eval run --split tset", "test"),
            ("cigl eval run --predictions a.csv", ".npz"),
            ("cigl predict model.safetensors", "IMAGES"),
            ("cigl predict model.safetensors a.png --out a.txt", ".csv or .npz"),
            ("cigl info --plan", "--preset"),
            ("cigl export run", "--out"),
            ("cigl export run --out a --format onx", "onnx"),
            ("cigl export run --out a --names pytorch", "torchvision"),
            ("cigl report", "<DIR>"),
            ("cigl report runs --out a.pdf", ".html"),
            ("cigl bench", "<WHAT>"),
            ("cigl bench stp", "step"),
            ("cigl bench step --method rgl", "rigl"),
            ("cigl bench step --rounds 0", "1..=100000"),
            ("cigl bench kernels --model a100", "h100"),
            ("cigl bench kernels --model h200 --batch 0", "1..=4096"),
            ("cigl calibrate", "PREDICTIONS"),
            ("cigl calibrate a.npz --bins 0", "1..=10000"),
            ("cigl calibrate a.npz --scheme mas", "mass"),
            ("cigl calibrate a.npz --kind prob", "probs"),
            ("cigl calibrate a.npz --recalibrate temperature", "--fit"),
            ("cigl calibrate a.npz --recalibrate platt --fit b.npz", "isotonic"),
            ("cigl calibrate a.npz --fit b.npz", "--recalibrate"),
            ("cigl calibrate a.npz --save t.json", "--recalibrate"),
            ("cigl calibrate a.npz --recalibrate vector --fit b.npz --apply c.json", "cannot be used with"),
            ("cigl calibrate a.npz --seed 3", "--intervals"),
            ("cigl calibrate a.npz --plot a.pdf", ".svg or .png"),
            ("cigl eval run --mc-samples 0", "1..=100000"),
            ("cigl eval run --mc-samples 3 --ensemble", "cannot be used with"),
            ("cigl eval run --top-label", "--recalibrate"),
        ] {
            let error = parse(line).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{line}");
            assert!(error.to_string().contains(part), "{line}: {error}");
        }
    }

    #[test]
    fn every_example_of_the_help_is_understood() {
        let mut examples = 0;
        for command in ["", "train", "eval", "predict", "calibrate", "export", "reproduce", "info", "report", "bench"] {
            let help = parse(&format!("cigl {command} --help")).unwrap_err();
            assert_eq!(help.exit_code(), 0);
            let help = help.to_string();
            assert!(help.contains("Examples:"), "{command}");
            for line in help.lines().map(str::trim).filter(|line| line.starts_with("cigl ") && !line.contains("--help"))
            {
                match parse(line).unwrap() {
                    Command::Train(args) if args.config.is_none() => drop(args.configs().unwrap()),
                    Command::Bench(args) => drop(args.config(args.method).unwrap()),
                    Command::Reproduce(args) => {
                        drop(args.reproduction().unwrap().trainings(&args.experiments()).unwrap())
                    }
                    _ => continue,
                }
                examples += 1;
            }
        }
        assert!(examples >= 5);
    }

    #[test]
    fn the_long_help_of_train_lists_every_preset_and_key() {
        let help = parse("cigl train --help").unwrap_err().to_string();
        for name in preset::names().chain(["averaging.reprune", "random_mask.keep", "train.warmup_steps"]) {
            assert!(help.contains(name), "{name}");
        }
    }
}
