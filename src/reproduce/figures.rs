//! The figures of an experiment.

use super::experiment::{Figure, Measure};
use super::results::{BlockResults, Cell, Results, RowResults};
use crate::report::plot::{Panel, Point, Series, against_sparsity, bars, radar};
use crate::report::summary::{half_width, half_width_of, mean};

/// A figure and what it shows.
#[derive(Clone, Debug)]
pub struct Drawing {
    /// The name of its files.
    pub name: String,
    /// What it shows.
    pub caption: String,
    /// The picture.
    pub svg: String,
}

/// A figure for each network that this scale runs, with what is measured and what is published of it. Intervals of 95 % are over
/// seeds, from two on; those of published values are over the paper's three.
pub fn figures(results: &Results) -> Vec<Drawing> {
    let name = results.experiment.name();
    let mut all = vec![];
    for block in results.blocks.iter().filter(|block| block.runs()) {
        let title = results.experiment.title();
        let caption = format!("{title}: {}", block.setting.title());
        let short = format!("{}: {}", title.split(':').next().unwrap_or(title), block.setting.title());
        let panels: Vec<Panel> = results.experiment.measures().iter().map(|&measure| panel(block, measure)).collect();
        // Without NLL, which the paper does not print: two panels stand side by side.
        let [subject, beside, ..] = &panels[..] else { continue };
        if subject.series.is_empty() && beside.series.is_empty() {
            continue;
        }
        let both = [subject.clone(), beside.clone()];
        let svg = match results.experiment.figure() {
            Figure::Curves => against_sparsity(&short, &both),
            Figure::Bars => bars(&short, &both),
            Figure::Radar => radar(&short, subject),
        };
        let setting = format!("{}-{}", block.setting.dataset.name(), block.setting.network.name());
        all.push(Drawing { name: format!("{name}-{setting}"), caption, svg });
    }
    all
}

/// What was measured, and what is published, of one measure.
fn panel(block: &BlockResults, measure: Measure) -> Panel {
    let mut series = vec![];
    for row in &block.rows {
        let measured = points(block, row, measure, |cell| {
            let values = cell.values(measure);
            Some((mean(&values)?, half_width(&values)))
        });
        let published = points(block, row, measure, |cell| {
            let published = cell.published(measure)?;
            Some((published.mean, published.sd.map(|sd| half_width_of(sd, 3))))
        });
        for (points, published) in [(measured, false), (published, true)] {
            if !points.is_empty() {
                series.push(Series { name: row.row.name().into(), points, published });
            }
        }
    }
    Panel { name: measure.title().into(), series }
}

/// What `of` says of a row's cells, mean and half the interval, in the unit in which the measure is shown.
fn points(
    block: &BlockResults,
    row: &RowResults,
    measure: Measure,
    of: impl Fn(&Cell) -> Option<(f64, Option<f64>)>,
) -> Vec<Point> {
    let (unit, _) = measure.shown();
    let cells = row.cells.iter().zip(&block.sparsities);
    let point = |(cell, &sparsity)| {
        let (mean, half_width) = of(cell)?;
        Some(Point { sparsity, mean: mean * unit, half_width: half_width.map(|half| half * unit) })
    };
    cells.filter_map(point).collect()
}
