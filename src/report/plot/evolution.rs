//! The evolution of the masks in the course of a run.

use plotters::prelude::Rectangle;
use plotters::style::{Color, RGBColor};

use super::chart::{
    Area, Axis, BODY, Drawn, GREY, INK, SMALL, axes, font, page, percent, pixels, stroke, text, text_before, thousands,
    title, width_of,
};
use super::curves::{Legend, Panel, Place, SIDES, STEP_AXIS, draw, thin};

/// What [`evolution`] draws: states at the same steps, at the beginning and after each mask update. Shares are fractions.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Evolution {
    /// Name and densities of each layer, one density a state.
    pub layers: Vec<(String, Vec<f64>)>,
    /// (step, share of the weights that are active).
    pub density: Vec<(f64, f64)>,
    /// (step, share of the weights that have ever been active).
    pub ever_active: Vec<(f64, f64)>,
    /// (step, share of the active weights that were active in the first mask).
    pub first_overlap: Vec<(f64, f64)>,
    /// (step, share of the active weights that were active before the update); none at the beginning.
    pub previous_overlap: Vec<(f64, f64)>,
    /// (step, output channels without an active weight).
    pub dead_channels: Vec<(f64, f64)>,
    /// The run's steps: the last state lasts until then.
    pub end: f64,
}

/// Pixels of the plotting region from left to right.
const WIDTH: i32 = 560;
/// Most changes of colour that a strip shows: more would be narrower than they could be seen.
const MOST_COLUMNS: usize = 280;
/// The colours of the least density and of 100 %: of one hue, so that darker is denser in print too.
const SCALE: [RGBColor; 2] = [RGBColor(226, 238, 247), RGBColor(0, 52, 92)];

/// A strip for each layer, the darker the denser it is at a step, with its last density; below it overlaps with the first and with
/// the previous mask, the share of weights ever active, and dead channels, where there are any. The page grows with the layers.
pub fn evolution(name: &str, data: &Evolution) -> String {
    let names = data.layers.iter().map(|(layer, _)| width_of(layer, SMALL)).fold(150.0, f64::max);
    let sides = [SIDES[0], names.ceil() as i32 + 70];
    let row = if data.layers.len() > 30 { 12 } else { 17 };
    let strips = 60 + row * data.layers.len() as i32;
    let percents =
        |points: &[(f64, f64)]| points.iter().map(|&(step, share)| (step, 100.0 * share)).collect::<Vec<_>>();
    let lasting = |points: Vec<(f64, f64)>| {
        let last = points.last().map(|&(_, value)| (data.end, value));
        thin(&points).into_iter().chain(last).collect::<Vec<_>>()
    };
    let beside = |name, lines, height| Panel { name, lines, height, low: Some(0.0), legend: Legend::Beside };
    let mut panels = vec![
        beside(
            "mask overlap (%)",
            vec![
                ("with the first", lasting(percents(&data.first_overlap))),
                ("with the previous", thin(&percents(&data.previous_overlap))),
            ],
            170,
        ),
        beside(
            "weights (%)",
            vec![("ever active", lasting(percents(&data.ever_active))), ("active", lasting(percents(&data.density)))],
            170,
        ),
    ];
    let dead = data.dead_channels.iter().map(|point| point.1).fold(0.0, f64::max);
    if dead > 0.0 {
        panels.push(beside("dead channels", vec![("", lasting(data.dead_channels.clone()))], 130));
    }
    let height = 74 + strips + panels.iter().map(|panel| panel.height).sum::<i32>() + STEP_AXIS;
    let range = [0.0, data.end.max(1.0)];
    page((sides[0] + WIDTH + sides[1]) as u32, height as u32, |area| {
        title(area, name)?;
        text(area, &caption(data, dead), (16.0, 52.0), font(BODY, INK))?;
        let (_, rest) = area.split_vertically(74);
        let (cell, mut rest) = rest.split_vertically(strips);
        draw_strips(area, &cell, data, range, sides, row)?;
        for (i, panel) in panels.iter().enumerate() {
            let last = i + 1 == panels.len();
            let (cell, below) = rest.split_vertically(panel.height + if last { STEP_AXIS } else { 0 });
            draw(area, &cell, panel, range, Place { first: i == 0, last, sides }, &[])?;
            rest = below;
        }
        Ok(())
    })
}

/// The last state in words.
fn caption(data: &Evolution, dead: f64) -> String {
    let last = |points: &[(f64, f64)]| percent(points.last().map_or(0.0, |point| point.1));
    let channels = match data.dead_channels.last() {
        _ if dead == 0.0 => "no channel ever dead".into(),
        Some(&(_, n)) => format!("dead channels {}", thousands(n as u64)),
        None => String::new(),
    };
    let (first, ever) = (last(&data.first_overlap), last(&data.ever_active));
    format!("at the end: {first} % as in the first mask · {ever} % ever active · {channels}")
}

