//! Softmax whose bits do not depend on the machine: every operation is an IEEE f32 operation in a stated order, so that a
//! kernel that follows the same steps puts every sample into the same confidence bin.

use crate::backend::cpu::Level;
use crate::backend::cpu::simd::{Lanes, dispatch};

/// Lanes of the summation, a CUDA warp's width.
pub const LANES: usize = 32;

/// Below this argument [`exp`] is 0. Its results down to here (1.6e-38) are normal numbers, so a device that flushes
/// subnormals to zero agrees, and next to a largest term of 1 such a term is far below f32's resolution anyway.
pub const EXP_UNDERFLOW: f32 = -87.0;

/// e^x for x <= 0, in f32 fused multiply-adds only.
///
/// x = n ln 2 + r with n the nearest integer to x / ln 2 and |r| <= 0.3466; e^r is its Taylor polynomial of degree 7
/// (truncated at less than 6e-9 relative, a tenth of a rounding error), and 2^n is put into the exponent. ln 2 is split in
/// two so that n ln 2 loses nothing. The result is within one unit in the last place of e^x; exp(0) is exactly 1.
/// The argument must not be NaN.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    /// 1.5 x 2^23: adding it leaves the nearest integer in the low bits of the sum.
    const ROUND: f32 = 12_582_912.0;
    /// The leading 16 bits of ln 2, so that n times it is exact, and what is left.
    const LN_2_HIGH: f32 = f32::from_bits(0x3F31_7200);
    const LN_2_LOW: f32 = (std::f64::consts::LN_2 - LN_2_HIGH as f64) as f32;
    let shifted = x.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = n.mul_add(-LN_2_LOW, n.mul_add(-LN_2_HIGH, x));
    // Written out, since a loop over the coefficients would keep the compiler from a vector of arguments.
    let sum = r.mul_add(1.0 / 5040.0, 1.0 / 720.0);
    let sum = r.mul_add(sum, 1.0 / 120.0);
    let sum = r.mul_add(sum, 1.0 / 24.0);
    let sum = r.mul_add(sum, 1.0 / 6.0);
    let sum = r.mul_add(sum, 0.5);
    let sum = r.mul_add(sum, 1.0);
    let sum = r.mul_add(sum, 1.0);
    // n is in -126..=0, so 2^n is a normal number and the product is exact or rounded once. The low bits of `shifted` are n,
    // and those of ROUND leave the word on the left; a branch here would keep the compiler from vectors.
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(0x3F80_0000));
    if x < EXP_UNDERFLOW { 0.0 } else { sum * power }
}

