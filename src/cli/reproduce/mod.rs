//! `cigl reproduce`: trains what the paper's tables and figures need, and prints them beside the published numbers.

mod emit;
mod list;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::Value;

use super::args::ReproduceArgs;
use super::machine;
use super::output::{print, tell};
use super::progress::Progress;
use super::train::Cache;
use crate::config::key::did_you_mean;
use crate::error::{Error, Result};
use crate::reproduce::{self, Reproduction, Results, State, Training};
use crate::train::checkpoint::write_atomically;
use crate::train::run::{self, Surroundings};
use crate::train::run_folder;
use crate::train::trained::Trained;

/// Between two looks at the runs of other processes.
const PATIENCE: Duration = Duration::from_millis(500);

pub(super) fn run(args: &ReproduceArgs) -> Result<()> {
    args.machine.use_threads()?;
    let (reproduction, experiments) = (args.reproduction()?, args.experiments());
    let all = reproduction.trainings(&experiments)?;
    let trainings = selected(&all, args.only.as_deref())?;
    trainings.iter().try_for_each(|training| training.check())?;
    if let Some(form) = args.emit {
        return emit::print_jobs(args, form, &reproduction, &trainings);
    }
    if args.list {
        return list::print_list(args, &reproduction, &experiments, &trainings);
    }
    // A forgotten --data is told once, not as the failure of every training.
    let left = trainings.iter().find(|training| !training.is_done());
    if let (None, Some(first)) = (&reproduction.data, left) {
        first.config.data.dataset.load(None, first.config.limits())?;
    }
    let failed = work_off(&trainings)?;
    let results = experiments.iter().map(|&experiment| Results::read(&reproduction, experiment));
    let results = results.collect::<Result<Vec<_>>>()?;
    report(args, &reproduction, &results, &all)?;
    match failed {
        0 => Ok(()),
        _ => {
            let detail = format!("{failed} of {} trainings failed, the tables say why", trainings.len());
            Err(Error::file(&reproduction.out, detail))
        }
    }
}

/// The trainings that `filter` names.
fn selected<'a>(all: &'a [Training], filter: Option<&str>) -> Result<Vec<&'a Training>> {
    let Some(filter) = filter else { return Ok(all.iter().collect()) };
    if let Some(one) = all.iter().find(|training| training.name == filter) {
        return Ok(vec![one]);
    }
    let some: Vec<&Training> = all.iter().filter(|training| training.name.contains(filter)).collect();
    if some.is_empty() {
        let hint = did_you_mean(filter, all.iter().map(|training| training.name.as_str()));
        return Err(Error::Usage(format!("--only {filter}: none of the {} trainings is called so{hint}", all.len())));
    }
    Ok(some)
}

/// Trains and measures everything that is not done yet and that no other process works on, then what others have given up. Returns how
/// many trainings failed.
fn work_off(trainings: &[&Training]) -> Result<usize> {
    let signal = machine::signal()?;
    let (mut progress, mut data) = (Progress::new(), Cache::default());
    let numbered = trainings.iter().copied().zip(1..);
    let (mut left, mut failed, mut told): (Vec<(&Training, usize)>, _, _) = (numbered.collect(), 0, false);
    while !left.is_empty() {
        let mut busy = vec![];
        for (training, number) in left {
            progress.of(&format!("[{number}/{}] {}", trainings.len(), training.name));
            let outcome = attempt(training, &mut data, &mut progress, &signal);
            progress.clear();
            match outcome {
                Ok(()) => {}
                Err(Error::Busy { .. }) => busy.push((training, number)),
                Err(stopped @ Error::Interrupted { .. }) => return Err(stopped),
                Err(error) => {
                    failed += 1;
                    tell(format_args!("{} failed: {}", training.name, error.chain()));
                    keep(training, &error)?;
                }
            }
        }
        if !busy.is_empty() && !told {
            let plural = if busy.len() == 1 { "" } else { "s" };
            tell(format_args!("waiting for {} training{plural} that other processes work on", busy.len()));
            told = true;
        }
        if !busy.is_empty() {
            std::thread::sleep(PATIENCE);
        }
        if let signal @ 1.. = signal.load(Ordering::Relaxed) {
            return Err(Error::Interrupted { signal: signal as i32 });
        }
        left = busy;
    }
    Ok(failed)
}

