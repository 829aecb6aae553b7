//! Curves over sparsity.

use plotters::prelude::PathElement;

use super::chart::{Area, Axis, Drawn, GRID, INK, SMALL, axes, decimals, font, pixels, stroke, text_centred, whisker};
use super::look::{Sample, grid, look};
use super::panel::{Panel, names, sparsities};
use crate::report::summary::percent;

const HEIGHT: u32 = 360;
/// Pixels from one sparsity to the next.
const STEP: u32 = 44;
/// Room for the axis and its name.
const MARGINS: [i32; 4] = [72, 20, 10, 52];

/// Every panel's values against sparsity with their 95 % intervals: a marker a value, a line a method; what the paper
/// published is hollow and dashed. Sparsities stand at equal distances, since 99 and 99.9 % are as far apart in what they do as 0 and
/// 90 %. Panels stand side by side, or one below the other where that would be too wide.
pub fn against_sparsity(name: &str, panels: &[Panel]) -> String {
    let (sparsities, names) = (sparsities(panels), names(panels));
    let width = (STEP * sparsities.len() as u32 + 92).max(440);
    grid(name, panels, Sample::Line, [width, HEIGHT], |page, cell, panel| draw(page, cell, panel, &sparsities, &names))
}

fn draw(page: &Area, cell: &Area, panel: &Panel, sparsities: &[f64], names: &[&str]) -> Drawn {
    let range = panel.range();
    let digits = decimals(range[1] - range[0]);
    let value_tick = |value: &f64| format!("{value:.digits$}");
    let ends = [-0.5, sparsities.len().max(1) as f64 - 0.5];
    let x = Axis { name: "sparsity (%)", range: ends, ticks: 0, label: &|_| String::new() };
    let y = Axis { name: &panel.axis_name(), range, ticks: 7, label: &value_tick };
    let chart = axes(cell, MARGINS, &x, &y)?;
    let place = |column: f64, value: f64| {
        let [x, y, ..] = pixels(&chart, (column, value), (column, value));
        (x, y)
    };
    for (column, &sparsity) in sparsities.iter().enumerate() {
        let [x, top, _, bottom] = pixels(&chart, (column as f64, range[0]), (column as f64, range[1]));
        page.draw(&PathElement::new([(x as i32, top as i32), (x as i32, bottom as i32 - 1)], stroke(GRID, 1)))?;
        text_centred(page, &percent(sparsity), (x, bottom + 14.0), font(SMALL, INK))?;
    }
    // Methods stand a little beside each other, so that no interval hides another.
    let count = panel.series.len() as f64;
    let apart = (0.5 / count).min(0.14);
    for (i, series) in panel.series.iter().enumerate() {
        let look = look(names, &series.name);
        let aside = apart * (i as f64 - (count - 1.0) / 2.0);
        let column = |sparsity: f64| sparsities.iter().position(|s| (s - sparsity).abs() < 1e-9);
        let points: Vec<_> =
            (series.values().into_iter()).filter_map(|p| Some((column(p.sparsity)? as f64 + aside, p))).collect();
        for pair in points.windows(2) {
            let [from, to] = [pair[0], pair[1]].map(|(x, p)| place(x, p.mean));
            look.line(page, from, to, series.published)?;
        }
        for (x, point) in points {
            if let Some(half) = point.half_width() {
                let low = (point.mean - half).max(range[0]);
                let high = (point.mean + half).min(range[1]);
                whisker(page, pixels(&chart, (x, low), (x, high)), look.color())?;
            }
            look.marker(page, place(x, point.mean), series.published)?;
        }
    }
    Ok(())
}
