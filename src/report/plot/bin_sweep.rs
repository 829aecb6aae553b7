//! ECE against the number of bins.

use plotters::prelude::PathElement;

use super::chart::{
    Axis, BODY, Chart, Drawn, GREY, INK, PALE_BLUE, VERMILION, axes, dashed_swatch, dashes, font, legend, page, pixels,
    stroke, text, thousands, title,
};
use crate::calibration::BinCount;

/// Dashes of the equal-mass curve and dots of chance's.
const MASS: [f64; 2] = [9.0, 4.0];
const CHANCE: [f64; 2] = [2.0, 4.0];

/// ECE over 1 to 50 bins of equal width (solid) and of equal mass (dashed), with what chance alone would show of a perfectly
/// calibrated model with these confidences (dotted). Marks at 10 and 15 bins, the usual numbers.
pub fn bin_sweep(name: &str, sweep: &[BinCount], n: u64) -> String {
    page(640, 440, |area| {
        title(area, name)?;
        let at = |bins: usize| sweep.iter().find(|point| point.bins == bins).map(|point| point.ece);
        let words = match (at(10), at(15)) {
            (Some(ten), Some(fifteen)) => {
                format!("ECE {ten:.4} with 10 bins, {fifteen:.4} with 15 · n = {}", thousands(n))
            }
            _ => format!("n = {}", thousands(n)),
        };
        text(area, &words, (16.0, 50.0), font(BODY, INK))?;

        let last = sweep.last().map_or(1, |point| point.bins) as f64;
        let most = sweep.iter().map(|point| point.ece.max(point.ace).max(point.by_chance)).fold(0.001, f64::max);
        let (x_tick, y_tick) = (|value: &f64| format!("{value:.0}"), |value: &f64| format!("{value:.3}"));
        let x = Axis { name: "number of bins", range: [0.0, last], ticks: 11, label: &x_tick };
        let y = Axis { name: "ECE", range: [0.0, most * 1.08], ticks: 6, label: &y_tick };
        let chart = axes(area, [72, 20, 100, 48], &x, &y)?;
        for usual in [10.0, 15.0] {
            let [line, top, _, bottom] = pixels(&chart, (usual, 0.0), (usual, most * 1.08));
            dashes(area, (line, bottom), (line, top), stroke(GREY, 1), [4.0, 4.0])?;
        }
        // The two schemes often agree: the dashes lie on a broad pale line, so that both show.
        let (width, mass, chance) = (stroke(PALE_BLUE, 5), stroke(VERMILION, 2), stroke(INK, 2));
        let solid = curve(&chart, sweep, |point| point.ece);
        area.draw(&PathElement::new(solid.iter().map(|&(x, y)| (x as i32, y as i32)).collect::<Vec<_>>(), width))?;
        dashed(area, &curve(&chart, sweep, |point| point.ace), mass, MASS)?;
        dashed(area, &curve(&chart, sweep, |point| point.by_chance), chance, CHANCE)?;

        let at = |column: f64| (16.0 + 150.0 * column, 78.0);
        dashed_swatch(area, at(0.0), width, [1000.0, 1.0])?;
        dashed_swatch(area, at(1.0), mass, MASS)?;
        dashed_swatch(area, at(2.0), chance, CHANCE)?;
        for (column, words) in
            ["equal width", "equal mass", "by chance, if perfectly calibrated"].into_iter().enumerate()
        {
            legend(area, words, at(column as f64))?;
        }
        Ok(())
    })
}

fn curve(chart: &Chart, sweep: &[BinCount], of: impl Fn(&BinCount) -> f64) -> Vec<(f64, f64)> {
    let place = |point: &BinCount| {
        let [x, y, ..] = pixels(chart, (point.bins as f64, of(point)), (point.bins as f64, of(point)));
        (x, y)
    };
    sweep.iter().map(place).collect()
}

/// A dashed line through points, whose dashes go on around corners.
fn dashed(
    area: &super::chart::Area,
    points: &[(f64, f64)],
    style: plotters::style::ShapeStyle,
    [on, off]: [f64; 2],
) -> Drawn {
    let mut walked = 0.0;
    for pair in points.windows(2) {
        let (from, to) = (pair[0], pair[1]);
        let length = (to.0 - from.0).hypot(to.1 - from.1);
        let point = |s: f64| {
            let share = s / length;
            ((from.0 + (to.0 - from.0) * share).round() as i32, (from.1 + (to.1 - from.1) * share).round() as i32)
        };
        let mut at = 0.0;
        while at < length {
            let phase = (walked + at) % (on + off);
            let step = (if phase < on { on - phase } else { on + off - phase }).min(length - at).max(0.01);
            if phase < on {
                area.draw(&PathElement::new(vec![point(at), point(at + step)], style))?;
            }
            at += step;
        }
        walked += length;
    }
    Ok(())
}
