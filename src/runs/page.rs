//! All runs on one page.

use std::collections::BTreeSet;

use super::group::{Group, groups};
use super::run::Run;
use super::section::{section, training_images};
use crate::calibration::Metrics;
use crate::error::Result;
use crate::report::html::{Page, Part, Section};
use crate::report::plot::{self, Panel, Point, Series};
use crate::report::summary::{half_width, mean, mean_and_sd};
use crate::report::table::Table;
use crate::train::summary::Summary;

/// The page of `cigl report`: a table of all runs, how each number was made, curves over sparsity where a method has several, and
/// everything there is on each run.
///
/// # Errors
/// A picture or configuration in a run folder that cannot be read.
pub fn page(title: &str, runs: &[Run]) -> Result<Page> {
    let groups = groups(runs);
    let finished = runs.iter().filter(|run| run.summary().is_some()).count();
    let lead = vec![
        format!(
            "{} of training, {finished} of them finished, as cigl {} read them from their folders. Nothing was computed anew but means, \
             standard deviations and intervals over seeds.",
            if runs.len() == 1 { "One run".into() } else { format!("{} runs", runs.len()) },
            env!("CARGO_PKG_VERSION"),
        ),
        "ECE, the expected calibration error, is the mean distance between confidence and accuracy. It falls when accuracy collapses, \
         so read accuracy, NLL and ECE together."
            .into(),
    ];
    let mut sections = vec![Section { heading: "Results".into(), parts: results(&groups, runs) }];
    let figures = figures(&groups);
    if !figures.is_empty() {
        sections.push(Section { heading: "Against sparsity".into(), parts: figures });
    }
    let parts = runs.iter().map(section).collect::<Result<Vec<Part>>>()?;
    sections.push(Section { heading: "Runs".into(), parts });
    Ok(Page { title: title.into(), lead, sections })
}

fn results(groups: &[Group], runs: &[Run]) -> Vec<Part> {
    let mut parts = Vec::new();
    let without: Vec<&Run> = runs.iter().filter(|run| run.lack().is_some()).collect();
    if !without.is_empty() {
        let count = if without.len() == 1 { "One run has".into() } else { format!("{} runs have", without.len()) };
        parts.push(Part::Note(format!("{count} no result; the tables below say which and why.")));
    }
    let first = &groups.first().map_or(String::new(), |group| format!("{}, {}: ", group.dataset, group.network));
    let same = groups.iter().all(|group| (&group.dataset, &group.network) == (&groups[0].dataset, &groups[0].network));
    let caption = format!(
        "{}mean ± standard deviation over the seeds. 95 % interval of ECE: of one seed by bootstrap over the test images, of several \
         by Student's t over the seeds. ECE in 15 equal-width bins (lo, hi]; with 10 bins [lo, hi) as in the paper's code.",
        if same { first } else { "" }
    );
    parts.push(Part::Table { caption, table: overview(groups) });
    parts.push(Part::Table { caption: "How the numbers were made".into(), table: how_made(groups) });
    if !without.is_empty() {
        let mut table = Table::new(["run", "state"]);
        for run in without {
            table.row([run.name(), run.lack().unwrap_or_default()]);
        }
        parts.push(Part::Table { caption: "Runs without a result".into(), table });
    }
    parts
}

fn overview(groups: &[Group]) -> Table {
    let mut table = Table::new([
        "method",
        "seeds",
        "accuracy (%)",
        "NLL",
        "ECE (15 bins)",
        "95 % interval",
        "ECE (10 bins)",
        "sparsity (%)",
    ]);
    for group in groups {
        let percent = |value: fn(&Summary) -> f64| mean_and_sd(&group.values(|summary| 100.0 * value(summary)), 2);
        table.row([
            group.name.clone(),
            group.seeds(),
            percent(|summary| summary.test.accuracy),
            mean_and_sd(&group.values(|summary| summary.test.nll), 3),
            mean_and_sd(&group.values(|summary| summary.test.ece), 4),
            ece_interval(group).map_or("-".into(), |[low, high]| format!("{low:.4} to {high:.4}")),
            mean_and_sd(&group.values(|summary| summary.test.ece_10), 4),
            percent(|summary| summary.sparsity),
        ]);
    }
    table
}

