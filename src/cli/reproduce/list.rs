//! `cigl reproduce --list`: what there is to do, and about how long it takes here.

use serde_json::Value;

use super::{as_json, word};
use crate::cli::args::ReproduceArgs;
use crate::cli::machine;
use crate::cli::output::print;
use crate::config::{Config, Device};
use crate::data::Dataset;
use crate::error::Result;
use crate::model::Model;
use crate::report::table::Table;
use crate::reproduce::{Experiment, Reproduction, State, Training};
use crate::train::run::duration;
use crate::train::schedule::Timetable;
use crate::train::start;
use crate::train::summary::training_operations;
use crate::train::trainer::Trainer;
use std::ops::Add;
use std::time::Instant;

/// Steps that are timed, after one that is not.
const TIMED_STEPS: u32 = 2;
/// Images of such a step on a CPU, whose rate hardly depends on it.
const IMAGES: usize = 32;

/// A training with what it costs.
struct Job<'a> {
    training: &'a Training,
    state: State,
    /// Operations of the whole training.
    operations: f64,
    /// Images that it sees.
    images: f64,
    /// Of what is left, where it could be estimated.
    seconds: f64,
}

impl Job<'_> {
    fn done(&self) -> bool {
        matches!(self.state, State::Measured(_))
    }

    fn per_image(&self) -> f64 {
        self.operations / self.images
    }
}

pub(super) fn print_list(
    args: &ReproduceArgs,
    reproduction: &Reproduction,
    experiments: &[Experiment],
    trainings: &[&Training],
) -> Result<()> {
    let mut jobs = trainings.iter().map(|training| job(training)).collect::<Result<Vec<_>>>()?;
    estimate(&mut jobs)?;
    let shared = |job: &&Job| job.training.experiments.len() > 1;
    if args.json {
        let jobs: Vec<Value> = jobs
            .iter()
            .map(|job| {
                let mut value = as_json(job.training, &job.state);
                value["operations"] = job.operations.into();
                value["seconds"] = job.seconds.into();
                value
            })
            .collect();
        return print(format_args!("{:#}", Value::Array(jobs)));
    }
    let mut table = Table::new(["training", "state", "TFLOP", "time left", "for"]);
    for job in &jobs {
        let names: Vec<&str> = job.training.experiments.iter().map(|experiment| experiment.name()).collect();
        let time = if job.done() { "-".into() } else { duration(job.seconds) };
        let state = word(&job.state).to_string();
        table.row([job.training.name.clone(), state, format!("{:.1}", job.operations / 1e12), time, names.join(" ")]);
    }
    print(format_args!("{table}\n"))?;
    let header = ["experiment", "trainings", "shared", "done", "failed", "left", "TFLOP left", "time left"];
    let mut table = Table::new(header);
    let mut row = |name: &str, jobs: &[&Job]| {
        let count = |of: &dyn Fn(&&Job) -> bool| jobs.iter().copied().filter(of).count().to_string();
        let left: Vec<&&Job> = jobs.iter().filter(|job| !job.done()).collect();
        let sum = |of: fn(&Job) -> f64| left.iter().map(|job| of(job)).fold(0.0, f64::add);
        table.row([
            name.to_string(),
            jobs.len().to_string(),
            count(&shared),
            count(&|job| job.done()),
            count(&|job| matches!(job.state, State::Failed(_))),
            left.len().to_string(),
            format!("{:.0}", sum(|job| job.operations) / 1e12),
            duration(sum(|job| job.seconds)),
        ]);
    };
    for &experiment in experiments {
        let its: Vec<&Job> = jobs.iter().filter(|job| job.training.experiments.contains(&experiment)).collect();
        row(experiment.name(), &its);
    }
    row("all, each once", &jobs.iter().collect::<Vec<_>>());
    print(format_args!("{table}\n"))?;
    let device = machine::backend(reproduction.device, None)?.device();
    print(format_args!(
        "times from {TIMED_STEPS} steps of the least and the most sparse network of each kind on this {device}"
    ))
}

/// Counts a training without doing it.
fn job<'a>(training: &'a Training) -> Result<Job<'a>> {
    let config = &training.config;
    let (shape, classes, [available, _]) = config.data.dataset.published();
    let timetable = Timetable::new(config, config.split(available)?.0)?;
    let image = [shape.channels, shape.height, shape.width];
    let backend = machine::backend(Device::Cpu, None)?;
    let model = Model::new(start::network(config)?, image, config.network.classes.unwrap_or(classes), backend)?;
    Ok(Job {
        training,
        state: training.state()?,
        operations: training_operations(config, &timetable, &model)?,
        images: timetable.images(timetable.steps) as f64,
        seconds: 0.0,
    })
}

/// Fills in the times of what is left: for each network a line through two measured points, time an image over operations an image.
fn estimate(jobs: &mut [Job]) -> Result<()> {
    let kind = |job: &Job| {
        let config = &job.training.config;
        (config.data.dataset, config.network.name)
    };
    let mut kinds: Vec<_> = vec![];
    for job in jobs.iter().filter(|job| !job.done()) {
        if !kinds.contains(&kind(job)) {
            kinds.push(kind(job));
        }
    }
    for of in kinds {
        let its = || jobs.iter().filter(|job| !job.done() && kind(job) == of);
        let by_cost = |a: &&Job, b: &&Job| a.per_image().total_cmp(&b.per_image());
        let (Some(least), Some(most)) = (its().min_by(by_cost), its().max_by(by_cost)) else { continue };
        let (x0, x1) = (least.per_image(), most.per_image());
        let y0 = seconds_per_image(&least.training.config)?;
        let y1 = if x1 > x0 { seconds_per_image(&most.training.config)? } else { y0 };
        let slope = if x1 > x0 { ((y1 - y0) / (x1 - x0)).max(0.0) } else { 0.0 };
        for job in jobs.iter_mut().filter(|job| !job.done() && kind(job) == of) {
            job.seconds = (y0 + slope * (job.per_image() - x0)) * job.images;
        }
    }
    Ok(())
}

fn seconds_per_image(config: &Config) -> Result<f64> {
    let (shape, classes, _) = config.data.dataset.published();
    let mut config = config.clone();
    let backend = machine::backend(config.device, config.precision)?;
    // What a step costs does not depend on the length of training, nor on an average that is never taken.
    (config.train.epochs, config.data.validation, config.averaging.reprune) = (1_000_000, 0, true);
    if matches!(config.device, Device::Cpu | Device::Auto) {
        config.train.batch_size = config.train.batch_size.min(IMAGES);
    }
    let batch = config.train.batch_size;
    let set = Dataset::random(shape, config.network.classes.unwrap_or(classes), 4 * batch)?;
    let mut trainer = Trainer::start(&config, start::network(&config)?, &set, backend)?;
    trainer.step()?;
    let since = Instant::now();
    (0..TIMED_STEPS).try_for_each(|_| trainer.step().map(drop))?;
    Ok(since.elapsed().as_secs_f64() / f64::from(TIMED_STEPS) / batch as f64)
}