/// e^x for x <= 0, in f64 fused multiply-adds only: as [`exp`], of degree 13 (truncated at 4e-18 relative), 0 below -708.
#[inline(always)]
pub fn exp_f64(x: f64) -> f64 {
    /// 1.5 x 2^52.
    const ROUND: f64 = 6_755_399_441_055_744.0;
    /// The leading 32 bits of ln 2, and what is left.
    const LN_2_HIGH: f64 = f64::from_bits(0x3FE6_2E42_FEE0_0000);
    const LN_2_LOW: f64 = 1.908_214_929_270_587_7e-10;
    let shifted = x.mul_add(std::f64::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = n.mul_add(-LN_2_LOW, n.mul_add(-LN_2_HIGH, x));
    let sum = r.mul_add(1.0 / 6_227_020_800.0, 1.0 / 479_001_600.0);
    let sum = r.mul_add(sum, 1.0 / 39_916_800.0);
    let sum = r.mul_add(sum, 1.0 / 3_628_800.0);
    let sum = r.mul_add(sum, 1.0 / 362_880.0);
    let sum = r.mul_add(sum, 1.0 / 40_320.0);
    let sum = r.mul_add(sum, 1.0 / 5_040.0);
    let sum = r.mul_add(sum, 1.0 / 720.0);
    let sum = r.mul_add(sum, 1.0 / 120.0);
    let sum = r.mul_add(sum, 1.0 / 24.0);
    let sum = r.mul_add(sum, 1.0 / 6.0);
    let sum = r.mul_add(sum, 0.5);
    let sum = r.mul_add(sum, 1.0);
    let sum = r.mul_add(sum, 1.0);
    let power = f64::from_bits((shifted.to_bits() << 52).wrapping_add(0x3FF0_0000_0000_0000));
    if x < -708.0 { 0.0 } else { sum * power }
}

/// ln x for a finite x >= 1, in f64 operations of a stated order: no library's logarithm is the same everywhere.
pub fn ln(x: f32) -> f64 {
    /// sqrt(1/2)
    const HALF: u32 = 0x3F35_04F3;
    let n = (x.to_bits() - HALF) >> 23;
    ln_of(f64::from(f32::from_bits(x.to_bits() - (n << 23))), n)
}

/// ln x for a finite x >= 1 as [`ln`], of all of an f64's digits.
#[inline(always)]
pub(super) fn ln_f64(x: f64) -> f64 {
    /// sqrt(1/2)
    const HALF: u64 = 0x3FE6_A09E_667F_3BCD;
    let n = (x.to_bits() - HALF) >> 52;
    ln_of(f64::from_bits(x.to_bits() - (n << 52)), n as u32)
}

/// ln(m 2^n) for m in [sqrt(1/2), sqrt 2): with t = (m - 1) / (m + 1), ln m = 2 atanh t = 2 (t + t^3 / 3 + ... + t^17 / 17), truncated at less
/// than 1e-15. Without a branch and written out, as in [`exp`], for vectors.
#[inline(always)]
fn ln_of(m: f64, n: u32) -> f64 {
    let t = (m - 1.0) / (m + 1.0);
    let square = t * t;
    let sum = square.mul_add(1.0 / 17.0, 1.0 / 15.0);
    let sum = square.mul_add(sum, 1.0 / 13.0);
    let sum = square.mul_add(sum, 1.0 / 11.0);
    let sum = square.mul_add(sum, 1.0 / 9.0);
    let sum = square.mul_add(sum, 1.0 / 7.0);
    let sum = square.mul_add(sum, 1.0 / 5.0);
    let sum = square.mul_add(sum, 1.0 / 3.0);
    let sum = square.mul_add(sum, 1.0);
    (2.0 * t).mul_add(sum, f64::from(n) * std::f64::consts::LN_2)
}

/// Softmax of one row: `probs[k] = exp(logits[k] - max) / sum`; returns the sum. Both slices have length C >= 1.
///
/// The sum has a fixed order: lane l of [`LANES`] adds the terms l, l + 32, l + 64, ... one by one, then lane l takes lane
/// l + 16's sum, l + 8's, 4, 2, 1. Logits must hold no NaN and no +infinity, and one of them must be finite.
pub fn softmax(logits: &[f32], probs: &mut [f32]) -> f32 {
    let mut sum = 0.0;
    dispatch!(
        Level::detect(),
        softmax_kernel(logits: &[f32] = logits, probs: &mut [f32] = probs, sum: &mut f32 = &mut sum)
    );
    sum
}

/// [`softmax`] in the vectors of the instruction set that [`dispatch`] compiles it for.
///
/// # Safety
/// Holds no unsafe operation; `dispatch` asks for the keyword.
#[inline(always)]
unsafe fn softmax_kernel<L: Lanes>(logits: &[f32], probs: &mut [f32], sum: &mut f32) {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, |a, b| if b > a { b } else { a });
    let mut lanes = [0f32; LANES];
    let (blocks, rest) = logits.as_chunks::<LANES>();
    let (terms, rest_of_terms) = probs.as_chunks_mut::<LANES>();
    for (block, terms) in blocks.iter().zip(terms) {
        for l in 0..LANES {
            terms[l] = exp(block[l] - max);
            lanes[l] += terms[l];
        }
    }
    for ((&logit, term), lane) in rest.iter().zip(rest_of_terms).zip(&mut lanes) {
        *term = exp(logit - max);
        *lane += *term;
    }
    *sum = sum_lanes(&mut lanes);
    for term in probs {
        *term /= *sum;
    }
}