/// Of one seed over its test images, of several over the seeds.
fn ece_interval(group: &Group) -> Option<[f64; 2]> {
    let values = group.values(|summary| summary.test.ece);
    match group.finished()[..] {
        [summary] => summary.test.intervals.ece_ci95,
        _ => {
            let (mean, half) = (mean(&values)?, half_width(&values)?);
            Some([(mean - half).max(0.0), mean + half])
        }
    }
}

fn how_made(groups: &[Group]) -> Table {
    let mut table = Table::new([
        "method",
        "seeds",
        "device",
        "precision",
        "cigl",
        "trained on",
        "test images",
        "epochs",
        "steps",
        "batch size",
    ]);
    for group in groups {
        let summaries = group.finished();
        let each = |value: &dyn Fn(&Summary) -> String| distinct(summaries.iter().map(|summary| value(summary)));
        let config = &group.runs[0].config;
        let precisions = group.runs.iter().filter_map(|run| run.config.precision).map(|p| p.name().to_string());
        table.row([
            group.name.clone(),
            group.seeds(),
            each(&|summary| summary.device.clone()),
            distinct(precisions),
            each(&|summary| summary.version.clone()),
            training_images(config),
            each(&|summary| summary.test.n.to_string()),
            each(&|summary| summary.epochs.to_string()),
            each(&|summary| summary.steps.to_string()),
            config.train.batch_size.to_string(),
        ]);
    }
    table
}

/// Each value once; "-" for none.
fn distinct(values: impl Iterator<Item = String>) -> String {
    let all: BTreeSet<String> = values.collect();
    if all.is_empty() { "-".into() } else { all.into_iter().collect::<Vec<_>>().join(", ") }
}

/// A figure for every data set and network of which some method was run at several sparsities.
fn figures(groups: &[Group]) -> Vec<Part> {
    let mut figures = Vec::new();
    let places: BTreeSet<(&str, &str)> = groups.iter().map(|group| (&*group.dataset, &*group.network)).collect();
    for (dataset, network) in places {
        let here: Vec<&Group> =
            groups.iter().filter(|group| (&*group.dataset, &*group.network) == (dataset, network)).collect();
        let accuracy = panel("accuracy (%)", &here, |metrics| (metrics.accuracy, metrics.intervals.accuracy_ci95));
        let ece = panel("ECE, 15 bins (%)", &here, |metrics| (metrics.ece, metrics.intervals.ece_ci95));
        let measured = |series: &Series| series.points.iter().filter(|point| point.mean.is_finite()).count();
        if ece.series.iter().all(|series| measured(series) < 2) {
            continue;
        }
        let svg = plot::against_sparsity(&format!("{dataset}, {network}"), &[accuracy, ece]);
        let caption = format!(
            "{dataset}, {network}: accuracy and ECE against sparsity. Bars are 95 % intervals: half the width of the bootstrap interval \
             for one seed, Student's t over the seeds for several."
        );
        figures.push(Part::Picture { caption, svg });
    }
    figures
}

/// A value and its interval, in percent, of every method at every sparsity.
fn panel(name: &str, groups: &[&Group], of: impl Fn(&Metrics) -> (f64, Option<[f64; 2]>)) -> Panel {
    let mut panel = Panel { name: name.into(), series: vec![] };
    for group in groups {
        let values = group.values(|summary| 100.0 * of(&summary.test).0);
        let half_width = match group.finished()[..] {
            [summary] => of(&summary.test).1.map(|[low, high]| 50.0 * (high - low)),
            _ => half_width(&values),
        };
        // A sparsity without a result keeps its place on the axis.
        let mean = mean(&values).unwrap_or(f64::NAN);
        let point = Point { sparsity: group.sparsity, mean, half_width };
        match panel.series.iter_mut().find(|series| series.name == group.method) {
            Some(series) => series.points.push(point),
            None => {
                panel.series.push(Series { name: group.method.clone(), points: vec![point], published: false });
            }
        }
    }
    panel.series.retain(|series| series.points.iter().any(|point| point.mean.is_finite()));
    panel
}
