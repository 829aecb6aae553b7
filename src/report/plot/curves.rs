//! Panels of curves over the steps of a run, one below the other.

use plotters::prelude::PathElement;
use plotters::style::RGBColor;

use super::chart::{
    Area, Axis, BLUE, Chart, Drawn, GREY, INK, PAPER, SMALL, SWATCH, VERMILION, axes, block, dashed_swatch, dashes,
    font, legend, pixels, stroke, text, thousands, width_of,
};
use super::training::Mark;

/// A line has at most this many points: more are averaged in groups of neighbours, for a page cannot show them.
const MOST_POINTS: usize = 800;

/// Height in pixels of the axis of steps, which the last panel has.
pub(super) const STEP_AXIS: i32 = 32;

/// Left and right margins in pixels of the plotting region, where nothing is written beside it.
pub(super) const SIDES: [i32; 2] = [76, 24];

/// Where a panel's lines are named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Legend {
    /// In the upper right corner, which falling lines leave free.
    Above,
    /// In the lower right corner, which rising lines leave free.
    Below,
    /// In the right margin.
    Beside,
}

/// One panel.
pub(super) struct Panel<'a> {
    /// Quantity and unit.
    pub(super) name: &'a str,
    /// Name, for the legend, and points of each line.
    pub(super) lines: Vec<(&'a str, Vec<(f64, f64)>)>,
    /// In pixels, without the axis of steps.
    pub(super) height: i32,
    /// The least value shown; that of the lines if none.
    pub(super) low: Option<f64>,
    /// Where the lines are named.
    pub(super) legend: Legend,
}

/// Where a panel lies among those of its page.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// The first one names the marks.
    pub(super) first: bool,
    /// The last one has the axis of steps.
    pub(super) last: bool,
    /// Left and right margins in pixels.
    pub(super) sides: [i32; 2],
}

/// The steps of all panels, from 0 on.
pub(super) fn steps(panels: &[Panel]) -> [f64; 2] {
    let steps = || panels.iter().flat_map(|panel| &panel.lines).flat_map(|line| &line.1).map(|point| point.0);
    widen([steps().fold(f64::INFINITY, f64::min).min(0.0), steps().fold(1.0, f64::max)])
}

/// Draws a panel in `cell` of `page`, with dotted lines at the marks.
pub(super) fn draw(
    page: &Area,
    cell: &Area,
    panel: &Panel,
    steps: [f64; 2],
    Place { first: named, last, sides: [left, beside] }: Place,
    marks: &[Mark],
) -> Drawn {
    let values = || panel.lines.iter().flat_map(|line| &line.1).map(|point| point.1);
    let (least, most) = (values().fold(f64::INFINITY, f64::min), values().fold(f64::NEG_INFINITY, f64::max));
    let low = panel.low.unwrap_or(least - 0.05 * (most - least));
    let range = match panel.low {
        Some(low) if most <= low => [low, low + 1.0],
        _ => widen([low, most + 0.05 * (most - low)]),
    };
    let step_tick = |step: &f64| thousands(step.max(0.0) as u64);
    let span = range[1] - range[0];
    let digits = if span < 0.05 {
        3
    } else if span < 0.5 {
        2
    } else if span < 10.0 {
        1
    } else {
        0
    };
    let value_tick = |value: &f64| format!("{value:.digits$}");
    let x = Axis { name: if last { "step" } else { "" }, range: steps, ticks: 8, label: &step_tick };
    let y = Axis { name: panel.name, range, ticks: 5, label: &value_tick };
    let chart = axes(cell, [left, beside, 6, 20 + if last { STEP_AXIS } else { 6 }], &x, &y)?;
    let [_, top, right, bottom] = pixels(&chart, (steps[0], range[0]), (steps[1], range[1]));
    let marks = || marks.iter().filter(|mark| (steps[0]..=steps[1]).contains(&mark.step));
    let line = |mark: &Mark| pixels(&chart, (mark.step, range[0]), (mark.step, range[1]))[0];
    for mark in marks() {
        dashes(page, (line(mark), top), (line(mark), bottom), stroke(GREY, 1), [2.0, 3.0])?;
    }
    for (row, mark) in marks().enumerate().filter(|_| named) {
        // To the left of the line where the words would run out of the panel.
        let (width, y) = (width_of(&mark.name, SMALL), top + 10.0 + 17.0 * row as f64);
        let x = if line(mark) + 6.0 + width > right { line(mark) - 6.0 - width } else { line(mark) + 6.0 };
        block(page, [x - 3.0, y - 8.0, x + width, y + 8.0], PAPER, PAPER)?;
        text(page, &mark.name, (x, y), font(SMALL, GREY))?;
    }
    for (i, (_, points)) in panel.lines.iter().enumerate() {
        curve(&chart, page, points, LOOKS[i % LOOKS.len()])?;
    }
    let named_lines = || panel.lines.iter().enumerate().filter(|(_, line)| !line.0.is_empty() && !line.1.is_empty());
    let widest = named_lines().map(|(_, line)| width_of(line.0, SMALL)).fold(0.0, f64::max);
    let rows = named_lines().count() as f64;
    let first = match panel.legend {
        Legend::Above => top + 17.0 * marks().count() as f64 + 16.0,
        Legend::Below => bottom - 18.0 * rows - 2.0,
        Legend::Beside => (top + bottom) / 2.0 - 9.0 * (rows - 1.0),
    };
    let x = if panel.legend == Legend::Beside { right + 12.0 } else { right - SWATCH - 20.0 - widest };
    for (row, (i, (words, _))) in named_lines().enumerate() {
        let (at, (color, pattern, width)) = ((x, first + 18.0 * row as f64), LOOKS[i % LOOKS.len()]);
        if panel.legend != Legend::Beside {
            block(page, [x - 6.0, at.1 - 9.0, right - 4.0, at.1 + 9.0], PAPER, PAPER)?;
        }
        dashed_swatch(page, at, stroke(color, width), pattern)?;
        legend(page, words, at)?;
    }
    Ok(())
}

