//! Sixteen rows of up to sixteen logits at once, side by side in the lanes of a vector.
//!
//! A row of ten classes fills little more than half a vector, and its sums would be taken across lanes. Here lane r is row r
//! and each class a vector of its own. Every operation and its order are those of [`super::outcome`], so the bits are too.

use super::outcome::{BLOCK, Outcome, ln_1p};
use super::softmax::{exp, exp_f64};
use crate::backend::cpu::Level;
use crate::backend::cpu::simd::{Lanes, dispatch};

/// Rows that are read at once.
pub(super) const ROWS: usize = BLOCK;

/// What the rows read last say.
#[derive(Clone, Debug)]
pub(super) struct NarrowRows {
    /// Row by row, filled up with zeros.
    pub(super) probs: [[f32; BLOCK]; ROWS],
    pub(super) outcomes: [Outcome; ROWS],
}

impl NarrowRows {
    pub(super) fn new() -> Self {
        let nothing = Outcome { confidence: 0.0, correct: false, top5: false, nll: 0.0, brier: 0.0 };
        NarrowRows { probs: [[0.0; BLOCK]; ROWS], outcomes: [nothing; ROWS] }
    }

    /// Reads sixteen rows of 1 to 16 logits, row-major, and their labels. False if one of them is not in order.
    pub(super) fn read(&mut self, logits: &[f32], classes: usize, labels: &[u32]) -> bool {
        dispatch!(
            Level::detect(),
            kernel(
                rows: &mut NarrowRows = self,
                logits: &[f32] = logits,
                classes: usize = classes,
                labels: &[u32] = labels,
            ) -> bool
        )
    }
}

/// # Safety
/// Holds no unsafe operation; `dispatch` asks for the keyword.
#[inline(always)]
unsafe fn kernel<L: Lanes>(out: &mut NarrowRows, logits: &[f32], classes: usize, labels: &[u32]) -> bool {
    // Class k of all rows.
    let mut columns = [[f32::NEG_INFINITY; ROWS]; BLOCK];
    let (mut label, mut own) = ([0u32; ROWS], [0f32; ROWS]);
    for r in 0..ROWS {
        let row = &logits[r * classes..][..classes];
        if labels[r] as usize >= classes {
            return false;
        }
        (label[r], own[r]) = (labels[r], row[labels[r] as usize]);
        for (column, &z) in columns.iter_mut().zip(row) {
            column[r] = z;
        }
    }

    let (mut max, mut nan) = ([f32::NEG_INFINITY; ROWS], [0u32; ROWS]);
    for column in &columns[..classes] {
        for r in 0..ROWS {
            max[r] = if column[r] > max[r] { column[r] } else { max[r] };
        }
        for r in 0..ROWS {
            nan[r] |= u32::from(column[r].is_nan());
        }
    }
    let mut bad = 0;
    for r in 0..ROWS {
        bad |= nan[r] | u32::from(!max[r].is_finite());
    }
    if bad != 0 {
        return false;
    }

    let (mut top, mut rank) = ([0u32; ROWS], [0u32; ROWS]);
    for (k, column) in columns[..classes].iter().enumerate().rev() {
        let k = k as u32;
        for r in 0..ROWS {
            top[r] = if column[r] == max[r] { k } else { top[r] };
        }
        for r in 0..ROWS {
            let tied = (column[r] == own[r]) & (k < label[r]);
            rank[r] += u32::from((column[r] > own[r]) | tied);
        }
    }

    let mut terms = [[0f32; ROWS]; BLOCK];
    let mut others = [[0f64; ROWS]; BLOCK];
    for (k, column) in columns[..classes].iter().enumerate() {
        let (terms, others) = (&mut terms[k], &mut others[k]);
        for r in 0..ROWS {
            terms[r] = exp(column[r] - max[r]);
        }
        for r in 0..ROWS {
            others[r] = exp_f64(f64::from(column[r]) - f64::from(max[r]));
        }
        for r in 0..ROWS {
            others[r] = if top[r] == k as u32 { 0.0 } else { others[r] };
        }
    }
    let mut sums = terms;
    add_halves(&mut sums);
    let mut squares = [[0f64; ROWS]; BLOCK];
    for (terms, squares) in terms[..classes].iter_mut().zip(&mut squares) {
        for r in 0..ROWS {
            terms[r] /= sums[0][r];
        }
        for r in 0..ROWS {
            squares[r] = f64::from(terms[r]) * f64::from(terms[r]);
        }
    }
    add_halves_f64(&mut others);
    add_halves_f64(&mut squares);

    for r in 0..ROWS {
        let probs = &mut out.probs[r];
        for (p, column) in probs.iter_mut().zip(&terms[..classes]) {
            *p = column[r];
        }
        let of_label = f64::from(probs[label[r] as usize]);
        out.outcomes[r] = Outcome {
            confidence: probs[top[r] as usize],
            correct: top[r] == label[r],
            top5: rank[r] < 5,
            nll: (f64::from(max[r]) - f64::from(own[r])) + ln_1p(others[0][r]),
            brier: (squares[0][r] - of_label * of_label).max(0.0) + (1.0 - of_label) * (1.0 - of_label),
        };
    }
    true
}