/// Trains, or goes on training, and measures the network for the other rows that show it.
fn attempt(training: &Training, data: &mut Cache, progress: &mut Progress, signal: &AtomicUsize) -> Result<()> {
    let (config, folder) = (&training.config, &training.folder);
    if folder.progress() != run_folder::Progress::Finished {
        // What another process works on is left before its data are read and its memory is counted.
        drop(folder.lock()?);
        let splits = data.load(config)?;
        let backend = machine::backend(config.device, config.precision)?;
        let mut watch = |event: run::Event<'_>| progress.show(event);
        let mut around = Surroundings {
            watch: &mut watch,
            signal,
            memory: machine::free_memory(),
            disk: machine::free_disk(folder.path()),
            tensorboard: false,
            tune: false,
        };
        run::run(config, folder, splits, backend, &mut around)?;
    }
    let rows = training.unmeasured();
    if rows.is_empty() {
        return Ok(());
    }
    let _lock = folder.lock()?;
    folder.forget_failure()?;
    let mut trained = Trained::open(folder.path(), |trained| machine::backend(config.device, trained.precision))?;
    for row in rows {
        training.measure(row, &mut trained, data.load(config)?)?;
        if let signal @ 1.. = signal.load(Ordering::Relaxed) {
            return Err(Error::Interrupted { signal: signal as i32 });
        }
    }
    Ok(())
}

/// Leaves the reason of a failure in the run's folder, for the tables of every process.
fn keep(training: &Training, error: &Error) -> Result<()> {
    let folder = &training.folder;
    let _lock = match folder.lock() {
        Err(Error::Busy { .. }) => return Ok(()),
        lock => lock?,
    };
    if folder.progress() == run_folder::Progress::Absent {
        folder.create(&training.config)?;
    }
    folder.record_failure(error)
}

/// How the numbers were made.
fn about(reproduction: &Reproduction, results: &[Results]) -> Vec<String> {
    let lines: Vec<_> = results.iter().flat_map(Results::lines).collect();
    let done = lines.iter().filter(|line| line.state == "measured").count();
    let seeds = match reproduction.seeds {
        1 => "one seed, 0: no standard deviation".to_string(),
        k => format!("seeds 0 to {}: mean ± standard deviation", k - 1),
    };
    let (recipe, semantics) = (reproduction.recipe.name(), reproduction.semantics.name());
    vec![
        format!("scale {}", reproduction.scale.about()),
        format!("{seeds}; recipe {recipe}, semantics {semantics}"),
        "ECE as in the paper's code, 10 bins [lo, hi); it falls when accuracy collapses, so read it with accuracy and NLL".into(),
        format!("paper: as published; {done} of {} numbers are measured here, the others say why not", lines.len()),
        format!("made by cigl {}", env!("CARGO_PKG_VERSION")),
    ]
}

/// Writes tables, figures and the page beside the runs, and prints the tables.
fn report(
    args: &ReproduceArgs,
    reproduction: &Reproduction,
    results: &[Results],
    trainings: &[Training],
) -> Result<()> {
    let out = &reproduction.out;
    std::fs::create_dir_all(out).map_err(|e| Error::file_because(out, "could not be made", e))?;
    let about = about(reproduction, results);
    for result in results {
        let name = result.experiment.name();
        write_atomically(&out.join(format!("{name}.md")), reproduce::markdown(result, &about).as_bytes())?;
        write_atomically(&out.join(format!("{name}.csv")), &reproduce::csv(&result.lines())?)?;
        for drawing in reproduce::figures(result) {
            run::save_picture(&out.join(&drawing.name), &drawing.svg)?;
        }
    }
    let page = reproduce::page(results, trainings, &about)?;
    write_atomically(&out.join("report.html"), page.html().as_bytes())?;
    if args.json {
        let lines: Vec<_> = results.iter().flat_map(Results::lines).collect();
        let value = serde_json::to_value(lines)
            .map_err(|e| Error::Resources(format!("the results cannot be written as JSON: {e}")))?;
        return print(format_args!("{value:#}"));
    }
    for result in results {
        print(format_args!("{}\n", result.experiment.title()))?;
        for section in reproduce::sections(result) {
            print(format_args!("{}\n{}", section.caption, section.table))?;
            section.notes.iter().try_for_each(print)?;
            print("")?;
        }
    }
    about.iter().try_for_each(print)?;
    print(format_args!("tables, figures and runs: {}", out.join("report.html").display()))
}

/// A training's state in a word.
fn word(state: &State) -> &'static str {
    match state {
        State::Missing => "missing",
        State::Unfinished => "unfinished",
        State::Failed(_) => "failed",
        State::Measured(_) => "done",
    }
}

/// What is printed of a training for other programs.
fn as_json(training: &Training, state: &State) -> Value {
    let names: Vec<&str> = training.experiments.iter().map(|experiment| experiment.name()).collect();
    serde_json::json!({ "name": training.name, "state": word(state), "experiments": names })
}
