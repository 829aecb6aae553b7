//! Everything on one page: tables, figures, and every training behind them.

use super::figures::figures;
use super::results::Results;
use super::tables::{Captioned, sections};
use super::training::Training;
use crate::Result;
use crate::report::html::{Page, Part, Section};
use crate::report::table::Table;
use crate::runs::{Run, run_section, training_images};
use crate::train::run::duration;
use crate::train::run_folder::Progress;

/// The report of a reproduction. `about` says how its numbers were made; `trainings` are those behind them.
///
/// # Errors
/// A file of a run that cannot be read.
pub fn page(results: &[Results], trainings: &[Training], about: &[String]) -> Result<Page> {
    let mut all: Vec<Section> = results.iter().map(section).collect();
    let mut parts = vec![Part::Table { caption: "Each training was done once".into(), table: made(trainings)? }];
    for training in trainings.iter().filter(|training| training.folder.progress() != Progress::Absent) {
        parts.push(run_section(&training.folder)?);
    }
    all.push(Section { heading: "Trainings".into(), parts });
    Ok(Page { title: "Calibrating the Rigged Lottery, reproduced".into(), lead: about.to_vec(), sections: all })
}

fn section(results: &Results) -> Section {
    let mut parts = vec![];
    for Captioned { caption, table, notes } in sections(results) {
        parts.push(Part::Table { caption, table });
        parts.extend(notes.into_iter().map(Part::Note));
    }
    let drawn = figures(results).into_iter();
    parts.extend(drawn.map(|drawing| Part::Picture { caption: drawing.caption, svg: drawing.svg }));
    Section { heading: results.experiment.title().into(), parts }
}

/// Where and how each training was done.
fn made(trainings: &[Training]) -> Result<Table> {
    let header = ["training", "for", "state", "device", "cigl", "trained on", "test images", "steps", "time"];
    let mut table = Table::new(header);
    for training in trainings {
        let shown: Vec<&str> = training.experiments.iter().map(|experiment| experiment.name()).collect();
        let mut row = vec![training.name.clone(), shown.join(" ")];
        if training.folder.progress() == Progress::Absent {
            row.push(training.folder.failure()?.map_or("not run".into(), |why| format!("failed: {why}")));
        } else {
            let run = Run::read(training.folder.clone())?;
            row.push(run.lack().unwrap_or("finished".into()));
            if let Some(summary) = run.summary() {
                row.extend([summary.device.clone(), summary.version.clone(), training_images(&run.config)]);
                row.extend([summary.test.n.to_string(), summary.steps.to_string(), duration(summary.seconds)]);
            }
        }
        table.row(row);
    }
    Ok(table)
}
