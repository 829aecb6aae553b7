//! What all plots share: the page, the palette, text, axes and hatching.

use plotters::backend::SVGBackend;
use plotters::chart::{ChartBuilder, ChartContext};
use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::{Cartesian2d, DrawingArea, DrawingAreaErrorKind, IntoDrawingArea, PathElement, Rectangle};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color, FontFamily, FontStyle, IntoFont, RGBColor, ShapeStyle, TextStyle};

/// A region of the page.
pub(super) type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
/// Axes drawn on a region.
pub(super) type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;
/// The outcome of a drawing step; drawing into a string has no I/O that could fail.
pub(super) type Drawn<T = ()> = Result<T, DrawingAreaErrorKind<std::io::Error>>;

// Okabe and Ito's palette: told apart with any colour vision, and of different lightness in print.
pub(super) const BLUE: RGBColor = RGBColor(0, 114, 178);
pub(super) const PALE_BLUE: RGBColor = RGBColor(155, 200, 228);
pub(super) const VERMILION: RGBColor = RGBColor(196, 78, 0);
pub(super) const GREEN: RGBColor = RGBColor(0, 134, 98);
pub(super) const PURPLE: RGBColor = RGBColor(183, 90, 145);
pub(super) const ORANGE: RGBColor = RGBColor(214, 142, 0);
pub(super) const SKY: RGBColor = RGBColor(60, 160, 215);
pub(super) const INK: RGBColor = RGBColor(34, 34, 34);
pub(super) const GREY: RGBColor = RGBColor(110, 110, 110);
pub(super) const GRID: RGBColor = RGBColor(226, 226, 226);
pub(super) const PAPER: RGBColor = RGBColor(255, 255, 255);

/// Font sizes in pixels.
pub(super) const TITLE: f64 = 18.0;
pub(super) const BODY: f64 = 14.0;
pub(super) const SMALL: f64 = 12.0;

/// Width of a legend's sample in pixels.
pub(super) const SWATCH: f64 = 26.0;

/// The embedded font first, then fonts of about its width.
const FAMILY: FontFamily = FontFamily::Name("DejaVu Sans, Verdana, sans-serif");
/// plotters writes a size divided by this into the SVG.
const PLOTTERS_EM: f64 = 1.24;
/// Mean advance of DejaVu Sans in em, rounded up: for reserving room, never for exact layout.
const ADVANCE: f64 = 0.62;

/// A page of `width` x `height` pixels, drawn by `draw`.
pub(super) fn page(width: u32, height: u32, draw: impl FnOnce(&Area) -> Drawn) -> String {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (width, height)).into_drawing_area();
        root.fill(&PAPER)
            .and_then(|()| draw(&root))
            .and_then(|()| root.present())
            .expect("an SVG is drawn into a string, which has no I/O that could fail");
    }
    svg
}

/// A text style of `size` pixels.
pub(super) fn font(size: f64, color: RGBColor) -> TextStyle<'static> {
    TextStyle { color: color.to_backend_color(), ..TextStyle::from((FAMILY, size * PLOTTERS_EM).into_font()) }
}

/// About how many pixels `text` is wide.
pub(super) fn width_of(text: &str, size: f64) -> f64 {
    text.chars().count() as f64 * ADVANCE * size
}

/// Writes `text` with its left end, vertically centred, at pixel (x, y) of `area`.
pub(super) fn text(area: &Area, text: &str, at: (f64, f64), style: TextStyle) -> Drawn {
    area.draw_text(text, &style.pos(Pos::new(HPos::Left, VPos::Center)), (at.0 as i32, at.1 as i32))
}

/// As [`text`], with its right end at (x, y).
pub(super) fn text_before(area: &Area, text: &str, at: (f64, f64), style: TextStyle) -> Drawn {
    area.draw_text(text, &style.pos(Pos::new(HPos::Right, VPos::Center)), (at.0 as i32, at.1 as i32))
}

