//! One run from its configuration to its summary, in a folder that it can be continued from at any moment.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use serde_json::{Value, json};

use super::checkpoint;
use super::evaluate::{Measured, Predictor};
use super::masked_weight::Form;
use super::run_folder::{Log, Progress, RunFolder};
use super::schedule::Timetable;
use super::snapshot;
use super::start;
use super::summary::{Outcome, Summary, costs};
use super::trained::About;
use super::trainer::{StepReport, Trainer};
use super::tuning;
use super::variational::divergence;
use crate::backend::Backend;
use crate::calibration::Evaluation;
use crate::config::Config;
use crate::data::{Dataset, Splits};
use crate::error::{Error, Result};
use crate::graph::Mode;
use crate::model::Model;
use crate::report::{plot, png};

/// Steps whose time is measured for the estimate, after a first one that is not.
const TIMED_STEPS: u64 = 5;

/// What a run tells whoever watches it.
pub enum Event<'a> {
    /// A line for the log of a terminal.
    Line(String),
    /// A phase of so many units begins, some already done.
    Phase {
        /// What is done: "training", "evaluating".
        name: &'a str,
        /// Units in all.
        total: u64,
        /// Units done before.
        done: u64,
    },
    /// A training step is done: one unit.
    Step(&'a StepReport),
    /// So many units are done since the last event.
    Advance(u64),
}

/// What a run needs from outside.
pub struct Surroundings<'a> {
    /// Told everything.
    pub watch: &'a mut dyn FnMut(Event),
    /// 0, or the number of a signal that asks the run to stop.
    pub signal: &'a AtomicUsize,
    /// Bytes of memory that may be used, where known.
    pub memory: Option<u64>,
    /// Bytes of disk that may be used, where known.
    pub disk: Option<u64>,
    /// Whether both kernels of every layer are [measured](super::tuning) before training, and the faster one taken.
    pub tune: bool,
    /// Whether the log is kept for [TensorBoard](super::tensorboard) too.
    pub tensorboard: bool,
}

/// Trains, measures and writes the run of `config` into `folder`; continues it where the folder holds an unfinished one.
///
/// What is written names the precision of `backend`.
pub fn run(
    config: &Config,
    folder: &RunFolder,
    splits: &Splits,
    backend: Box<dyn Backend>,
    around: &mut Surroundings,
) -> Result<Outcome> {
    let device = backend.device();
    let config = &Config { precision: Some(backend.precision()), ..config.clone() };
    let timetable = Timetable::new(config, splits.train.len())?;
    let model = new_model(config, &splits.train, backend)?;
    let mut trainer = Trainer::new(config, timetable, model, &splits.train)?;
    let plan = check_resources(&mut trainer, config, splits, around)?;
    if !folder.checkpoint().is_file() {
        start::initialise(config, trainer.model())?;
    }
    // Only now: nothing is left behind by a configuration that cannot start.
    let _lock = folder.lock()?;
    if folder.progress() == Progress::Absent {
        folder.create(config)?;
    }
    folder.remove_temporaries()?;
    folder.forget_failure()?;
    let outcome = work(&mut trainer, config, folder, splits, (&device, &plan), around);
    match &outcome {
        Err(error) if !matches!(error, Error::Interrupted { .. }) => folder.record_failure(error)?,
        _ => {}
    }
    outcome
}

/// Everything from the last checkpoint on. `device` and `plan`: where the work is done and what it takes, in words.
fn work(
    trainer: &mut Trainer,
    config: &Config,
    folder: &RunFolder,
    splits: &Splits,
    (device, plan): (&str, &str),
    around: &mut Surroundings,
) -> Result<Outcome> {
    let mut seconds = 0.0;
    if folder.checkpoint().is_file() {
        seconds = checkpoint::restore(trainer, &folder.checkpoint())?;
    }
    if around.tune {
        let batch = config.train.batch_size.min(splits.train.len());
        let line = tuning::tune(trainer.model(), batch, folder)?;
        (around.watch)(Event::Line(line));
    } else {
        tuning::resume(trainer.model(), folder)?;
    }
    let mut log = train(trainer, folder, &mut seconds, plan, around)?;
    finish(trainer, config, splits, around)?;
    interrupted(around)?;
    let measured = evaluate(trainer, config, folder, splits, around)?;
    let snapshots = kept_snapshots(trainer, config);
    let temperature = measured.temperature.as_ref().map(|(t, _)| *t);
    let about = About { temperature, snapshots, ..About::new(config, &splits.train, trainer.model().classes()) };
    interrupted(around)?;
    checkpoint::save_model(trainer.model(), &about, Form::Dense, &folder.model())?;
    let summary = summarise(trainer, config, splits, device, seconds, &measured)?;
    draw(config, folder, &summary, &measured.test)?;
    log.finish(&summary)?;
    let text = serde_json::to_string_pretty(&summary)
        .map_err(|e| Error::file_because(folder.summary(), "the summary cannot be written", e))?;
    checkpoint::write_atomically(&folder.summary(), (text + "\n").as_bytes())?;
    Ok(Outcome { summary, test: measured.test })
}

