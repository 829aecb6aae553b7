//! `cigl train`: one run or several, then a table.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::args::TrainArgs;
use super::machine;
use super::output::{print, tell};
use super::progress::Progress;
use crate::calibration::Evaluation;
use crate::config::Config;
use crate::data::{Limits, Source, Splits};
use crate::error::{Error, Result};
use crate::report::plot;
use crate::report::summary::{self, MethodResults};
use crate::train::run::{self, Surroundings, save_picture};
use crate::train::run_folder::{self, RunFolder};
use crate::train::schedule::Timetable;
use crate::train::summary::{Outcome, Summary};
use crate::train::tensorboard::Events;

/// What was asked for: which configurations, and where each goes.
struct Runs {
    all: Vec<(Config, RunFolder)>,
    /// Where what belongs to all of them goes: the comparison.
    parent: PathBuf,
    /// The start of its name.
    name: String,
}

pub(super) fn run(args: &TrainArgs) -> Result<()> {
    args.machine.use_threads()?;
    let runs = plan_runs(args)?;
    let signal = machine::signal()?;
    let mut progress = Progress::new();
    let mut data = Cache::default();
    // Schedules that cannot be are told before the first of several runs, not hours later.
    for (config, _) in &runs.all {
        Timetable::new(config, data.load(config)?.train.len())?;
    }
    let mut results: Vec<(Summary, Option<Evaluation>)> = Vec::new();
    for (config, folder) in &runs.all {
        if folder.progress() == run_folder::Progress::Finished {
            let summary = Summary::read(folder)?;
            if args.tensorboard {
                let _lock = folder.lock()?;
                Events::begin(folder)?.finish(&summary)?;
            }
            results.push((summary, None));
            continue;
        }
        progress.of(&format!("{} s{}", config.method, config.seed));
        let backend = machine::backend(config.device, config.precision)?;
        let splits = data.load(config)?;
        let mut watch = |event: run::Event<'_>| progress.show(event);
        let mut around = Surroundings {
            watch: &mut watch,
            signal: &signal,
            memory: machine::free_memory(),
            disk: machine::free_disk(folder.path()),
            tensorboard: args.tensorboard,
            tune: args.tune,
        };
        let outcome = run::run(config, folder, splits, backend, &mut around);
        progress.clear();
        let Outcome { summary, test } = outcome?;
        results.push((summary, Some(test)));
    }
    report(args, &runs, &results)
}

/// Settles configurations and folders, before anything is trained.
fn plan_runs(args: &TrainArgs) -> Result<Runs> {
    if let (Some(out), true, false) = (&args.out, args.resume, args.says_what()) {
        return resumed(out, args);
    }
    let configs = args.configs()?;
    let several = configs.len() > 1;
    let parent = match &args.out {
        Some(out) if several => out.clone(),
        Some(out) => out.parent().unwrap_or(Path::new("")).into(),
        None => PathBuf::from("runs"),
    };
    let mut all = Vec::new();
    for config in configs {
        let path = match &args.out {
            Some(out) if !several => out.clone(),
            _ => parent.join(RunFolder::name(&config)),
        };
        let folder = if args.resume { RunFolder::resumed(&path) } else { RunFolder::fresh(&path) };
        let config = match folder.progress() {
            run_folder::Progress::Absent => config,
            _ if args.resume => unchanged(&folder, args, &config)?,
            _ => {
                let detail =
                    "holds an unfinished run: go on with --resume, or remove it or name another folder with --out";
                return Err(Error::Usage(format!("{} {detail}", folder.path().display())));
            }
        };
        all.push((config, folder));
    }
    let first = &all[0].0;
    let name = format!("{}-{}", first.preset.as_deref().unwrap_or("run"), first.sparsity);
    Ok(Runs { all, parent, name })
}

/// The configuration that a run was begun with, which must be the one that is asked for.
fn unchanged(folder: &RunFolder, args: &TrainArgs, asked: &Config) -> Result<Config> {
    let began = folder.config()?;
    match began.first_difference(asked) {
        None => args.moved(began),
        Some(key) => {
            let path = folder.path().display();
            Err(Error::Usage(format!(
                "{path} was begun with another {key}: expected the same, or no more than --resume"
            )))
        }
    }
}

/// The runs of a folder, which is one itself or holds some.
fn resumed(out: &Path, args: &TrainArgs) -> Result<Runs> {
    let folder = RunFolder::resumed(out);
    if folder.progress() != run_folder::Progress::Absent {
        let config = args.moved(folder.config()?)?;
        return Ok(Runs {
            all: vec![(config, folder)],
            parent: out.parent().unwrap_or(out).into(),
            name: "run".into(),
        });
    }
    let entries = std::fs::read_dir(out).map_err(|e| Error::file_because(out, "could not be read", e))?;
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    let mut all = Vec::new();
    for folder in paths.into_iter().map(RunFolder::new) {
        if folder.progress() != run_folder::Progress::Absent {
            all.push((args.moved(folder.config()?)?, folder));
        }
    }
    if all.is_empty() {
        return Err(Error::file(out, "holds no run to resume: there is no config.toml in it or in a folder of it"));
    }
    Ok(Runs { all, parent: out.into(), name: "runs".into() })
}