/// Colour, dash pattern (on, off) and width in pixels; the first is solid.
type Look = (RGBColor, [f64; 2], u32);
const LOOKS: [Look; 3] = [(BLUE, [1e9, 1.0], 1), (VERMILION, [8.0, 4.0], 2), (INK, [2.0, 3.0], 2)];

fn curve(chart: &Chart, page: &Area, points: &[(f64, f64)], (color, [on, off], width): Look) -> Drawn {
    let path: Vec<(f64, f64)> =
        (points.iter()).map(|point| chart.backend_coord(point)).map(|(x, y)| (f64::from(x), f64::from(y))).collect();
    // One point has no line to show.
    if let [(x, y)] = path[..] {
        block(page, [x - 2.0, y - 2.0, x + 2.0, y + 2.0], color, color)?;
    }
    // Cuts the path into dashes along its own length.
    let (mut phase, mut dash) = (0.0, Vec::new());
    for pair in path.windows(2) {
        let (mut from, to) = (pair[0], pair[1]);
        let mut left = (to.0 - from.0).hypot(to.1 - from.1);
        while left > 0.0 {
            let drawing = phase < on;
            let until = if drawing { on - phase } else { on + off - phase };
            let step = until.min(left);
            let next = (from.0 + (to.0 - from.0) * step / left, from.1 + (to.1 - from.1) * step / left);
            if drawing {
                if dash.is_empty() {
                    dash.push(from);
                }
                dash.push(next);
            }
            (from, left, phase) = (next, left - step, phase + step);
            if phase >= on && !dash.is_empty() {
                flush(page, &mut dash, stroke(color, width))?;
            }
            if phase >= on + off {
                phase = 0.0;
            }
        }
    }
    flush(page, &mut dash, stroke(color, width))
}

fn flush(page: &Area, dash: &mut Vec<(f64, f64)>, style: plotters::style::ShapeStyle) -> Drawn {
    let points: Vec<(i32, i32)> = dash.drain(..).map(|(x, y)| (x.round() as i32, y.round() as i32)).collect();
    if points.len() > 1 { page.draw(&PathElement::new(points, style)) } else { Ok(()) }
}

/// Finite points only, averaged in groups so that at most [`MOST_POINTS`] are left.
pub(super) fn thin(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let finite: Vec<(f64, f64)> = points.iter().copied().filter(|p| p.0.is_finite() && p.1.is_finite()).collect();
    let group = finite.len().div_ceil(MOST_POINTS).max(1);
    let mean = |points: &[(f64, f64)]| {
        let n = points.len() as f64;
        (points.iter().map(|p| p.0).sum::<f64>() / n, points.iter().map(|p| p.1).sum::<f64>() / n)
    };
    finite.chunks(group).map(mean).collect()
}

/// A range of some width, whatever the data.
pub(super) fn widen([low, high]: [f64; 2]) -> [f64; 2] {
    if high > low { [low, high] } else { [low - 0.5, low + 0.5] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thinning_keeps_means_and_drops_what_is_not_finite() {
        let points: Vec<(f64, f64)> = (0..1600).map(|i| (f64::from(i), f64::from(i % 2))).collect();
        let thinned = thin(&points);
        assert_eq!((thinned.len(), thinned[0]), (800, (0.5, 0.5)));
        assert_eq!(thin(&[(0.0, f64::NAN), (1.0, f64::INFINITY), (2.0, 3.0)]), [(2.0, 3.0)]);
    }
}
