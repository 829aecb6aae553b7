//! Training curves.

use plotters::prelude::PathElement;
use plotters::style::RGBColor;

use super::chart::{
    Area, Axis, BLUE, Chart, Drawn, GREY, INK, PAPER, SMALL, SWATCH, VERMILION, axes, block, dashed_swatch, dashes,
    decimals, font, legend, page, pixels, stroke, text, thousands, title, width_of,
};

/// A line has at most this many points: more are averaged in groups of neighbours, for a page cannot show them.
const MOST_POINTS: usize = 800;

/// One line of a panel.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Line {
    /// What it is, for the legend ("training batch", "test").
    pub name: String,
    /// (step, value), steps increasing.
    pub points: Vec<(f64, f64)>,
}

/// A moment worth a vertical line.
#[derive(Clone, Debug, PartialEq)]
pub struct Mark {
    /// The step.
    pub step: f64,
    /// A few words ("last mask update").
    pub name: String,
}

/// What [`training`] draws. Empty panels are left out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Training {
    /// Losses in nats.
    pub loss: Vec<Line>,
    /// Accuracies as fractions.
    pub accuracy: Vec<Line>,
    /// (step, learning rate).
    pub learning_rate: Vec<(f64, f64)>,
    /// Moments, drawn through every panel.
    pub marks: Vec<Mark>,
}

const ACCURACY: &str = "accuracy (%)";

struct Panel<'a> {
    name: &'a str,
    lines: Vec<(&'a str, Vec<(f64, f64)>)>,
    height: i32,
}

/// Loss, accuracy and learning rate by step, one panel each over the same steps.
pub fn training(name: &str, data: &Training) -> String {
    let percent = |line: &Line| line.points.iter().map(|&(step, value)| (step, 100.0 * value)).collect::<Vec<_>>();
    let panels: Vec<Panel> = [
        Panel {
            name: "loss (nats)",
            lines: data.loss.iter().map(|line| (&line.name[..], thin(&line.points))).collect(),
            height: 230,
        },
        Panel {
            name: ACCURACY,
            lines: data.accuracy.iter().map(|line| (&line.name[..], thin(&percent(line)))).collect(),
            height: 230,
        },
        Panel { name: "learning rate", lines: vec![("", thin(&data.learning_rate))], height: 150 },
    ]
    .into_iter()
    .filter(|panel| panel.lines.iter().any(|line| !line.1.is_empty()))
    .collect();
    let steps = || panels.iter().flat_map(|panel| &panel.lines).flat_map(|line| &line.1).map(|point| point.0);
    let range = widen([steps().fold(f64::INFINITY, f64::min).min(0.0), steps().fold(1.0, f64::max)]);
    let height = 48 + panels.iter().map(|panel| panel.height).sum::<i32>() + 32;
    page(760, height as u32, |area| {
        title(area, name)?;
        let (_, mut rest) = area.split_vertically(48);
        for (i, panel) in panels.iter().enumerate() {
            let last = i + 1 == panels.len();
            let (cell, below) = rest.split_vertically(panel.height + if last { 32 } else { 0 });
            draw(area, &cell, panel, range, last, &data.marks, i == 0)?;
            rest = below;
        }
        Ok(())
    })
}

fn draw(page: &Area, cell: &Area, panel: &Panel, steps: [f64; 2], last: bool, marks: &[Mark], named: bool) -> Drawn {
    let values = || panel.lines.iter().flat_map(|line| &line.1).map(|point| point.1);
    let (least, most) = (values().fold(f64::INFINITY, f64::min), values().fold(f64::NEG_INFINITY, f64::max));
    // Losses and rates start at 0; an accuracy panel shows the range that was reached.
    let low = if panel.name == ACCURACY { least - 0.05 * (most - least) } else { 0.0 };
    let range = widen([low, most + 0.05 * (most - low)]);
    let step_tick = |step: &f64| thousands(step.max(0.0) as u64);
    let digits = decimals(range[1] - range[0]);
    let value_tick = |value: &f64| format!("{value:.digits$}");
    let x = Axis { name: if last { "step" } else { "" }, range: steps, ticks: 8, label: &step_tick };
    let y = Axis { name: panel.name, range, ticks: 5, label: &value_tick };
    let chart = axes(cell, [76, 24, 6, if last { 52 } else { 26 }], &x, &y)?;
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
    // Where curves leave room: losses fall, so above; accuracies rise, so below.
    let named_lines = || panel.lines.iter().enumerate().filter(|(_, line)| !line.0.is_empty() && !line.1.is_empty());
    let widest = named_lines().map(|(_, line)| width_of(line.0, SMALL)).fold(0.0, f64::max);
    let rows = named_lines().count() as f64;
    let first = match panel.name {
        ACCURACY => bottom - 18.0 * rows - 2.0,
        _ => top + 17.0 * marks().count() as f64 + 16.0,
    };
    let x = right - SWATCH - 20.0 - widest;
    for (row, (i, (words, _))) in named_lines().enumerate() {
        let (at, (color, pattern, width)) = ((x, first + 18.0 * row as f64), LOOKS[i % LOOKS.len()]);
        block(page, [x - 6.0, at.1 - 9.0, right - 4.0, at.1 + 9.0], PAPER, PAPER)?;
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
fn thin(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let finite: Vec<(f64, f64)> = points.iter().copied().filter(|p| p.0.is_finite() && p.1.is_finite()).collect();
    let group = finite.len().div_ceil(MOST_POINTS).max(1);
    let mean = |points: &[(f64, f64)]| {
        let n = points.len() as f64;
        (points.iter().map(|p| p.0).sum::<f64>() / n, points.iter().map(|p| p.1).sum::<f64>() / n)
    };
    finite.chunks(group).map(mean).collect()
}

/// A range of some width, whatever the data.
fn widen([low, high]: [f64; 2]) -> [f64; 2] {
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
