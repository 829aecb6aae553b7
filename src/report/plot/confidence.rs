//! The confidence histogram.

use super::chart::{
    Axis, BLUE, BODY, INK, VERMILION, axes, block, dashed_swatch, dashes, font, hatch, legend, page, percent, pixels,
    stroke, swatch, text, thousands, title,
};
use crate::calibration::{Bin, Evaluation};

/// How confident the right and the wrong predictions are: share of all samples by confidence bin, right ones filled and
/// wrong ones hatched, with accuracy and mean confidence as lines. The further apart these two are, the worse calibrated.
pub fn confidence(name: &str, evaluation: &Evaluation) -> String {
    page(640, 440, |area| {
        let (metrics, reliability) = (&evaluation.metrics, &evaluation.reliability);
        let mean = reliability.mean_confidence();
        title(area, name)?;
        let words = format!(
            "accuracy {} % · mean confidence {} % · n = {}",
            percent(metrics.accuracy),
            percent(mean),
            thousands(metrics.n)
        );
        text(area, &words, (16.0, 50.0), font(BODY, INK))?;

        let share = |n: u64| 100.0 * n as f64 / reliability.n.max(1) as f64;
        let tallest = |bin: &Bin| share(bin.correct().max(bin.n - bin.correct()));
        let most = reliability.bins.iter().map(tallest).fold(1.0, f64::max);
        let (x_tick, y_tick) = (|value: &f64| format!("{value:.1}"), |value: &f64| format!("{value:.0}"));
        let x = Axis { name: "confidence", range: [0.0, 1.0], ticks: 11, label: &x_tick };
        let y = Axis { name: "samples (%)", range: [0.0, most * 1.08], ticks: 6, label: &y_tick };
        let chart = axes(area, [64, 20, 100, 48], &x, &y)?;
        for bin in &reliability.bins {
            let (middle, air) = ((bin.lo + bin.hi) / 2.0, (bin.hi - bin.lo) * 0.08);
            let correct = bin.correct();
            if correct > 0 {
                block(area, pixels(&chart, (bin.lo + air, 0.0), (middle, share(correct))), BLUE, BLUE)?;
            }
            if bin.n > correct {
                let bar = pixels(&chart, (middle, 0.0), (bin.hi - air, share(bin.n - correct)));
                hatch(area, bar, VERMILION, true)?;
            }
        }

        let at = |column: f64| (16.0 + 105.0 * column, 78.0);
        block(area, swatch(at(0.0)), BLUE, BLUE)?;
        hatch(area, swatch(at(1.0)), VERMILION, true)?;
        for (column, value, pattern) in [(2.0, metrics.accuracy, [9.0, 4.0]), (3.0, mean, [2.0, 4.0])] {
            let [line, top, _, bottom] = pixels(&chart, (value, 0.0), (value, most * 1.08));
            dashes(area, (line, bottom), (line, top), stroke(INK, 2), pattern)?;
            dashed_swatch(area, at(column), stroke(INK, 2), pattern)?;
        }
        for (column, words) in ["right", "wrong", "accuracy", "mean confidence"].into_iter().enumerate() {
            legend(area, words, at(column as f64))?;
        }
        Ok(())
    })
}