/// The tree at the end of a sum over classes: class k takes that of k + 8, of k + 4, 2, 1.
#[inline(always)]
fn add_halves(columns: &mut [[f32; ROWS]; BLOCK]) {
    for width in [8, 4, 2, 1] {
        let (low, high) = columns.split_at_mut(width);
        for (low, high) in low.iter_mut().zip(high) {
            for r in 0..ROWS {
                low[r] += high[r];
            }
        }
    }
}

/// As [`add_halves`].
#[inline(always)]
fn add_halves_f64(columns: &mut [[f64; ROWS]; BLOCK]) {
    for width in [8, 4, 2, 1] {
        let (low, high) = columns.split_at_mut(width);
        for (low, high) in low.iter_mut().zip(high) {
            for r in 0..ROWS {
                low[r] += high[r];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::outcome::RowBuffer;
    use super::super::scores::Kind;
    use super::*;
    use crate::rng::{Domain, Stream};

    #[test]
    fn sixteen_rows_at_once_have_the_bits_of_one_by_one() {
        for classes in 1..=BLOCK {
            let mut random = Stream::new(classes as u64, Domain::Bootstrap, 0, 9);
            // Quarters, so that there are ties.
            let mut draw = || (12.0 * random.normal()).round() as f32 / 4.0;
            let logits: Vec<f32> = (0..ROWS * classes).map(|_| draw()).collect();
            let labels: Vec<u32> = (0..ROWS).map(|r| (r * 7 % classes) as u32).collect();
            let (mut rows, mut buffer) = (NarrowRows::new(), RowBuffer::new(classes));
            assert!(rows.read(&logits, classes, &labels));
            for r in 0..ROWS {
                let row = &logits[r * classes..][..classes];
                let expected = buffer.read_f32(row, Kind::Logits, labels[r] as usize).unwrap();
                assert_eq!(rows.outcomes[r], expected, "{classes} classes, row {r}");
                assert_eq!(rows.probs[r][..], *buffer.probs());
            }
        }
    }

    #[test]
    fn a_row_that_is_not_in_order_fails_them_all() {
        let (good, labels) = ([0.5f32; 3 * ROWS], [0; ROWS]);
        let mut rows = NarrowRows::new();
        assert!(rows.read(&good, 3, &labels));
        for (at, z) in [(0, f32::NAN), (17, f32::INFINITY), (47, f32::NAN)] {
            let mut bad = good;
            bad[at] = z;
            assert!(!rows.read(&bad, 3, &labels), "{z} at {at}");
        }
        let mut ruled_out = good;
        ruled_out[6..9].fill(f32::NEG_INFINITY);
        assert!(!rows.read(&ruled_out, 3, &labels));
        let mut beyond = labels;
        beyond[15] = 3;
        assert!(!rows.read(&good, 3, &beyond));
    }
}