/// A network of the configuration for the images of a set.
pub fn new_model(config: &Config, set: &Dataset, backend: Box<dyn Backend>) -> Result<Model> {
    let (shape, classes) = (set.shape(), config.network.classes.unwrap_or(set.classes()));
    if classes < set.classes() {
        return Err(Error::Usage(format!(
            "network.classes = {classes}: {} has {} classes, expected at least as many",
            set.name(),
            set.classes()
        )));
    }
    Model::new(start::network(config)?, [shape.channels, shape.height, shape.width], classes, backend)
}

/// Batch sizes that a run plans for: full, and the last of an epoch or a set.
fn batches(config: &Config, images: usize, drop_last: bool) -> Vec<usize> {
    let size = config.train.batch_size;
    let mut sizes = vec![];
    if images >= size {
        sizes.push(size);
    }
    if !images.is_multiple_of(size) && !drop_last {
        sizes.push(images % size);
    }
    sizes
}

/// Makes all plans, and fails before the first step when memory or disk will not do. Says what they take.
fn check_resources(trainer: &mut Trainer, config: &Config, splits: &Splits, around: &Surroundings) -> Result<String> {
    let averaging = config.ingredients().averaging;
    let train = batches(config, splits.train.len(), config.data.drop_last);
    for &batch in &train {
        trainer.model().plan(Mode::Train, batch)?;
        if averaging {
            trainer.model().plan(Mode::Reestimate, batch)?;
        }
    }
    for set in [&splits.test, &splits.validation] {
        for batch in batches(config, set.len(), false) {
            trainer.model().plan(Mode::Evaluate, batch)?;
        }
    }
    let (memory, disk) = (trainer.model().bytes() as u64, checkpoint::disk_needed(trainer));
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    for (what, needed, there) in [("memory", memory, around.memory), ("disk", disk, around.disk)] {
        if there.is_some_and(|there| there < needed) {
            let there = mib(there.unwrap_or(0));
            return Err(Error::Resources(format!(
                "the run needs {} MiB of {what} and {there} MiB are free{}",
                mib(needed),
                if what == "memory" { "; a smaller train.batch_size takes less" } else { "" }
            )));
        }
    }
    trainer.model().reserve()?;
    Ok(format!("{} MiB of memory, up to {} MiB of disk", mib(memory), mib(disk)))
}

/// The loop. Returns the log, complete but for the final metrics.
fn train(
    trainer: &mut Trainer,
    folder: &RunFolder,
    seconds: &mut f64,
    plan: &str,
    around: &mut Surroundings,
) -> Result<Log> {
    let (total, first) = (trainer.timetable().steps, trainer.position());
    let mut log = folder.open_log(first, around.tensorboard)?;
    if first == 0 {
        let mut point = json!({ "step": 0, "epoch": trainer.timetable().epoch(0) });
        trainer.mask_state()?.add_to(&mut point);
        log.append(&point)?;
    }
    (around.watch)(Event::Phase { name: "training", total, done: first });
    let (sitting, before) = (Instant::now(), *seconds);
    let mut since_log = (Instant::now(), 0);
    let mut timed = Instant::now();
    let mut signal = 0;
    while !trainer.is_done() && signal == 0 {
        let report = trainer.step()?;
        since_log.1 += report.images;
        match report.step - first {
            0 => timed = Instant::now(),
            TIMED_STEPS => {
                let left = timed.elapsed().as_secs_f64() / TIMED_STEPS as f64 * (total - report.step - 1) as f64;
                (around.watch)(Event::Line(format!("{plan}, about {} to train", duration(left))));
            }
            _ => {}
        }
        let due = (report.step + 1).is_multiple_of(trainer.config.train.log_every);
        if due || report.update.is_some() {
            let rate = since_log.1 as f64 / since_log.0.elapsed().as_secs_f64();
            since_log = (Instant::now(), 0);
            log.append(&step_point(&report, rate))?;
        }
        if report.snapshot.is_some() && trainer.config.keeps_snapshots() {
            snapshot::save(trainer, &folder.snapshot(report.epoch))?;
        }
        (around.watch)(Event::Step(&report));
        *seconds = before + sitting.elapsed().as_secs_f64();
        if let Some(means) = report.epoch_end {
            let kl = divergence(trainer.config, &mut trainer.model)?;
            log.append(&json!({
                "step": report.step, "epoch": report.epoch,
                "epoch_loss": means.loss, "epoch_accuracy": means.accuracy, "kl": kl, "seconds": *seconds,
            }))?;
        }
        signal = around.signal.load(Ordering::Relaxed);
        if report.epoch_end.is_some() || trainer.is_done() || signal != 0 {
            // The log goes first: what a checkpoint is ahead of is never logged again.
            log.sync()?;
            trainer.check_finite(report.loss)?;
            checkpoint::save(trainer, *seconds, &folder.checkpoint())?;
        }
    }
    interrupted(around)?;
    Ok(log)
}

