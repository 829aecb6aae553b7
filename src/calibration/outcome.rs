//! What one row of scores says: the terms that every metric is made of.

use super::scores::{Kind, SUM_TOLERANCE, TOP_OF_PROBABILITIES};
use super::softmax::{LANES, argmax, exp, exp_f64, sum_lanes};
use crate::backend::cpu::Level;
use crate::backend::cpu::simd::{Lanes, dispatch};

/// What one sample contributes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outcome {
    /// The probability of the predicted class.
    pub confidence: f32,
    /// Whether the prediction, the lowest index among the maxima, is the label.
    pub correct: bool,
    /// Whether the label is among the five largest, the lower index first among equals.
    pub top5: bool,
    /// -log of the label's probability; infinite where that is 0.
    pub nll: f64,
    /// Sum over the classes of (p_k - [y = k])^2, between 0 and 2.
    pub brier: f64,
}

/// Half of [`LANES`]: a row is worked on in blocks of so many classes.
pub(super) const BLOCK: usize = 16;

/// Room for one row, filled up to whole blocks, so that no kernel has a remainder.
#[derive(Clone, Debug)]
pub struct RowBuffer {
    scores: Vec<f32>,
    probs: Vec<f32>,
}

impl RowBuffer {
    pub(super) fn new(classes: usize) -> Self {
        let padded = classes.next_multiple_of(BLOCK);
        RowBuffer { scores: vec![0.0; padded], probs: vec![0.0; padded] }
    }

    /// The probabilities of the row read last, padded; those of its classes come first.
    pub(super) fn probs(&self) -> &[f32] {
        &self.probs
    }

    /// Reads a row of f32; none where a score may not be there (`Scores::fault` says which).
    pub(super) fn read_f32(&mut self, row: &[f32], kind: Kind, label: usize) -> Option<Outcome> {
        match kind {
            Kind::Logits => dispatch!(
                Level::detect(),
                logits_kernel(row: &[f32] = row, label: usize = label, buffer: &mut RowBuffer = self)
                -> Option<Outcome>
            ),
            Kind::Probs => dispatch!(
                Level::detect(),
                probs_kernel(row: &[f32] = row, label: usize = label, buffer: &mut RowBuffer = self)
                -> Option<Outcome>
            ),
        }
    }

    /// Reads a row of f64: as [`Self::read_f32`], and only the probabilities that are binned are rounded to f32.
    pub(super) fn read_f64(&mut self, row: &[f64], kind: Kind, label: usize) -> Option<Outcome> {
        if row.iter().any(|score| score.is_nan()) {
            return None;
        }
        let top = argmax(row);
        let max = row[top];
        let (confidence, nll, brier) = match kind {
            Kind::Logits => {
                if !max.is_finite() {
                    return None;
                }
                let term = |(k, &z): (usize, &f64)| if k == top { 0.0 } else { (z - max).exp() };
                let others: f64 = row.iter().enumerate().map(term).sum();
                let mut brier = 0.0;
                for (k, (&z, p)) in row.iter().zip(&mut self.probs).enumerate() {
                    let exact = (z - max).exp() / (1.0 + others);
                    brier += (exact - f64::from(u8::from(k == label))).powi(2);
                    *p = exact as f32;
                }
                (self.probs[top], (max - row[label]) + ln_1p(others), brier)
            }
            Kind::Probs => {
                let inside = |p: &f64| (0.0..=f64::from(TOP_OF_PROBABILITIES)).contains(p);
                let sum: f64 = row.iter().sum();
                if !row.iter().all(inside) || (sum - 1.0).abs() > SUM_TOLERANCE {
                    return None;
                }
                let mut brier = 0.0;
                for (k, (&exact, p)) in row.iter().zip(&mut self.probs).enumerate() {
                    brier += (exact - f64::from(u8::from(k == label))).powi(2);
                    *p = exact as f32;
                }
                (self.probs[top].min(1.0), nll_of(row[label]), brier)
            }
        };
        let rank = row.iter().enumerate().filter(|&(k, &s)| s > row[label] || (s == row[label] && k < label)).count();
        Some(Outcome { confidence, correct: top == label, top5: rank < 5, nll, brier })
    }
}

/// -ln p, infinite at 0; + 0.0 turns the -0 of a certain row into 0.
#[inline(always)]
fn nll_of(p: f64) -> f64 {
    -p.min(1.0).ln() + 0.0
}

/// ln(1 + x) for x >= 0 to the last digits: ln u loses what 1 + x rounded away, and x / (u - 1) puts it back (Kahan).
#[inline(always)]
pub(super) fn ln_1p(x: f64) -> f64 {
    let u = 1.0 + x;
    if u == 1.0 { x } else { u.ln() * (x / (u - 1.0)) }
}

