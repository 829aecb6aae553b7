//! A map of one probability: the hit rates of bins, or an isotonic curve.

use serde::{Deserialize, Serialize};

use crate::calibration::Bins;

/// A map from [0, 1] to [0, 1].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Curve {
    /// The hit rate of each equal-width bin (lo, hi]; where no sample was, a probability stays what it is.
    Bins(Vec<Option<f64>>),
    /// Points (p, value) in rising order of p: straight lines between them, level beyond the ends, as scikit-learn's
    /// `IsotonicRegression(out_of_bounds="clip")` has it.
    Points(Vec<(f64, f64)>),
}

impl Curve {
    /// Histogram binning of (probability, hit).
    pub(super) fn histogram(pairs: Vec<(f64, bool)>, bins: Bins) -> Self {
        let mut tallies = vec![(0u64, 0u64); bins.count];
        for (p, hit) in pairs {
            let (n, hits) = &mut tallies[bins.index(p as f32)];
            *n += 1;
            *hits += u64::from(hit);
        }
        Curve::Bins(tallies.into_iter().map(|(n, hits)| (n > 0).then(|| hits as f64 / n as f64)).collect())
    }

    /// Isotonic regression of (probability, hit), at least one: the rising values with the least squared error, by pooling
    /// adjacent violators (Ayer et al. 1955). Equal probabilities are pooled first.
    pub(super) fn isotonic(mut pairs: Vec<(f64, bool)>) -> Self {
        pairs.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
        let mut blocks: Vec<Block> = Vec::new();
        for tied in pairs.chunk_by(|a, b| a.0 == b.0) {
            let hits = tied.iter().filter(|pair| pair.1).count() as u64;
            let mut block = Block { from: tied[0].0, to: tied[0].0, n: tied.len() as u64, hits };
            while let Some(before) = blocks.pop_if(|before| !before.below(&block)) {
                block =
                    Block { from: before.from, to: block.to, n: before.n + block.n, hits: before.hits + block.hits };
            }
            blocks.push(block);
        }
        let points = blocks.iter().flat_map(|block| {
            let value = block.hits as f64 / block.n as f64;
            std::iter::once((block.from, value)).chain((block.to > block.from).then_some((block.to, value)))
        });
        Curve::Points(points.collect())
    }

    /// The value at a probability.
    pub fn at(&self, p: f64) -> f64 {
        match self {
            Curve::Bins(rates) => {
                let bins = Bins { count: rates.len(), ..Bins::STANDARD };
                rates[bins.index(p as f32)].unwrap_or(p).clamp(0.0, 1.0)
            }
            Curve::Points(points) => {
                let above = points.partition_point(|point| point.0 < p);
                match (above.checked_sub(1).map(|below| points[below]), points.get(above)) {
                    (Some((_, value)), None) | (None, Some(&(_, value))) => value,
                    (Some((x0, y0)), Some(&(x1, y1))) => {
                        if p == x1 {
                            y1
                        } else {
                            y0 + (y1 - y0) * ((p - x0) / (x1 - x0))
                        }
                    }
                    (None, None) => p,
                }
            }
        }
    }

    /// What is wrong with one that came from a file.
    pub(super) fn fault(&self) -> Option<String> {
        let outside = |x: &f64| !(0.0..=1.0).contains(x);
        match self {
            Curve::Bins(rates) if rates.is_empty() => Some("a curve without bins".into()),
            Curve::Bins(rates) => {
                let bad = rates.iter().flatten().find(|rate| outside(rate))?;
                Some(format!("a hit rate of {bad}, expected one in 0..1"))
            }
            Curve::Points(points) if points.is_empty() => Some("a curve without points".into()),
            Curve::Points(points) => {
                let bad = points.iter().find(|(_, value)| outside(value));
                let unordered = points.windows(2).any(|pair| !(pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1));
                match bad {
                    Some((_, value)) => Some(format!("a value of {value}, expected one in 0..1")),
                    None => unordered.then(|| "a curve that does not rise".into()),
                }
            }
        }
    }
}

/// Neighbouring probabilities with one value.
#[derive(Clone, Copy)]
struct Block {
    from: f64,
    to: f64,
    n: u64,
    hits: u64,
}

impl Block {
    /// Whether its value is below the other's, in integers.
    fn below(&self, other: &Block) -> bool {
        u128::from(self.hits) * u128::from(other.n) < u128::from(other.hits) * u128::from(self.n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn isotonic(pairs: &[(f64, bool)]) -> Vec<(f64, f64)> {
        match Curve::isotonic(pairs.to_vec()) {
            Curve::Points(points) => points,
            other => panic!("{other:?}"),
        }
    }

    // Hits 0 1 0 1: the second and third pool to 1/2.
    #[test]
    fn adjacent_violators_are_pooled() {
        let found = isotonic(&[(0.9, true), (0.1, false), (0.6, false), (0.4, true)]);
        assert_eq!(found, [(0.1, 0.0), (0.4, 0.5), (0.6, 0.5), (0.9, 1.0)]);
    }

    #[test]
    fn equal_probabilities_have_one_value() {
        assert_eq!(isotonic(&[(0.5, true), (0.5, false), (0.5, false), (0.8, true)]), [(0.5, 1.0 / 3.0), (0.8, 1.0)]);
    }

    #[test]
    fn falling_hits_pool_to_their_mean() {
        assert_eq!(isotonic(&[(0.2, true), (0.4, true), (0.6, false), (0.8, false)]), [(0.2, 0.5), (0.8, 0.5)]);
    }

    #[test]
    fn between_points_the_curve_is_straight_and_beyond_them_level() {
        let curve = Curve::Points(vec![(0.2, 0.0), (0.6, 1.0)]);
        let found = [0.0, 0.2, 0.3, 0.6, 0.9].map(|p| curve.at(p));
        let expected = [0.0, 0.0, 0.25, 1.0, 1.0];
        assert!(found.iter().zip(expected).all(|(a, b): (&f64, f64)| (a - b).abs() < 1e-12), "{found:?}");
    }

    #[test]
    fn histogram_binning_gives_hit_rates_and_leaves_empty_bins_alone() {
        let curve = Curve::histogram(
            vec![(0.1, false), (0.4, true), (0.9, true), (0.8, false), (1.0, true)],
            Bins { count: 4, ..Bins::STANDARD },
        );
        assert_eq!(curve, Curve::Bins(vec![Some(0.0), Some(1.0), None, Some(2.0 / 3.0)]));
        assert_eq!([curve.at(0.3), curve.at(0.7), curve.at(0.95)], [1.0, 0.7, 2.0 / 3.0]);
    }
}