/// Fails once a signal has come; what a run has to save is saved whenever this is asked.
fn interrupted(around: &Surroundings) -> Result<()> {
    match around.signal.load(Ordering::Relaxed) {
        0 => Ok(()),
        signal => Err(Error::Interrupted { signal: signal as i32 }),
    }
}

fn step_point(report: &StepReport, rate: f64) -> Value {
    let mut point = json!({
        "step": report.step,
        "epoch": report.epoch,
        "loss": report.loss,
        "lr": report.lr,
        "accuracy": f64::from(report.correct) / report.images as f64,
        "images_per_second": rate,
    });
    if let Some(update) = &report.update {
        point["drop_fraction"] = update.drop_fraction.into();
        point["mask_overlap"] = update.overlap.into();
        update.masks.add_to(&mut point);
    }
    point
}

/// A time in the unit that fits.
pub fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 90.0 => format!("{s:.0} s"),
        s if s < 5400.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}

fn finish(trainer: &mut Trainer, config: &Config, splits: &Splits, around: &mut Surroundings) -> Result<()> {
    if config.ingredients().snapshots() && trainer.averaged == 0 {
        let line = format!("no snapshot was taken before step {}: the result is the last weights", trainer.position());
        (around.watch)(Event::Line(line));
    } else if config.ingredients().averaging {
        (around.watch)(Event::Phase { name: "batch norm", total: splits.train.len() as u64, done: 0 });
    }
    let mut done = 0;
    let watch = &mut around.watch;
    trainer.finish(&mut |seen| {
        watch(Event::Advance((seen - done) as u64));
        done = seen;
    })
}

/// Snapshots that are files of the run.
fn kept_snapshots(trainer: &Trainer, config: &Config) -> u64 {
    if config.keeps_snapshots() { trainer.averaged } else { 0 }
}

/// Measures the network on test and validation images.
fn evaluate(
    trainer: &mut Trainer,
    config: &Config,
    folder: &RunFolder,
    splits: &Splits,
    around: &mut Surroundings,
) -> Result<Measured> {
    let kept = if config.ingredients().ensemble { kept_snapshots(trainer, config) } else { 0 };
    let snapshots = if kept > 0 { snapshot::files(&folder.checkpoints(), kept)? } else { vec![] };
    let predictor = Predictor { config, snapshots, temperature: 1.0 };
    let total = (predictor.passes() * (splits.test.len() + splits.validation.len())) as u64;
    (around.watch)(Event::Phase { name: "evaluating", total, done: 0 });
    let watch = &mut around.watch;
    let measured = predictor.measure(trainer.model(), splits, &mut |images| watch(Event::Advance(images as u64)))?;
    if !predictor.snapshots.is_empty() {
        // The network was lent to the snapshots; what training left comes back.
        checkpoint::restore(trainer, &folder.checkpoint())?;
        trainer.finish(&mut |_| {})?;
    }
    Ok(measured)
}

