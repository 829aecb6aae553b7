//! Grouped bars.

use plotters::prelude::{Circle, PathElement};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color, FontTransform};

use super::chart::{
    Area, Axis, Drawn, GREY, INK, PAPER, SMALL, axes, decimals, font, pixels, stroke, text_centred, whisker,
};
use super::look::{Sample, grid, look};
use super::panel::{Panel, Series, names, sparsities};
use crate::report::summary::percent;

const HEIGHT: u32 = 340;
/// Pixels of a bar with its air, and between two groups.
const BAR: u32 = 24;
const APART: u32 = 30;
/// Pixels that "not run" takes, and a marker's radius.
const WORDS: f64 = 66.0;
const MARGINS: [i32; 4] = [72, 20, 10, 52];

/// Every panel's values as bars with 95 % intervals: a group a sparsity, a bar a method. What the paper published is a hollow marker
/// on the method's bar. A value that is missing leaves a gap that says "not run". The axis starts at 0; where accuracies are close it
/// does not, its name says so and its foot is broken.
pub fn bars(name: &str, panels: &[Panel]) -> String {
    let (sparsities, names) = (sparsities(panels), names(panels));
    let methods = names.len().max(1) as u32;
    let bar = if methods > 7 { 18 } else { BAR };
    let width = (92 + sparsities.len() as u32 * (methods * bar + APART)).max(360);
    grid(name, panels, Sample::Bar, [width, HEIGHT], |page, cell, panel| draw(page, cell, panel, &sparsities, &names))
}

fn draw(page: &Area, cell: &Area, panel: &Panel, sparsities: &[f64], names: &[&str]) -> Drawn {
    let range = panel.range();
    let digits = decimals(range[1] - range[0]);
    let value_tick = |value: &f64| format!("{value:.digits$}");
    // A group is as wide as its bars and the air between groups.
    let bar = if names.len() > 7 { 18 } else { BAR };
    let group = names.len().max(1) as f64 + f64::from(APART) / f64::from(bar);
    let ends = [0.0, group * sparsities.len().max(1) as f64];
    let x = Axis { name: "sparsity (%)", range: ends, ticks: 0, label: &|_| String::new() };
    let y = Axis { name: &panel.axis_name(), range, ticks: 7, label: &value_tick };
    let chart = axes(cell, MARGINS, &x, &y)?;
    let of = |name: &str, published: bool| -> Option<&Series> {
        panel.series.iter().find(|series| series.name == name && series.published == published)
    };
    for (i, &sparsity) in sparsities.iter().enumerate() {
        let left = group * i as f64 + (group - names.len() as f64) / 2.0;
        let middle = group * (i as f64 + 0.5);
        let [x, _, _, foot] = pixels(&chart, (middle, range[0]), (middle, range[1]));
        text_centred(page, &percent(sparsity), (x, foot + 14.0), font(SMALL, INK))?;
        for (j, name) in names.iter().enumerate() {
            let slot = left + j as f64;
            let mut whole = pixels(&chart, (slot, range[0]), (slot + 1.0, range[1]));
            let published = of(name, true).and_then(|series| series.at(sparsity));
            let marker = published.map(|point| pixels(&chart, (slot + 0.5, point.mean), (slot + 0.5, point.mean)));
            // The words stand above a marker that would cover them.
            if let Some([_, y, ..]) = marker.filter(|marker| whole[3] - marker[1] < WORDS) {
                whole[3] = y - 10.0;
            }
            match of(name, false).and_then(|series| series.at(sparsity)) {
                None => not_run(page, whole)?,
                Some(point) => {
                    let bar = pixels(&chart, (slot + 0.08, range[0]), (slot + 0.92, point.mean.max(range[0])));
                    look(names, name).bar(page, bar)?;
                    if let Some(half) = point.half_width() {
                        let (low, high) = ((point.mean - half).max(range[0]), (point.mean + half).min(range[1]));
                        let [left, top, right, bottom] = pixels(&chart, (slot, low), (slot + 1.0, high));
                        // White under the ink, to be seen on any bar.
                        let x = ((left + right) / 2.0).round() as i32;
                        page.draw(&PathElement::new([(x, top as i32), (x, bottom as i32)], stroke(PAPER, 5)))?;
                        whisker(page, [left, top, right, bottom], INK)?;
                    }
                }
            }
            if let Some([x, y, ..]) = marker {
                page.draw(&Circle::new((x as i32, y as i32), 9, PAPER.filled()))?;
                look(names, name).marker(page, (x, y), true)?;
            }
        }
    }
    if range[0] > 0.0 {
        broken_foot(page, pixels(&chart, (0.0, range[0]), (0.0, range[1])))?;
    }
    Ok(())
}

/// "not run", upwards from the foot of a bar's place.
fn not_run(page: &Area, [left, _, right, bottom]: [f64; 4]) -> Drawn {
    let mut style = font(SMALL, GREY).pos(Pos::new(HPos::Left, VPos::Center));
    style.font = style.font.transform(FontTransform::Rotate270);
    page.draw_text("not run", &style, (((left + right) / 2.0) as i32, bottom as i32 - 6))
}

/// Two slanted strokes across the axis just above its foot.
fn broken_foot(page: &Area, [left, _, _, bottom]: [f64; 4]) -> Drawn {
    let stroke_at = |y: f64, style| {
        page.draw(&PathElement::new(
            [(left - 6.0, y + 3.0), (left + 6.0, y - 3.0)].map(|(x, y)| (x as i32, y as i32)),
            style,
        ))
    };
    stroke_at(bottom - 9.0, stroke(PAPER, 4))?;
    stroke_at(bottom - 12.0, stroke(INK, 1))?;
    stroke_at(bottom - 6.0, stroke(INK, 1))
}