/// The data of the last configuration, for the next one is often on the same.
#[derive(Default)]
pub(super) struct Cache(Option<(Source, Option<PathBuf>, Limits, Splits)>);

impl Cache {
    pub(super) fn load(&mut self, config: &Config) -> Result<&Splits> {
        let (source, dir, limits) = (config.data.dataset, config.data.dir.clone(), config.limits());
        let held = self.0.as_ref().is_some_and(|(s, d, l, _)| (*s, d, *l) == (source, &dir, limits));
        if !held {
            self.0 = Some((source, dir.clone(), limits, load(config)?));
        }
        let (.., splits) = self.0.as_ref().expect("it was just filled");
        Ok(splits)
    }
}

/// Reads and splits the data of a configuration; checksums that differ are told.
pub(super) fn load(config: &Config) -> Result<Splits> {
    let set = config.data.dataset.load(config.data.dir.as_deref(), config.limits())?;
    set.warnings.iter().for_each(|warning| tell(format_args!("warning: {warning}")));
    set.split(config.limits())
}

fn report(args: &TrainArgs, runs: &Runs, results: &[(Summary, Option<Evaluation>)]) -> Result<()> {
    let names = row_names(results);
    let comparison = compare(runs, &names, results)?;
    if args.json {
        let values = results
            .iter()
            .map(|(summary, _)| serde_json::to_value(summary))
            .collect::<std::result::Result<Vec<_>, _>>();
        let values = values.map_err(|e| Error::Resources(format!("the summary cannot be written as JSON: {e}")))?;
        let value = if let [one] = &values[..] { one.clone() } else { Value::Array(values) };
        return print(format_args!("{value:#}"));
    }
    let mut rows: Vec<MethodResults> = Vec::new();
    for (name, (summary, _)) in names.iter().zip(results) {
        let known = rows.iter().position(|row| row.method == *name);
        let at = known.unwrap_or_else(|| {
            rows.push(MethodResults { method: name.clone(), ..MethodResults::default() });
            rows.len() - 1
        });
        let row = &mut rows[at];
        row.accuracy.push(summary.test.accuracy);
        row.nll.push(summary.test.nll);
        row.ece.push(summary.test.ece);
        row.sparsity.push(summary.sparsity);
    }
    print(summary::table(&rows))?;
    let n = results.first().map_or(0, |(summary, _)| summary.test.n);
    let same = results.iter().all(|(summary, _)| summary.test.n == n);
    let on = if same { format!("on {n} test images; ") } else { String::new() };
    print(format_args!("\n{on}ECE falls when accuracy collapses, so read the three together"))?;
    if results.iter().any(|(summary, _)| summary.test.nll_infinite > 0) {
        print("warning: some labels have probability 0, so their NLL is infinite")?;
    }
    for (_, folder) in &runs.all {
        print(format_args!("run   {}", folder.path().display()))?;
    }
    let plots = comparison.unwrap_or_else(|| runs.all[0].1.plot("reliability"));
    print(format_args!("plots {}.png", plots.display()))
}

/// The name of each result's row. Results of equal names differ in the seed at most.
fn row_names(results: &[(Summary, Option<Evaluation>)]) -> Vec<String> {
    let parts = |(summary, _): &(Summary, _)| {
        let sparsity = format!("{} %", summary::percent(summary.sparsity_target));
        [summary.dataset.clone(), summary.network.clone(), summary.method.name().into(), sparsity]
    };
    summary::row_names(&results.iter().map(parts).collect::<Vec<_>>())
}

/// The reliability diagrams of several rows side by side, of the first seed of each.
fn compare(runs: &Runs, names: &[String], results: &[(Summary, Option<Evaluation>)]) -> Result<Option<PathBuf>> {
    let mut shown: Vec<(&str, &Evaluation)> = Vec::new();
    for (name, (_, evaluation)) in names.iter().zip(results) {
        if let (Some(evaluation), None) = (evaluation, shown.iter().find(|(known, _)| known == name)) {
            shown.push((name, evaluation));
        }
    }
    if shown.len() < 2 {
        return Ok(None);
    }
    let path = runs.parent.join(format!("{}-comparison", runs.name));
    save_picture(&path, &plot::comparison(&shown))?;
    Ok(Some(path))
}
