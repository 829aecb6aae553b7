//! Softmax whose bits do not depend on the machine: every operation is an IEEE f32 operation in a stated order, so that a
//! kernel that follows the same steps puts every sample into the same confidence bin.

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
pub fn exp(x: f32) -> f32 {
    /// 1.5 x 2^23: adding it leaves the nearest integer in the low bits of the sum.
    const ROUND: f32 = 12_582_912.0;
    /// The leading 16 bits of ln 2, so that n times it is exact, and what is left.
    const LN_2_HIGH: f32 = f32::from_bits(0x3F31_7200);
    const LN_2_LOW: f32 = (std::f64::consts::LN_2 - LN_2_HIGH as f64) as f32;
    if x < EXP_UNDERFLOW {
        return 0.0;
    }
    let shifted = x.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = n.mul_add(-LN_2_LOW, n.mul_add(-LN_2_HIGH, x));
    let mut sum = 1.0 / 5040.0;
    for inverse_factorial in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        sum = r.mul_add(sum, inverse_factorial);
    }
    // n is in -126..=0, so 2^n is a normal number and the product is exact or rounded once.
    sum * f32::from_bits(((n as i32 + 127) as u32) << 23)
}

/// ln x for a finite x >= 1, in f64 operations of a stated order: no library's logarithm is the same everywhere.
///
/// x = m 2^n with m in [sqrt(1/2), sqrt 2); with t = (m - 1) / (m + 1), ln m = 2 atanh t = 2 (t + t^3 / 3 + ... + t^17 / 17),
/// truncated at less than 1e-15.
pub fn ln(x: f32) -> f64 {
    /// sqrt(1/2)
    const HALF: u32 = 0x3F35_04F3;
    let n = (x.to_bits() - HALF) >> 23;
    let m = f64::from(f32::from_bits(x.to_bits() - (n << 23)));
    let t = (m - 1.0) / (m + 1.0);
    let mut sum = 1.0 / 17.0;
    for odd in [15.0, 13.0, 11.0, 9.0, 7.0, 5.0, 3.0, 1.0] {
        sum = (t * t).mul_add(sum, 1.0 / odd);
    }
    (2.0 * t).mul_add(sum, f64::from(n) * std::f64::consts::LN_2)
}

/// Softmax of one row: `probs[k] = exp(logits[k] - max) / sum`; returns the sum. Both slices have length C >= 1.
///
/// The sum has a fixed order: lane l of [`LANES`] adds the terms l, l + 32, l + 64, ... one by one, then lane l takes lane
/// l + 16's sum, l + 8's, 4, 2, 1. Logits must hold no NaN and no +infinity, and one of them must be finite.
pub fn softmax(logits: &[f32], probs: &mut [f32]) -> f32 {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut lanes = [0f32; LANES];
    for (k, (&logit, term)) in logits.iter().zip(probs.iter_mut()).enumerate() {
        *term = exp(logit - max);
        lanes[k % LANES] += *term;
    }
    for width in [16, 8, 4, 2, 1] {
        for lane in 0..width {
            lanes[lane] += lanes[lane + width];
        }
    }
    for term in probs {
        *term /= lanes[0];
    }
    lanes[0]
}

/// The index of the largest value, the lowest index among equals. `values` holds no NaN and is not empty.
pub fn argmax(values: &[f32]) -> usize {
    let mut best = 0;
    for (k, &value) in values.iter().enumerate() {
        if value > values[best] {
            best = k;
        }
    }
    best
}

/// `-log softmax(logits)[label]` by log-sum-exp in f64: max - z_label + ln(1 + sum over the others of exp(z - max)).
///
/// Taking the largest term out of the logarithm keeps the digits of confident rows, whose loss is far below 1.
/// `temperature` divides the logits first. A label whose logit is -infinity gives infinity.
pub fn nll(logits: &[f32], label: usize, temperature: f64) -> f64 {
    let top = argmax(logits);
    let max = f64::from(logits[top]);
    let others: f64 = (logits.iter().enumerate())
        .filter(|&(k, _)| k != top)
        .map(|(_, &logit)| ((f64::from(logit) - max) / temperature).exp())
        .sum();
    (max - f64::from(logits[label])) / temperature + others.ln_1p()
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

    // ln(1 + e^-40) is e^-40 to all digits; a logarithm of the sum would give 0.
    #[test]
    fn nll_keeps_the_digits_of_a_confident_row() {
        let loss = nll(&[40.0, 0.0], 0, 1.0);
        assert!((loss / (-40f64).exp() - 1.0).abs() < 1e-12);
        assert!((nll(&[0.0; 4], 2, 1.0) - 4f64.ln()).abs() < 1e-15);
        assert_eq!(nll(&[0.0, f32::NEG_INFINITY], 1, 1.0), f64::INFINITY);
    }
}
