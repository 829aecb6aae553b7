//! Reliability diagrams.

use super::chart::{
    Area, Axis, BLUE, BODY, Chart, Drawn, GREY, INK, PALE_BLUE, SMALL, VERMILION, axes, block, dashed_swatch, dashes,
    font, hatch, legend, page, percent, pixels, stroke, swatch, text, thousands, title, whisker,
};
use crate::calibration::Evaluation;

const WIDTH: u32 = 520;
const HEIGHT: u32 = 776;
/// Rows of the page: the text above the diagram, and the diagram, whose axes are a square.
const HEADER: i32 = 132;
const DIAGRAM: i32 = 472;
/// Dashes of the diagonal: whole pixels along either axis, or they would wobble.
const DIAGONAL: [f64; 2] = [6.0 * std::f64::consts::SQRT_2, 4.0 * std::f64::consts::SQRT_2];

/// A reliability diagram: accuracy of each confidence bin as bars with 95 % Wilson intervals, the gap to the bin's mean
/// confidence hatched (falling lines: over-confident, rising ones: under-confident), and below it where the samples lie.
/// The caption gives accuracy, NLL, ECE (with its interval, if there is one), n and the binning.
pub fn reliability(title: &str, evaluation: &Evaluation) -> String {
    page(WIDTH, HEIGHT, |area| panel(area, area, title, evaluation))
}

/// The same diagram of several methods side by side, on the same axes: (name, evaluation) each.
pub fn comparison(methods: &[(&str, &Evaluation)]) -> String {
    let columns = methods.len().max(1);
    page(WIDTH * columns as u32, HEIGHT, |area| {
        let cells = area.split_evenly((1, columns));
        for ((name, evaluation), cell) in methods.iter().zip(&cells) {
            panel(area, cell, name, evaluation)?;
        }
        Ok(())
    })
}

fn panel(page: &Area, cell: &Area, name: &str, evaluation: &Evaluation) -> Drawn {
    let (metrics, reliability) = (&evaluation.metrics, &evaluation.reliability);
    title(cell, name)?;
    let interval = match metrics.intervals.ece_ci95 {
        Some([low, high]) => format!(" [{low:.4}, {high:.4}]"),
        None => String::new(),
    };
    let scores = format!("accuracy {} % · NLL {:.3}", percent(metrics.accuracy), metrics.nll);
    text(cell, &scores, (16.0, 50.0), font(BODY, INK))?;
    let error = format!("ECE {:.4}{interval} · n = {}", metrics.ece, thousands(metrics.n));
    text(cell, &error, (16.0, 71.0), font(BODY, INK))?;

    let (columns, rows) = cell.get_pixel_range();
    key(page, f64::from(columns.start) + 16.0, f64::from(rows.start) + 97.0)?;

    let (_, rest) = cell.split_vertically(HEADER);
    let (upper, lower) = rest.split_vertically(DIAGRAM);
    diagram(page, &upper, evaluation)?;
    let (lower, footer) = lower.split_vertically(HEIGHT as i32 - HEADER - DIAGRAM - 24);
    histogram(page, &lower, evaluation)?;
    let binning = format!("{}, L1", reliability.binning);
    let made = if metrics.intervals.ece_ci95.is_some() {
        "; ECE and bars with 95 % intervals"
    } else {
        "; bars with 95 % intervals"
    };
    text(&footer, &format!("{binning}{made}"), (64.0, 10.0), font(SMALL, GREY))
}

fn diagram(page: &Area, area: &Area, evaluation: &Evaluation) -> Drawn {
    let tick = |value: &f64| format!("{value:.1}");
    let x = Axis { name: "", range: [0.0, 1.0], ticks: 6, label: &tick };
    let y = Axis { name: "accuracy", range: [0.0, 1.0], ticks: 6, label: &tick };
    let chart = axes(area, [64, 20, 8, 28], &x, &y)?;
    for bin in &evaluation.reliability.bins {
        let (Some(accuracy), Some(confidence)) = (bin.accuracy, bin.confidence) else { continue };
        block(page, pixels(&chart, (bin.lo, 0.0), (bin.hi, accuracy)), PALE_BLUE, BLUE)?;
        let gap = pixels(&chart, (bin.lo, accuracy), (bin.hi, confidence));
        hatch(page, gap, if confidence > accuracy { VERMILION } else { INK }, confidence <= accuracy)?;
    }
    let [left, top, right, bottom] = pixels(&chart, (0.0, 0.0), (1.0, 1.0));
    dashes(page, (left, bottom), (right, top), stroke(INK, 2), DIAGONAL)?;
    for bin in &evaluation.reliability.bins {
        let Some((low, high)) = bin.accuracy_interval() else { continue };
        whisker(page, pixels(&chart, (bin.lo, low), (bin.hi, high)), INK)?;
    }
    Ok(())
}

/// Two rows of two.
fn key(page: &Area, left: f64, top: f64) -> Drawn {
    let at = |column: f64, row: f64| (left + 170.0 * column, top + 20.0 * row);
    block(page, swatch(at(0.0, 0.0)), PALE_BLUE, BLUE)?;
    dashed_swatch(page, at(0.0, 1.0), stroke(INK, 2), [7.0, 4.0])?;
    hatch(page, swatch(at(1.0, 0.0)), VERMILION, false)?;
    hatch(page, swatch(at(1.0, 1.0)), INK, true)?;
    legend(page, "accuracy of the bin", at(0.0, 0.0))?;
    legend(page, "perfect calibration", at(0.0, 1.0))?;
    legend(page, "gap: over-confident", at(1.0, 0.0))?;
    legend(page, "gap: under-confident", at(1.0, 1.0))
}

fn histogram(page: &Area, area: &Area, evaluation: &Evaluation) -> Drawn {
    let reliability = &evaluation.reliability;
    let share = |n: u64| 100.0 * n as f64 / reliability.n.max(1) as f64;
    let most = reliability.bins.iter().map(|bin| share(bin.n)).fold(1.0, f64::max);
    let (x_tick, y_tick) = (|value: &f64| format!("{value:.1}"), |value: &f64| format!("{value:.0}"));
    let x = Axis { name: "confidence", range: [0.0, 1.0], ticks: 6, label: &x_tick };
    let y = Axis { name: "samples (%)", range: [0.0, most * 1.08], ticks: 4, label: &y_tick };
    let chart: Chart = axes(area, [64, 20, 4, 48], &x, &y)?;
    for bin in reliability.bins.iter().filter(|bin| bin.n > 0) {
        block(page, pixels(&chart, (bin.lo, 0.0), (bin.hi, share(bin.n))), PALE_BLUE, BLUE)?;
    }
    Ok(())
}