/// # Safety
/// Holds no unsafe operation; `dispatch` asks for the keyword.
#[inline(always)]
unsafe fn logits_kernel<L: Lanes>(row: &[f32], label: usize, buffer: &mut RowBuffer) -> Option<Outcome> {
    let (scores, probs) = (&mut buffer.scores[..], &mut buffer.probs[..]);
    scores[..row.len()].copy_from_slice(row);
    scores[row.len()..].fill(f32::NEG_INFINITY);
    let (blocks, _) = scores.as_chunks::<BLOCK>();
    let (terms, _) = probs.as_chunks_mut::<BLOCK>();
    let (max, nan) = largest(blocks);
    if nan || !max.is_finite() {
        return None;
    }
    let (top, rank) = (first(blocks, max), rank(scores, label));

    // The sum of `softmax::softmax`, in its order: even blocks are its lanes 0..16, odd ones 16..32.
    let (mut low, mut high) = ([0f32; BLOCK], [0f32; BLOCK]);
    let (pairs, last) = blocks.as_chunks::<2>();
    let (out, last_out) = terms.as_chunks_mut::<2>();
    for ([even, odd], [even_out, odd_out]) in pairs.iter().zip(out) {
        add_terms(even, max, even_out, &mut low);
        add_terms(odd, max, odd_out, &mut high);
    }
    if let ([block], [out]) = (last, last_out) {
        add_terms(block, max, out, &mut low);
    }
    let mut lanes = [0f32; LANES];
    lanes[..BLOCK].copy_from_slice(&low);
    lanes[BLOCK..].copy_from_slice(&high);
    let sum = sum_lanes(&mut lanes);
    for block in terms {
        for term in block.iter_mut() {
            *term /= sum;
        }
    }

    // Taking the largest term out of the logarithm keeps the digits of confident rows, whose loss is far below 1.
    let label_score = scores[label];
    scores[top] = f32::NEG_INFINITY;
    let mut sums = [0f64; BLOCK];
    for block in scores.as_chunks::<BLOCK>().0 {
        for l in 0..BLOCK {
            sums[l] += exp_f64(f64::from(block[l]) - f64::from(max));
        }
    }
    let nll = (f64::from(max) - f64::from(label_score)) + ln_1p(sum_f64(sums));
    let (confidence, brier) = (probs[top], brier(probs, label));
    Some(Outcome { confidence, correct: top == label, top5: rank < 5, nll, brier })
}

/// # Safety
/// Holds no unsafe operation; `dispatch` asks for the keyword.
#[inline(always)]
unsafe fn probs_kernel<L: Lanes>(row: &[f32], label: usize, buffer: &mut RowBuffer) -> Option<Outcome> {
    let probs = &mut buffer.probs[..];
    probs[..row.len()].copy_from_slice(row);
    probs[row.len()..].fill(0.0);
    let (blocks, _) = probs.as_chunks::<BLOCK>();
    let (max, nan) = largest(blocks);
    let (mut sums, mut negative) = ([0f64; BLOCK], false);
    for block in blocks {
        for l in 0..BLOCK {
            sums[l] += f64::from(block[l]);
            negative |= block[l] < 0.0;
        }
    }
    if nan || negative || max > TOP_OF_PROBABILITIES || (sum_f64(sums) - 1.0).abs() > SUM_TOLERANCE {
        return None;
    }
    let (top, rank) = (first(blocks, max), rank(probs, label));
    let (nll, brier) = (nll_of(f64::from(probs[label])), brier(probs, label));
    Some(Outcome { confidence: max.min(1.0), correct: top == label, top5: rank < 5, nll, brier })
}

/// The terms e^(z - max) of a block, and their lanes' sums.
#[inline(always)]
fn add_terms(block: &[f32; BLOCK], max: f32, terms: &mut [f32; BLOCK], lanes: &mut [f32; BLOCK]) {
    for l in 0..BLOCK {
        terms[l] = exp(block[l] - max);
    }
    for l in 0..BLOCK {
        lanes[l] += terms[l];
    }
}

/// The largest of all values, and whether one is NaN.
#[inline(always)]
fn largest(blocks: &[[f32; BLOCK]]) -> (f32, bool) {
    let (mut most, mut nan) = ([f32::NEG_INFINITY; BLOCK], [0u32; BLOCK]);
    for block in blocks {
        for l in 0..BLOCK {
            most[l] = if block[l] > most[l] { block[l] } else { most[l] };
        }
        for l in 0..BLOCK {
            nan[l] |= u32::from(block[l].is_nan());
        }
    }
    // A tree, since each comparison waits for the one before.
    for width in [8, 4, 2, 1] {
        for l in 0..width {
            most[l] = if most[l + width] > most[l] { most[l + width] } else { most[l] };
        }
    }
    (most[0], nan.into_iter().fold(0, |a, b| a | b) != 0)
}

/// The first index of a value that is there.
#[inline(always)]
fn first(blocks: &[[f32; BLOCK]], value: f32) -> usize {
    for (b, block) in blocks.iter().enumerate() {
        // Whole blocks are compared at once; a search that stops inside one would go value by value.
        if block.iter().fold(false, |found, &x| found | (x == value)) {
            return BLOCK * b + block.iter().position(|&x| x == value).unwrap_or(0);
        }
    }
    0
}

/// How many scores come before the label's: larger ones, and equal ones of a lower index.
#[inline(always)]
fn rank(scores: &[f32], label: usize) -> u32 {
    let own = scores[label];
    let larger: u32 = scores.iter().map(|&score| u32::from(score > own)).sum();
    let tied: u32 = scores[..label].iter().map(|&score| u32::from(score == own)).sum();
    larger + tied
}

/// Sum of (p_k - [y = k])^2: all squares, with the label's exchanged.
#[inline(always)]
fn brier(probs: &[f32], label: usize) -> f64 {
    let mut squares = [0f64; BLOCK];
    for block in probs.as_chunks::<BLOCK>().0 {
        for l in 0..BLOCK {
            squares[l] += f64::from(block[l]) * f64::from(block[l]);
        }
    }
    let own = f64::from(probs[label]);
    (sum_f64(squares) - own * own).max(0.0) + (1.0 - own) * (1.0 - own)
}

#[inline(always)]
fn sum_f64(mut lanes: [f64; BLOCK]) -> f64 {
    for width in [8, 4, 2, 1] {
        for lane in 0..width {
            lanes[lane] += lanes[lane + width];
        }
    }
    lanes[0]
}