/// The lower end of the colour scale: the power of ten below the least density, from .0001 to .1.
fn scale_from(layers: &[(String, Vec<f64>)]) -> f64 {
    let densities = layers.iter().flat_map(|(_, densities)| densities).copied();
    let least = densities.filter(|density| *density > 0.0).fold(1.0, f64::min);
    10f64.powf(least.log10().floor().clamp(-4.0, -1.0))
}

/// The colour of a density on a logarithmic scale from `least` to 1.
fn shade(density: f64, least: f64) -> RGBColor {
    let at = (1.0 - density.max(least).log10() / least.log10()).clamp(0.0, 1.0);
    let [pale, dark] = SCALE;
    let mix = |a: u8, b: u8| (f64::from(a) + at * (f64::from(b) - f64::from(a))).round() as u8;
    RGBColor(mix(pale.0, dark.0), mix(pale.1, dark.1), mix(pale.2, dark.2))
}

fn draw_strips(page: &Area, cell: &Area, data: &Evolution, steps: [f64; 2], sides: [i32; 2], row: i32) -> Drawn {
    let least = scale_from(&data.layers);
    let rows = data.layers.len().max(1) as f64;
    let step_tick = |step: &f64| thousands(step.max(0.0) as u64);
    let x = Axis { name: "", range: steps, ticks: 8, label: &step_tick };
    let y = Axis { name: "", range: [rows, 0.0], ticks: 0, label: &|_| String::new() };
    let chart = axes(cell, [sides[0], sides[1], 34, 26], &x, &y)?;
    let [left, top, right, _] = pixels(&chart, (steps[0], 0.0), (steps[1], rows));
    text(page, "density by layer (%)", (left, top - 18.0), font(BODY, INK))?;
    text_before(page, "at the end", (f64::from(page.dim_in_pixel().0) - 16.0, top - 18.0), font(SMALL, GREY))?;
    draw_scale(page, least, (right, top - 18.0))?;
    let group = data.density.len().div_ceil(MOST_COLUMNS).max(1);
    let size = if row < 14 { 10.0 } else { SMALL };
    for (at, (name, densities)) in data.layers.iter().enumerate() {
        let (from, to) = (at as f64, at as f64 + 1.0);
        // The state that a group of states ends with stands for it; equal neighbours are one rectangle.
        let mut columns: Vec<(f64, RGBColor)> = Vec::new();
        for (states, densities) in data.density.chunks(group).zip(densities.chunks(group)) {
            let color = shade(densities.last().copied().unwrap_or(0.0), least);
            if columns.last().is_none_or(|(_, last)| *last != color) {
                columns.push((states[0].0, color));
            }
        }
        // Each goes on to the right end and the next one covers it: edges that met would leave hairlines.
        for (start, color) in columns {
            let [left, top, right, bottom] = pixels(&chart, (start, from), (steps[1], to)).map(|x| x as i32);
            page.draw(&Rectangle::new([(left, top), (right, bottom - 1)], color.filled()))?;
        }
        let middle = top + (from + 0.5) * f64::from(row);
        text(page, name, (right + 10.0, middle), font(size, INK))?;
        let last = densities.last().copied().unwrap_or(0.0);
        let figure = if last < 0.01 { format!("{:.2}", 100.0 * last) } else { percent(last) };
        text_before(page, &figure, (f64::from(page.dim_in_pixel().0) - 16.0, middle), font(size, INK))?;
    }
    Ok(())
}

/// The colour scale, whose right end is at (x, y), with its powers of ten in per cent.
fn draw_scale(page: &Area, least: f64, (x, y): (f64, f64)) -> Drawn {
    const LENGTH: i32 = 120;
    let left = x as i32 - LENGTH - 34;
    for i in 0..LENGTH {
        let density = least.powf(1.0 - f64::from(i) / f64::from(LENGTH));
        let at = [(left + i, y as i32 - 6), (left + LENGTH, y as i32 + 6)];
        page.draw(&Rectangle::new(at, shade(density, least).filled()))?;
    }
    page.draw(&Rectangle::new([(left, y as i32 - 6), (left + LENGTH, y as i32 + 6)], stroke(GREY, 1)))?;
    text_before(page, &format!("{}", 100.0 * least), (f64::from(left) - 6.0, y), font(SMALL, INK))?;
    text(page, "100", (f64::from(left + LENGTH) + 6.0, y), font(SMALL, INK))
}
