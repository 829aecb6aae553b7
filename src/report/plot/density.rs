//! Density by layer.

use super::chart::{
    Axis, BLUE, INK, PALE_BLUE, SMALL, axes, block, dashed_swatch, dashes, font, legend, page, percent, pixels, stroke,
    text, text_before, title, width_of,
};

const ROW: f64 = 19.0;

/// Horizontal bars of the density (fraction of weights that are active) of each layer, first layer on top, with the density
/// of all of them together as a dashed line. The page grows with the number of layers.
pub fn density(name: &str, layers: &[(String, f64)], overall: f64) -> String {
    let widest = layers.iter().map(|(layer, _)| width_of(layer, SMALL)).fold(80.0, f64::max);
    let left = widest.ceil() as i32 + 28;
    let (rows, top) = (layers.len().max(1) as f64, 68);
    let height = f64::from(top) + rows * ROW + 52.0;
    page(left as u32 + 460, height as u32, |area| {
        title(area, name)?;
        dashed_swatch(area, (16.0, 50.0), stroke(INK, 2), [6.0, 4.0])?;
        legend(area, &format!("all layers together: {} %", percent(overall)), (16.0, 50.0))?;
        let tick = |value: &f64| format!("{value:.0}");
        let x = Axis { name: "density (%)", range: [0.0, 100.0], ticks: 6, label: &tick };
        let y = Axis { name: "", range: [rows, 0.0], ticks: 0, label: &|_| String::new() };
        let chart = axes(area, [left, 60, top, 48], &x, &y)?;
        let [line, top, _, bottom] = pixels(&chart, (100.0 * overall, 0.0), (100.0 * overall, rows));
        for (row, (layer, density)) in layers.iter().enumerate().filter(|(_, layer)| layer.1.is_finite()) {
            let (from, to) = (row as f64 + 0.14, row as f64 + 0.86);
            let bar = pixels(&chart, (0.0, from), (100.0 * density, to));
            block(area, bar, PALE_BLUE, BLUE)?;
            let middle = (bar[1] + bar[3]) / 2.0;
            text_before(area, layer, (bar[0] - 8.0, middle), font(SMALL, INK))?;
            // The figure stands beside its bar, or past the dashed line that would cross it.
            let (value, beside) = (percent(*density), bar[2] + 6.0);
            let crossed = beside < line + 6.0 && line < beside + width_of(&value, SMALL) + 3.0;
            text(area, &value, (if crossed { line + 6.0 } else { beside }, middle), font(SMALL, INK))?;
        }
        dashes(area, (line, top), (line, bottom), stroke(INK, 2), [6.0, 4.0])
    })
}
