//! The tables of an experiment: here and in the paper, one row under the other.

use super::experiment::{Measure, Row};
use super::results::{BlockResults, Cell, Line, Results};
use crate::config::Method;
use crate::report::summary::{mean, mean_and_sd, percent};
use crate::report::table::Table;
use crate::{Error, Result};

/// A table with what stands above and below it.
#[derive(Clone, Debug)]
pub struct Captioned {
    /// Network, data and measure.
    pub caption: String,
    /// The cells.
    pub table: Table,
    /// Why cells failed or count fewer seeds than asked for.
    pub notes: Vec<String>,
}

/// All tables of an experiment: for each network the measures, the experiment's own first, and the change from RigL to CigL.
pub fn sections(results: &Results) -> Vec<Captioned> {
    let mut all = vec![];
    for block in &results.blocks {
        let measures = results.experiment.measures();
        // Nothing is published that the first two measures do not have.
        let shown = measures.into_iter().filter(|&m| block.runs() || m == measures[0] || has_published(block, m));
        all.extend(shown.map(|measure| table(block, measure)));
        all.extend(change(block));
    }
    all
}

fn has_published(block: &BlockResults, measure: Measure) -> bool {
    block.rows.iter().flat_map(|row| &row.cells).any(|cell| cell.published(measure).is_some())
}

fn table(block: &BlockResults, measure: Measure) -> Captioned {
    let columns = block.sparsities.iter().map(|&sparsity| format!("{} %", percent(sparsity)));
    let mut table = Table::new(["method".to_string(), String::new()].into_iter().chain(columns));
    let mut notes = vec![];
    let (unit, decimals) = measure.shown();
    for row in &block.rows {
        let mut here = vec![row.row.name().to_string(), "here".into()];
        for (cell, &sparsity) in row.cells.iter().zip(&block.sparsities) {
            here.push(text(cell, measure));
            let at = format!("{} at {} %", row.row.name(), percent(sparsity));
            note(&mut notes, cell, &at);
        }
        table.row(here);
        if row.cells.iter().any(|cell| cell.published(measure).is_some()) {
            let paper = row.cells.iter().map(|cell| match cell.published(measure) {
                None => "-".into(),
                Some(p) => {
                    let sd = p.sd.map_or_else(String::new, |sd| format!(" ± {:.decimals$}", sd * unit));
                    format!("{:.decimals$}{sd}", p.mean * unit)
                }
            });
            table.row([String::new(), "paper".into()].into_iter().chain(paper));
        }
    }
    let caption = format!("{}: {} by sparsity", block.setting.title(), measure.title());
    Captioned { caption, table, notes }
}

fn text(cell: &Cell, measure: Measure) -> String {
    let (unit, decimals) = measure.shown();
    let values: Vec<f64> = cell.values(measure).iter().map(|value| value * unit).collect();
    match (values.len(), cell.seeds.len()) {
        (0, _) => cell.state().into(),
        (some, all) if some < all => format!("{} ({some} of {all})", mean_and_sd(&values, decimals)),
        _ => mean_and_sd(&values, decimals),
    }
}

fn note(notes: &mut Vec<String>, cell: &Cell, at: &str) {
    for why in cell.failures() {
        let note = format!("failed: {at}: {why}");
        if !notes.contains(&note) {
            notes.push(note);
        }
    }
}

/// What CigL changes against RigL, here and in the paper, where both are there.
fn change(block: &BlockResults) -> Option<Captioned> {
    let [rigl, cigl] = [Method::Rigl, Method::Cigl].map(|method| block.row(Row::Method(method)));
    let (rigl, cigl) = (rigl?, cigl?);
    let mut table = Table::new(["sparsity", "ECE here", "ECE paper", "accuracy here", "accuracy paper"]);
    let mut rows = 0;
    for ((rigl, cigl), &sparsity) in rigl.cells.iter().zip(&cigl.cells).zip(&block.sparsities) {
        let here = |measure| Some((mean(&rigl.values(measure))?, mean(&cigl.values(measure))?));
        let paper = |measure| Some((rigl.published(measure)?.mean, cigl.published(measure)?.mean));
        let ratio = |pair: Option<(f64, f64)>| {
            pair.map_or("-".into(), |(from, to)| format!("{:+.1} %", 100.0 * (to / from - 1.0)))
        };
        let points = |pair: Option<(f64, f64)>| {
            pair.map_or("-".into(), |(from, to)| format!("{:+.2} points", 100.0 * (to - from)))
        };
        let (ece, accuracy) = (here(Measure::Ece), here(Measure::Accuracy));
        if ece.is_some() {
            rows += 1;
            table.row([
                format!("{} %", percent(sparsity)),
                ratio(ece),
                ratio(paper(Measure::Ece)),
                points(accuracy),
                points(paper(Measure::Accuracy)),
            ]);
        }
    }
    let caption = format!("{}: from RigL to CigL", block.setting.title());
    (rows > 0).then(|| Captioned { caption, table, notes: vec![] })
}

/// The tables as a Markdown document, with what `about` says of their making.
pub fn markdown(results: &Results, about: &[String]) -> String {
    let mut text = format!("# {}\n", results.experiment.title());
    for Captioned { caption, table, notes } in sections(results) {
        text += &format!("\n{caption}\n\n{}", table.markdown());
        for note in notes {
            text += &format!("\n{note}\n");
        }
    }
    text += "\n";
    for line in about {
        text += &format!("* {line}\n");
    }
    text
}

/// Every number of an experiment as CSV, one a line.
pub fn csv(lines: &[Line]) -> Result<Vec<u8>> {
    let mut writer = csv::Writer::from_writer(vec![]);
    let written = lines.iter().try_for_each(|line| writer.serialize(line));
    written.map_err(|e| Error::Resources(format!("a table cannot be written as CSV: {e}")))?;
    writer.into_inner().map_err(|e| Error::Resources(format!("a table cannot be written as CSV: {e}")))
}
