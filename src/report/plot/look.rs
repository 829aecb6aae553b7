//! How methods look in figures that compare them: each has a colour, a marker, dashes and a hatching of its own, so that they are
//! told apart without colour; and the legend that names them.

use plotters::prelude::{Circle, PathElement, Polygon};
use plotters::style::{Color, RGBColor, ShapeStyle};

use super::chart::{
    Area, BLUE, Drawn, GREEN, INK, ORANGE, PAPER, PURPLE, Pixels, SKY, SMALL, SWATCH, VERMILION, block, dashed_swatch,
    dashes, hatch, legend, page, rows_and_columns, stroke, swatch, title, width_of,
};
use super::panel::{Panel, names};

const COLORS: [RGBColor; 7] = [VERMILION, BLUE, GREEN, PURPLE, INK, ORANGE, SKY];
/// Radius of a marker in pixels.
const RADIUS: f64 = 5.0;
/// Dashes of what is published.
const PUBLISHED: [f64; 2] = [6.0, 4.0];
/// Height of a legend's row in pixels.
const ROW: f64 = 21.0;

/// How one method looks: the `index`th of a figure.
#[derive(Clone, Copy)]
pub(super) struct Look {
    index: usize,
}

impl Look {
    /// The look of the method at this place of the figure's list.
    pub(super) fn new(index: usize) -> Self {
        Look { index }
    }

    /// Its colour.
    pub(super) fn color(self) -> RGBColor {
        COLORS[self.index % COLORS.len()]
    }

    /// A line between two points: solid, or dashed for what is published.
    pub(super) fn line(self, page: &Area, from: (f64, f64), to: (f64, f64), published: bool) -> Drawn {
        dashes(page, from, to, stroke(self.color(), 2), if published { PUBLISHED } else { SOLID })
    }

    /// A marker at a pixel: filled, or hollow for what is published.
    pub(super) fn marker(self, page: &Area, (x, y): (f64, f64), published: bool) -> Drawn {
        let fill = if published { PAPER } else { self.color() }.filled();
        let outline = stroke(self.color(), 2);
        let unit: &[(f64, f64)] = match self.index % 6 {
            0 => {
                let centre = (x.round() as i32, y.round() as i32);
                page.draw(&Circle::new(centre, RADIUS, fill))?;
                return page.draw(&Circle::new(centre, RADIUS, outline));
            }
            1 => &[(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)],
            2 => &[(0.0, -1.2), (1.15, 0.9), (-1.15, 0.9)],
            3 => &[(0.0, -1.3), (1.3, 0.0), (0.0, 1.3), (-1.3, 0.0)],
            4 => &[(0.0, 1.2), (1.15, -0.9), (-1.15, -0.9)],
            _ => &[
                (-0.4, -1.2),
                (0.4, -1.2),
                (0.4, -0.4),
                (1.2, -0.4),
                (1.2, 0.4),
                (0.4, 0.4),
                (0.4, 1.2),
                (-0.4, 1.2),
                (-0.4, 0.4),
                (-1.2, 0.4),
                (-1.2, -0.4),
                (-0.4, -0.4),
            ],
        };
        let place = |&(dx, dy): &(f64, f64)| ((x + RADIUS * dx).round() as i32, (y + RADIUS * dy).round() as i32);
        let corners: Vec<(i32, i32)> = unit.iter().chain(&unit[..1]).map(place).collect();
        page.draw(&Polygon::new(corners.clone(), fill))?;
        page.draw(&PathElement::new(corners, outline))
    }

    /// A bar: filled for the first methods' colours, then hatched in five ways.
    pub(super) fn bar(self, page: &Area, pixels: Pixels) -> Drawn {
        let color = self.color();
        let [left, top, right, bottom] = pixels;
        let kind = self.index % 6;
        block(page, pixels, if kind == 0 { color } else { PAPER }, color)?;
        if kind == 1 || kind == 3 {
            hatch(page, pixels, color, true)?;
        }
        if kind == 2 || kind == 3 {
            hatch(page, pixels, color, false)?;
        }
        // Level lines and upright ones, aligned over all bars.
        let thin: ShapeStyle = stroke(color, 1);
        let every = |from: f64, to: f64| {
            (0..).map(move |i| ((from / 4.0).floor() + 1.0 + f64::from(i)) * 4.0).take_while(move |at| *at < to)
        };
        if kind == 4 {
            for y in every(top, bottom) {
                page.draw(&PathElement::new([(left as i32, y as i32), (right as i32, y as i32)], thin))?;
            }
        }
        if kind == 5 {
            for x in every(left, right) {
                page.draw(&PathElement::new([(x as i32, top as i32), (x as i32, bottom as i32)], thin))?;
            }
        }
        page.draw(&PathElement::new(
            [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]
                .map(|(x, y)| (x as i32, y as i32)),
            stroke(color, 1),
        ))
    }
}