/// As [`text`], with its middle at (x, y).
pub(super) fn text_centred(area: &Area, text: &str, at: (f64, f64), style: TextStyle) -> Drawn {
    area.draw_text(text, &style.pos(Pos::new(HPos::Center, VPos::Center)), (at.0 as i32, at.1 as i32))
}

/// The bold headline at the top of `area`.
pub(super) fn title(area: &Area, words: &str) -> Drawn {
    // A name that is too long shrinks rather than being cut.
    let (width, _) = area.dim_in_pixel();
    let size = TITLE.min(TITLE * (f64::from(width) - 32.0) / width_of(words, TITLE).max(1.0) / 1.12);
    let style = (FAMILY, size.max(8.0) * PLOTTERS_EM).into_font().style(FontStyle::Bold);
    text(area, words, (16.0, 24.0), TextStyle::from(style).color(&INK))
}

/// How an axis looks.
pub(super) struct Axis<'a> {
    /// Quantity and unit; empty for none.
    pub(super) name: &'a str,
    /// The values at both ends.
    pub(super) range: [f64; 2],
    /// About how many ticks.
    pub(super) ticks: usize,
    /// A tick's label.
    pub(super) label: &'a dyn Fn(&f64) -> String,
}

/// Pixels around the plotting region: left, right, top, bottom. Labels lie in the left and bottom ones.
pub(super) type Margins = [i32; 4];

/// Draws axes with a light grid on `area`.
pub(super) fn axes<'a, 'b>(area: &'a Area<'b>, margins: Margins, x: &Axis, y: &Axis) -> Drawn<Chart<'a, 'b>> {
    let [left, right, top, bottom] = margins;
    let mut chart = ChartBuilder::on(area)
        .margin_left(8)
        .margin_right(right)
        .margin_top(top)
        .margin_bottom(4)
        .y_label_area_size(left - 8)
        .x_label_area_size(bottom - 4)
        .build_cartesian_2d(x.range[0]..x.range[1], y.range[0]..y.range[1])?;
    chart
        .configure_mesh()
        .light_line_style(PAPER.mix(0.0))
        .bold_line_style(GRID)
        .axis_style(INK)
        .x_labels(x.ticks)
        .y_labels(y.ticks)
        .x_label_formatter(x.label)
        .y_label_formatter(y.label)
        .label_style(font(SMALL, INK))
        .axis_desc_style(font(BODY, INK))
        .x_desc(x.name)
        .y_desc(y.name)
        .draw()?;
    Ok(chart)
}

/// A line of `color`, `width` pixels wide.
pub(super) fn stroke(color: RGBColor, width: u32) -> ShapeStyle {
    ShapeStyle { color: color.to_rgba(), filled: false, stroke_width: width }
}

/// A pixel rectangle: left, top, right, bottom.
pub(super) type Pixels = [f64; 4];

/// The pixels, on the page, of a rectangle in a chart's coordinates.
pub(super) fn pixels(chart: &Chart, (x0, y0): (f64, f64), (x1, y1): (f64, f64)) -> Pixels {
    let (a, b) = (chart.backend_coord(&(x0, y0)), chart.backend_coord(&(x1, y1)));
    [a.0.min(b.0), a.1.min(b.1), a.0.max(b.0), a.1.max(b.1)].map(f64::from)
}

/// A filled and outlined rectangle on the page.
pub(super) fn block(page: &Area, [left, top, right, bottom]: Pixels, fill: RGBColor, outline: RGBColor) -> Drawn {
    let corners = [(left as i32, top as i32), (right as i32, bottom as i32)];
    page.draw(&Rectangle::new(corners, fill.filled()))?;
    page.draw(&Rectangle::new(corners, stroke(outline, 1)))
}

