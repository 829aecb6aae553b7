//! The radar of the paper's Fig. 4.

use plotters::prelude::{Circle, PathElement};

use super::bars::bars;
use super::chart::{
    BODY, GREY, GRID, INK, PAPER, SMALL, block, font, page, stroke, text, text_before, text_centred, title, width_of,
};
use super::look::{Legend, Sample, look};
use super::panel::{Panel, names, round_step, sparsities};
use crate::report::summary::percent;

const WIDTH: u32 = 560;
const RADIUS: f64 = 170.0;

/// A polygon a method and a spoke a sparsity: the nearer to the centre, which is 0, the smaller. Intervals are left out. A value that is
/// missing leaves the polygon open. Fewer than three spokes make no polygon: they become [`bars`].
pub fn radar(name: &str, panel: &Panel) -> String {
    let panels = std::slice::from_ref(panel);
    let (spokes, names) = (sparsities(panels), names(panels));
    if spokes.len() < 3 {
        return bars(name, panels);
    }
    let legend = Legend::new(panels, &names, f64::from(WIDTH));
    let top = 72.0 + legend.height();
    let centre = (f64::from(WIDTH) / 2.0, top + 34.0 + RADIUS);
    let values = || panel.series.iter().flat_map(|series| series.values()).map(|point| point.mean);
    let ring = round_step(values().fold(0.0, f64::max).max(1e-6) / 4.0);
    let rings = (values().fold(0.0, f64::max) / ring - 1e-9).ceil().max(1.0) as usize;
    let place = |spoke: usize, value: f64| {
        let angle = std::f64::consts::TAU * spoke as f64 / spokes.len() as f64;
        let distance = RADIUS * value.max(0.0) / (ring * rings as f64);
        (centre.0 + distance * angle.sin(), centre.1 - distance * angle.cos())
    };
    let pixel = |(x, y): (f64, f64)| (x.round() as i32, y.round() as i32);
    page(WIDTH, (centre.1 + RADIUS + 40.0) as u32, |area| {
        title(area, name)?;
        text(area, &format!("distance from the centre: {}", panel.name), (16.0, 50.0), font(BODY, INK))?;
        legend.draw(area, 66.0, Sample::Line)?;
        for i in 1..=rings {
            let distance = (RADIUS * i as f64 / rings as f64).round();
            area.draw(&Circle::new(pixel(centre), distance, stroke(GRID, 1)))?;
        }
        for (spoke, &sparsity) in spokes.iter().enumerate() {
            let end = place(spoke, ring * rings as f64);
            area.draw(&PathElement::new([pixel(centre), pixel(end)], stroke(GRID, 1)))?;
            let (dx, dy) = ((end.0 - centre.0) / RADIUS, (end.1 - centre.1) / RADIUS);
            let words = format!("{} %", percent(sparsity));
            let style = font(BODY, INK);
            match dx {
                _ if dx.abs() < 0.2 => text_centred(area, &words, (end.0, end.1 + 16.0 * dy), style)?,
                _ if dx > 0.0 => text(area, &words, (end.0 + 10.0, end.1 + 8.0 * dy), style)?,
                _ => text_before(area, &words, (end.0 - 10.0, end.1 + 8.0 * dy), style)?,
            }
        }
        // Beside the upright spoke, under what is measured.
        for i in 1..=rings {
            let words = percent(ring * i as f64 / 100.0);
            let (x, y) = place(0, ring * i as f64);
            let (x, y, wide) = (x - 10.0, y, width_of(&words, SMALL));
            block(area, [x - wide, y - 7.0, x + 2.0, y + 7.0], PAPER, PAPER)?;
            text_before(area, &words, (x, y), font(SMALL, GREY))?;
        }
        for series in &panel.series {
            let look = look(&names, &series.name);
            let at: Vec<Option<(f64, f64)>> = (spokes.iter().enumerate())
                .map(|(spoke, &sparsity)| Some(place(spoke, series.at(sparsity)?.mean)))
                .collect();
            for (i, from) in at.iter().enumerate() {
                if let (Some(from), Some(to)) = (from, at[(i + 1) % at.len()]) {
                    look.line(area, *from, to, series.published)?;
                }
            }
            at.into_iter().flatten().try_for_each(|at| look.marker(area, at, series.published))?;
        }
        Ok(())
    })
}