/// One unbroken dash.
const SOLID: [f64; 2] = [1e9, 1.0];

/// What a legend's sample shows.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Sample {
    /// A line with a marker.
    Line,
    /// A bar, or a marker alone for what is published.
    Bar,
}

/// The legend of a figure: every method once as measured and once as published, where there are such.
pub(super) struct Legend {
    entries: Vec<(String, Look, bool)>,
    /// Left end and row of each.
    places: Vec<(f64, usize)>,
}

impl Legend {
    /// The legend of all series of `panels`, named in the order of `names`, in rows of at most `width` pixels.
    pub(super) fn new(panels: &[Panel], names: &[&str], width: f64) -> Self {
        let mut entries: Vec<(String, Look, bool)> = Vec::new();
        for series in panels.iter().flat_map(|panel| &panel.series) {
            let label = series.label();
            if entries.iter().all(|(known, ..)| *known != label) {
                entries.push((label, look(names, &series.name), series.published));
            }
        }
        let (mut x, mut row) = (MARGIN, 0);
        let mut places = Vec::new();
        for (label, ..) in &entries {
            let wide = SWATCH + 8.0 + width_of(label, SMALL) + 18.0;
            if x > MARGIN && x + wide > width {
                (x, row) = (MARGIN, row + 1);
            }
            places.push((x, row));
            x += wide;
        }
        Legend { entries, places }
    }

    /// Its height in pixels.
    pub(super) fn height(&self) -> f64 {
        self.places.last().map_or(0.0, |(_, row)| ROW * (*row + 1) as f64)
    }

    /// Draws it with its first row at `top`.
    pub(super) fn draw(&self, page: &Area, top: f64, sample: Sample) -> Drawn {
        for ((label, look, published), (x, row)) in self.entries.iter().zip(&self.places) {
            let at = (*x, top + ROW * (*row as f64 + 0.5));
            match (sample, published) {
                (Sample::Line, _) => {
                    let pattern = if *published { PUBLISHED } else { SOLID };
                    dashed_swatch(page, at, stroke(look.color(), 2), pattern)?;
                    look.marker(page, (at.0 + SWATCH / 2.0, at.1), *published)?;
                }
                (Sample::Bar, false) => look.bar(page, swatch(at))?,
                (Sample::Bar, true) => look.marker(page, (at.0 + SWATCH / 2.0, at.1), true)?,
            }
            legend(page, label, at)?;
        }
        Ok(())
    }
}

/// The left margin of titles and legends.
const MARGIN: f64 = 16.0;

/// The look of the method called `name`.
pub(super) fn look(names: &[&str], name: &str) -> Look {
    Look::new(names.iter().position(|known| *known == name).unwrap_or(0))
}

/// A page with the legend of all panels on top and a cell of `width` x `height` pixels for each, drawn by `draw` on (page, cell).
pub(super) fn grid(
    name: &str,
    panels: &[Panel],
    sample: Sample,
    [width, height]: [u32; 2],
    draw: impl Fn(&Area, &Area, &Panel) -> Drawn,
) -> String {
    let (rows, columns) = rows_and_columns(panels.len(), width);
    let legend = Legend::new(panels, &names(panels), f64::from(columns * width));
    let header = 44 + legend.height() as u32 + 8;
    page(columns * width, header + rows * height, |area| {
        title(area, name)?;
        legend.draw(area, 44.0, sample)?;
        let (_, rest) = area.split_vertically(header as i32);
        let cells = rest.split_evenly((rows as usize, columns as usize));
        panels.iter().zip(&cells).try_for_each(|(panel, cell)| draw(area, cell, panel))
    })
}
