//! Equal-width confidence bins whose edges are f32 numbers, so that a sample's bin is never a matter of arithmetic.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Which end of a bin belongs to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Closed {
    /// (lo, hi], with 0 in the first bin: the usual ECE's (Guo et al. 2017).
    #[serde(rename = "(lo, hi]")]
    Right,
    /// [lo, hi), with 1 in the last bin: that of the CigL paper's code.
    #[serde(rename = "[lo, hi)")]
    Left,
}

/// With so many bins c x count, and so its bin, is off by one at most.
const MOST_AT_ONCE: usize = 1 << 20;

/// `count` equal-width bins over [0, 1].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bins {
    /// Number of bins, at least 1.
    pub count: usize,
    /// Which end of a bin belongs to it.
    pub closed: Closed,
}

impl Bins {
    /// The usual ones: 15 bins (lo, hi].
    pub const STANDARD: Bins = Bins { count: 15, closed: Closed::Right };
    /// Those of the CigL paper's code: 10 bins [lo, hi).
    pub const PAPER: Bins = Bins { count: 10, closed: Closed::Left };

    /// Edge k of 0..=count: the f32 nearest to k / count.
    pub fn edge(self, k: usize) -> f32 {
        k as f32 / self.count as f32
    }

    /// The bin of a confidence in [0, 1], by comparison with the edges themselves.
    pub fn index(self, confidence: f32) -> usize {
        self.find(confidence, |k| self.edge(k))
    }

    /// [`Self::index`] of each confidence, in vectors.
    #[inline(always)]
    pub(super) fn indices(self, confidences: &[f32], indices: &mut [u32]) {
        if self.count > MOST_AT_ONCE {
            indices.iter_mut().zip(confidences).for_each(|(bin, &c)| *bin = self.index(c) as u32);
            return;
        }
        let (count, last) = (self.count as f32, self.count as i32 - 1);
        for (index, &c) in indices.iter_mut().zip(confidences) {
            let bin = ((c * count) as i32).min(last);
            let (lo, hi) = (bin as f32 / count, (bin + 1) as f32 / count);
            let (above_lo, above_hi) = match self.closed {
                Closed::Right => (lo < c, hi < c),
                Closed::Left => (lo <= c, hi <= c),
            };
            *index = (bin - i32::from(!above_lo & (bin > 0)) + i32::from(above_hi & (bin < last))) as u32;
        }
    }

    #[inline(always)]
    fn find(self, confidence: f32, edge: impl Fn(usize) -> f32) -> usize {
        let below = |k: usize| match self.closed {
            Closed::Right => edge(k) < confidence,
            Closed::Left => edge(k) <= confidence,
        };
        // The product may be off by one near an edge; the edges decide.
        let mut bin = ((confidence * self.count as f32) as usize).min(self.count - 1);
        while bin > 0 && !below(bin) {
            bin -= 1;
        }
        while bin + 1 < self.count && below(bin + 1) {
            bin += 1;
        }
        bin
    }
}

/// Bins whose edges were computed once: the division of [`Bins::edge`] is most of the cost of [`Bins::index`].
#[derive(Clone, Debug, PartialEq)]
pub(super) struct BinTable {
    pub(super) bins: Bins,
    edges: Vec<f32>,
}

impl BinTable {
    pub(super) fn new(bins: Bins) -> Self {
        BinTable { bins, edges: (0..=bins.count).map(|k| bins.edge(k)).collect() }
    }

    /// As [`Bins::index`].
    #[inline(always)]
    pub(super) fn index(&self, confidence: f32) -> usize {
        self.bins.find(confidence, |k| self.edges[k])
    }
}

/// Edges are never NaN.
impl Eq for BinTable {}

/// As results state them: `15 equal-width bins (lo, hi]`.
impl fmt::Display for Bins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let edges = match self.closed {
            Closed::Right => "(lo, hi]",
            Closed::Left => "[lo, hi)",
        };
        write!(f, "{} equal-width bins {edges}", self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_is_in_the_first_bin_and_one_in_the_last() {
        for bins in [Bins::STANDARD, Bins::PAPER] {
            assert_eq!((bins.index(0.0), bins.index(1.0)), (0, bins.count - 1));
        }
    }

    #[test]
    fn an_exact_edge_belongs_to_the_closed_side() {
        for k in 1..15 {
            let edge = k as f32 / 15.0;
            assert_eq!(Bins::STANDARD.index(edge), k - 1, "{k}/15");
            assert_eq!(Bins::STANDARD.index(edge.next_up()), k, "just above {k}/15");
            assert_eq!(Bins::STANDARD.index(edge.next_down()), k - 1, "just below {k}/15");
        }
        for k in 1..10 {
            let edge = k as f32 / 10.0;
            assert_eq!(Bins::PAPER.index(edge), k, "{k}/10");
            assert_eq!(Bins::PAPER.index(edge.next_down()), k - 1, "just below {k}/10");
        }
    }

    #[test]
    fn many_at_once_are_in_the_bins_of_each() {
        for count in [1, 2, 3, 7, 10, 15, 49, 100, 1000, 9973, MOST_AT_ONCE] {
            for closed in [Closed::Right, Closed::Left] {
                let bins = Bins { count, closed };
                let step = count.div_ceil(1000);
                let edges = (0..=count).step_by(step).map(|k| bins.edge(k));
                let near = edges.flat_map(|edge| [edge.next_down().max(0.0), edge, edge.next_up().min(1.0)]);
                let confidences: Vec<f32> = near.chain((0..=1000).map(|i| i as f32 / 1000.0)).collect();
                let mut found = vec![0; confidences.len()];
                bins.indices(&confidences, &mut found);
                for (c, &found) in confidences.iter().zip(&found) {
                    assert_eq!(found as usize, bins.index(*c), "{c} of {bins}");
                }
            }
        }
    }

    #[test]
    fn every_confidence_lies_between_its_bins_edges() {
        let table = [BinTable::new(Bins::STANDARD), BinTable::new(Bins::PAPER)];
        for i in 1..100_000 {
            let c = i as f32 / 100_000.0;
            let (right, left) = (Bins::STANDARD, Bins::PAPER);
            let (r, l) = (right.index(c), left.index(c));
            assert!(right.edge(r) < c && c <= right.edge(r + 1));
            assert!(left.edge(l) <= c && c < left.edge(l + 1));
            assert_eq!((r, l), (table[0].index(c), table[1].index(c)));
        }
    }
}