/// A hatched and outlined rectangle on the page: rising lines, or falling ones.
pub(super) fn hatch(page: &Area, [left, top, right, bottom]: Pixels, color: RGBColor, rising: bool) -> Drawn {
    const SPACING: f64 = 6.0;
    // Lines x + y = c (rising to the right, since y points down) or x - y = c, aligned over all rectangles.
    let (low, high) = if rising { (left + top, right + bottom) } else { (left - bottom, right - top) };
    let mut c = (low / SPACING).ceil() * SPACING;
    while c < high {
        let ends = if rising {
            let (x0, x1) = ((c - bottom).max(left), (c - top).min(right));
            [(x0, c - x0), (x1, c - x1)]
        } else {
            let (x0, x1) = ((c + top).max(left), (c + bottom).min(right));
            [(x0, x0 - c), (x1, x1 - c)]
        };
        page.draw(&PathElement::new(ends.map(|(x, y)| (x as i32, y as i32)), stroke(color, 1)))?;
        c += SPACING;
    }
    page.draw(&Rectangle::new([(left as i32, top as i32), (right as i32, bottom as i32)], stroke(color, 1)))
}

/// A vertical bar with caps in the middle of the rectangle.
pub(super) fn whisker(page: &Area, [left, top, right, bottom]: Pixels, color: RGBColor) -> Drawn {
    let (middle, cap) = ((left + right) / 2.0, 3.0);
    for [from, to] in [
        [(middle, top), (middle, bottom)],
        [(middle - cap, top), (middle + cap, top)],
        [(middle - cap, bottom), (middle + cap, bottom)],
    ] {
        let ends = [from, to].map(|(x, y)| (x.round() as i32, y.round() as i32));
        page.draw(&PathElement::new(ends, stroke(color, 1)))?;
    }
    Ok(())
}

/// A dashed straight line on the page, drawn dash by dash because plotters' SVG has no dash pattern.
pub(super) fn dashes(page: &Area, from: (f64, f64), to: (f64, f64), style: ShapeStyle, [on, off]: [f64; 2]) -> Drawn {
    let (dx, dy) = (to.0 - from.0, to.1 - from.1);
    let length = dx.hypot(dy);
    let at = |s: f64| ((from.0 + dx * s / length).round() as i32, (from.1 + dy * s / length).round() as i32);
    let mut start = 0.0;
    while start < length {
        page.draw(&PathElement::new([at(start), at((start + on).min(length))], style))?;
        start += on + off;
    }
    Ok(())
}

/// The rectangle of a legend's sample whose left end is at (x, y).
pub(super) fn swatch((x, y): (f64, f64)) -> Pixels {
    [x, y - 6.0, x + SWATCH, y + 6.0]
}

/// A dashed line as a legend's sample.
pub(super) fn dashed_swatch(page: &Area, (x, y): (f64, f64), style: ShapeStyle, pattern: [f64; 2]) -> Drawn {
    dashes(page, (x, y), (x + SWATCH, y), style, pattern)
}

/// The words beside a legend's sample at (x, y).
pub(super) fn legend(page: &Area, words: &str, (x, y): (f64, f64)) -> Drawn {
    text(page, words, (x + SWATCH + 8.0, y), font(SMALL, INK))
}

/// Decimals of the ticks of an axis that is so long.
pub(super) fn decimals(span: f64) -> usize {
    match span {
        s if s < 0.05 => 3,
        s if s < 0.5 => 2,
        s if s < 10.0 => 1,
        _ => 0,
    }
}

/// Rows and columns of `panels` that are so many pixels wide: side by side as long as that stays legible on a printed page.
pub(super) fn rows_and_columns(panels: usize, width: u32) -> (u32, u32) {
    let panels = panels.max(1) as u32;
    if panels * width <= 1200 { (1, panels) } else { (panels, 1) }
}

/// 83.4 for .834.
pub(super) fn percent(fraction: f64) -> String {
    format!("{:.1}", 100.0 * fraction)
}

/// 12,345,678.
pub(super) fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut grouped = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_grouped() {
        let cases = [(0, "0"), (999, "999"), (1_000, "1,000"), (12_345_678, "12,345,678")];
        for (n, expected) in cases {
            assert_eq!(thousands(n), expected);
        }
    }
}
