//! What the figures of a comparison are drawn from: values of methods at sparsities.

/// A method's value at one sparsity.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Point {
    /// The sparsity as a fraction.
    pub sparsity: f64,
    /// The value in the panel's unit. One that is not finite is not drawn, but its sparsity keeps its place on the axis.
    pub mean: f64,
    /// Half the width of the 95 % interval, mean - half width to mean + half width, in the panel's unit.
    pub half_width: Option<f64>,
}

/// A method's values at some sparsities.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Series {
    /// The method's name. Series of one name look alike in all panels.
    pub name: String,
    /// The values, in any order.
    pub points: Vec<Point>,
    /// Whether these are the paper's values rather than measured ones: drawn hollow and dashed, and named so.
    pub published: bool,
}

/// One quantity: the values of all methods on one axis.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Panel {
    /// Quantity and unit: the axis's name, such as `accuracy (%)`.
    pub name: String,
    /// The methods.
    pub series: Vec<Series>,
}

impl Series {
    /// The finite values, by rising sparsity.
    pub(super) fn values(&self) -> Vec<Point> {
        let mut points: Vec<Point> = self.points.iter().copied().filter(|p| p.mean.is_finite()).collect();
        points.sort_by(|a, b| a.sparsity.total_cmp(&b.sparsity));
        points
    }

    /// The value at a sparsity, if it is finite.
    pub(super) fn at(&self, sparsity: f64) -> Option<Point> {
        self.points.iter().copied().find(|point| point.mean.is_finite() && same(point.sparsity, sparsity))
    }

    /// What the legend says.
    pub(super) fn label(&self) -> String {
        if self.published { format!("{}, paper", self.name) } else { self.name.clone() }
    }
}

impl Point {
    /// Half the interval's width, if it is finite.
    pub(super) fn half_width(&self) -> Option<f64> {
        self.half_width.filter(|half| half.is_finite())
    }
}

impl Panel {
    /// Whether the values are accuracies, whose axis need not start at 0.
    fn is_accuracy(&self) -> bool {
        self.name.to_lowercase().starts_with("accuracy")
    }

    /// The ends of the axis: from 0, so that lengths compare, but for accuracies that lie close together.
    pub(super) fn range(&self) -> [f64; 2] {
        let points: Vec<Point> = self.series.iter().flat_map(Series::values).collect();
        let extent = |values: &mut dyn Iterator<Item = f64>| {
            values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)))
        };
        let (least, most) = extent(&mut points.iter().map(|point| point.mean));
        if least > most {
            return [0.0, 1.0];
        }
        let half = |point: &Point| point.half_width().unwrap_or(0.0);
        let (low, high) = extent(&mut points.iter().flat_map(|p| [p.mean - half(p), p.mean + half(p)]));
        let bottom = match low {
            _ if self.is_accuracy() && low > high / 3.0 => {
                let step = round_step((high - low) / 4.0);
                (1e6 * ((low - 0.1 * (high - low)) / step).floor() * step).round() / 1e6
            }
            // Where no value is negative no interval is shown to be.
            _ if least >= 0.0 => 0.0,
            _ => low - 0.05 * (high - low),
        };
        let top = high + 0.08 * (high - bottom).max(1e-3);
        // No accuracy is above 100 %.
        let limit = if self.is_accuracy() && most <= 100.0 { 100.0 } else { f64::INFINITY };
        [bottom, top.min(limit).max(bottom + 1e-3)]
    }

    /// The axis's name, which says where the axis starts if that is not 0.
    pub(super) fn axis_name(&self) -> String {
        let [bottom, _] = self.range();
        if bottom > 0.0 { format!("{}, axis from {bottom}", self.name) } else { self.name.clone() }
    }
}

/// The distinct sparsities of all series, rising.
pub(super) fn sparsities<'a>(panels: impl IntoIterator<Item = &'a Panel>) -> Vec<f64> {
    let points = panels.into_iter().flat_map(|panel| &panel.series).flat_map(|series| &series.points);
    let mut all: Vec<f64> = points.map(|point| point.sparsity).filter(|sparsity| sparsity.is_finite()).collect();
    all.sort_by(f64::total_cmp);
    all.dedup_by(|a, b| same(*a, *b));
    all
}

/// The distinct names of all series, in the order in which they come.
pub(super) fn names(panels: &[Panel]) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for series in panels.iter().flat_map(|panel| &panel.series) {
        if !names.contains(&series.name.as_str()) {
            names.push(&series.name);
        }
    }
    names
}

/// The least of 1, 2, 2.5 and 5 times a power of ten that is not below `step`.
pub(super) fn round_step(step: f64) -> f64 {
    let step = if step.is_finite() { step.max(1e-9) } else { 1.0 };
    let power = 10f64.powf(step.log10().floor());
    // A hair more, for step / power may be just above the number that it is.
    [1.0, 2.0, 2.5, 5.0].into_iter().find(|&m| m * (1.0 + 1e-9) >= step / power).unwrap_or(10.0) * power
}

/// 1 - density is not always the sparsity that was typed.
fn same(a: f64, b: f64) -> bool {
    (a - b).abs() < 1e-9
}

#[cfg(test)]
mod tests {
    use super::*;

    fn panel(name: &str, means: &[f64]) -> Panel {
        let points = means.iter().enumerate();
        let points = points.map(|(i, &mean)| Point { sparsity: 0.1 * i as f64, mean, half_width: None }).collect();
        Panel { name: name.into(), series: vec![Series { name: "CigL".into(), points, published: false }] }
    }

    #[test]
    fn only_the_axis_of_close_accuracies_leaves_0_and_says_so() {
        let close = panel("accuracy (%)", &[91.3, 94.8]);
        assert!(close.range()[0] > 85.0 && close.range()[0] < 91.3, "{:?}", close.range());
        assert_eq!(close.axis_name(), format!("accuracy (%), axis from {}", close.range()[0]));
        for from_0 in [panel("accuracy (%)", &[20.0, 94.0]), panel("ECE (%)", &[5.0, 5.5])] {
            assert_eq!((from_0.range()[0], from_0.axis_name()), (0.0, from_0.name.clone()));
        }
    }

    #[test]
    fn a_range_holds_the_intervals_and_ignores_what_is_not_finite() {
        let mut panel = panel("ECE (%)", &[1.0, f64::NAN, f64::INFINITY, 3.0]);
        panel.series[0].points[3].half_width = Some(2.0);
        let [low, high] = panel.range();
        assert!(low == 0.0 && high > 5.0 && high < 6.0, "{low} to {high}");
        assert_eq!(super::sparsities([&panel]).len(), 4);
    }

    #[test]
    fn intervals_end_where_their_quantity_does() {
        let mut ece = panel("ECE (%)", &[0.5]);
        ece.series[0].points[0].half_width = Some(2.0);
        assert_eq!(ece.range()[0], 0.0);
        let mut accuracy = panel("accuracy (%)", &[98.0, 99.0]);
        accuracy.series[0].points[1].half_width = Some(2.5);
        assert_eq!(accuracy.range()[1], 100.0);
    }

    #[test]
    fn steps_are_rounded_up_to_1_2_2_5_or_5() {
        for (step, expected) in [(0.3, 0.5), (1.0, 1.0), (1.1, 2.0), (2.2, 2.5), (7.0, 10.0), (0.02, 0.02)] {
            assert!((round_step(step) - expected).abs() < 1e-9, "{step} became {}", round_step(step));
        }
    }
}