/// The tree at the end of [`softmax`].
#[inline(always)]
pub(super) fn sum_lanes(lanes: &mut [f32; LANES]) -> f32 {
    for width in [16, 8, 4, 2, 1] {
        for lane in 0..width {
            lanes[lane] += lanes[lane + width];
        }
    }
    lanes[0]
}

/// The index of the largest value, the lowest index among equals. `values` holds no NaN and is not empty.
pub fn argmax<T: PartialOrd + Copy>(values: &[T]) -> usize {
    let mut best = 0;
    for (k, &value) in values.iter().enumerate() {
        if value > values[best] {
            best = k;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_within_one_unit_in_the_last_place_of_f64() {
        let mut worst = 0f64;
        for i in 0..=870_000 {
            let x = -(i as f32) * 1e-4;
            let exact = f64::from(x).exp();
            let unit = (exact.log2().floor() - 23.0).exp2();
            worst = worst.max((f64::from(exp(x)) - exact).abs() / unit);
        }
        assert!(worst < 1.0, "{worst} units in the last place");
    }

    #[test]
    fn exp_f64_is_within_two_units_in_the_last_place_of_the_library() {
        for i in 0..=700_000 {
            let x = -f64::from(i) * 1e-3;
            let exact = x.exp();
            assert!((exp_f64(x) - exact).abs() <= 2.0 * (exact.next_up() - exact), "exp({x})");
        }
        assert_eq!([exp_f64(0.0), exp_f64(-709.0), exp_f64(f64::NEG_INFINITY)], [1.0, 0.0, 0.0]);
    }

    #[test]
    fn exp_is_one_at_zero_and_zero_far_below() {
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(-0.0), 1.0);
        assert_eq!(exp(-87.5), 0.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
    }

    #[test]
    fn ln_agrees_with_the_librarys_in_f64() {
        assert_eq!(ln(1.0), 0.0);
        let between = (0..100_000).map(|i| 1.0 + i as f32 * 1e-4);
        for x in between.chain([1.0f32.next_up(), 2.0f32.next_down(), 1e3, 1e6, 1e30, f32::MAX]) {
            let exact = f64::from(x).ln();
            assert!((ln(x) - exact).abs() <= 2e-15 * (1.0 + exact), "{x}: {} is not {exact}", ln(x));
            let wide = ln_f64(f64::from(x));
            assert!((wide - exact).abs() <= 2e-15 * (1.0 + exact), "{x}: {wide} is not {exact}");
        }
    }

    #[test]
    fn softmax_agrees_with_f64_on_every_width_of_row() {
        for classes in [1, 2, 10, 31, 32, 33, 100, 1000] {
            let logits: Vec<f32> = (0..classes).map(|k| ((k * 37 % 101) as f32 - 50.0) * 0.13).collect();
            let total: f64 = logits.iter().map(|&z| f64::from(z).exp()).sum();
            let mut probs = vec![0.0; classes];
            softmax(&logits, &mut probs);
            for (p, z) in probs.iter().zip(&logits) {
                let exact = f64::from(*z).exp() / total;
                assert!((f64::from(*p) - exact).abs() <= 1e-6 * exact, "{classes} classes: {p} is not {exact}");
            }
        }
    }

    #[test]
    fn prediction_is_the_lowest_index_among_the_maxima() {
        assert_eq!(argmax(&[0.1, 0.4, 0.4, 0.1]), 1);
        assert_eq!(argmax(&[f32::NEG_INFINITY, f32::NEG_INFINITY]), 0);
    }
}