fn summarise(
    trainer: &mut Trainer,
    config: &Config,
    splits: &Splits,
    device: &str,
    seconds: f64,
    measured: &Measured,
) -> Result<Summary> {
    let ones = trainer
        .model()
        .weights()
        .into_iter()
        .map(|weight| Ok(trainer.model().mask(weight.layer)?.count()))
        .collect::<Result<Vec<usize>>>()?;
    let density = trainer.model().density()?;
    let masks = trainer.mask_state()?;
    let timetable = trainer.timetable().clone();
    Ok(Summary {
        method: config.method,
        dataset: splits.train.name().into(),
        network: trainer.model().network().into(),
        sparsity_target: config.sparsity,
        sparsity: 1.0 - density,
        costs: costs(config, &timetable, trainer.model(), &ones)?,
        epochs: trainer.position().div_ceil(timetable.steps_per_epoch),
        steps: trainer.position(),
        mask_updates: timetable.updates.count(trainer.position()),
        first_mask_overlap: masks.first_mask_overlap,
        ever_active: masks.ever_active,
        dead_channels: masks.dead_channels,
        snapshots: trainer.averaged,
        seed: config.seed,
        device: device.into(),
        version: env!("CARGO_PKG_VERSION").into(),
        seconds,
        images_per_second: timetable.images(trainer.position()) as f64 / seconds.max(1e-9),
        temperature: measured.temperature.as_ref().map(|(t, _)| *t),
        test_uncalibrated: measured.temperature.as_ref().map(|(_, before)| before.clone()),
        test: measured.test.metrics.clone(),
        val: measured.val.as_ref().map(|v| v.metrics.clone()),
    })
}

/// The run's pictures.
fn draw(config: &Config, folder: &RunFolder, summary: &Summary, test: &Evaluation) -> Result<()> {
    let title = format!(
        "{} · {} · {} % sparse · seed {}",
        config.method,
        summary.network,
        100.0 * config.sparsity,
        config.seed
    );
    let density: Vec<(String, f64)> =
        summary.costs.density_by_layer.iter().map(|(name, d)| (name.clone(), d.as_f64().unwrap_or(0.0))).collect();
    let mut pictures = vec![
        ("reliability", plot::reliability(&title, test)),
        ("confidence", plot::confidence(&title, test)),
        ("density", plot::density(&title, &density, 1.0 - summary.sparsity)),
    ];
    let log = folder.log()?;
    let curves = training_curves(&log, summary);
    if !curves.learning_rate.is_empty() {
        pictures.push(("training", plot::training(&title, &curves)));
    }
    let evolution = mask_evolution(&log, summary);
    if !evolution.previous_overlap.is_empty() {
        pictures.push(("evolution", plot::evolution(&title, &evolution)));
    }
    pictures.into_iter().try_for_each(|(name, svg)| save_picture(&folder.plot(name), &svg))
}

/// Writes one picture as `PATH.svg` and `PATH.png`.
pub fn save_picture(path: &Path, svg: &str) -> Result<()> {
    let ending = |ending: &str| PathBuf::from(format!("{}{ending}", path.display()));
    checkpoint::write_atomically(&ending(".svg"), svg.as_bytes())?;
    checkpoint::write_atomically(&ending(".png"), &png::render(svg, 2.0)?)
}

/// (step, number) of the points of a log that have a key.
fn logged(log: &[Value], key: &str) -> Vec<(f64, f64)> {
    log.iter().filter_map(|point| Some((point["step"].as_f64()?, point[key].as_f64()?))).collect()
}

fn mask_evolution(log: &[Value], summary: &Summary) -> plot::Evolution {
    let density = |point: &Value, name: &String| point["density_by_layer"][name].as_f64().unwrap_or(0.0);
    plot::Evolution {
        layers: (summary.costs.density_by_layer.keys())
            .map(|name| {
                (name.clone(), log.iter().filter(|p| !p["density"].is_null()).map(|p| density(p, name)).collect())
            })
            .collect(),
        density: logged(log, "density"),
        ever_active: logged(log, "ever_active"),
        first_overlap: logged(log, "first_mask_overlap"),
        previous_overlap: logged(log, "mask_overlap"),
        dead_channels: logged(log, "dead_channels"),
        end: summary.steps as f64,
    }
}

fn training_curves(log: &[Value], summary: &Summary) -> plot::Training {
    let points = |key: &str| logged(log, key);
    let line = |name: &str, key: &str| plot::Line { name: name.into(), points: points(key) };
    let last_update = points("mask_overlap").last().map(|&(step, _)| step);
    let mut marks: Vec<plot::Mark> =
        last_update.into_iter().map(|step| plot::Mark { step, name: "last mask update".into() }).collect();
    let epoch_ends = points("epoch_loss");
    // The snapshots are those of the last epochs, one each.
    let first = (summary.snapshots as usize).checked_sub(1).and_then(|before| epoch_ends.iter().rev().nth(before));
    if let Some(&(step, _)) = first {
        marks.push(plot::Mark { step, name: "first snapshot".into() });
    }
    plot::Training {
        loss: vec![line("batch", "loss"), line("epoch mean", "epoch_loss")],
        accuracy: vec![line("batch", "accuracy"), line("epoch mean", "epoch_accuracy")],
        learning_rate: points("lr"),
        marks,
    }
}
