//! The two ways in which maps are stored.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How the numbers of a [`Map`](super::Map) are stored; arithmetic on them is in f32 either way.
///
/// A backend has one precision for its activations, their gradients and the effective weights. Masters of the weights, gradients
/// of parameters, optimiser state, statistics and losses are f32 on every backend, and so are the maps that the loss reads: a plan
/// settles it map by map.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// IEEE 754 binary32: 24 significant bits.
    #[default]
    F32,
    /// bfloat16, f32's exponent with 8 significant bits: what is stored is the f32 result, rounded to nearest, ties to even.
    Bf16,
}

impl Precision {
    /// Both.
    pub const ALL: [Precision; 2] = [Precision::F32, Precision::Bf16];

    /// The name on the command line and in files.
    pub fn name(self) -> &'static str {
        match self {
            Precision::F32 => "f32",
            Precision::Bf16 => "bf16",
        }
    }

    /// What is read back after `x` was stored: the nearest number of this precision, the even one of two; NaN stays NaN, and what
    /// is too large becomes infinite.
    #[inline]
    pub fn round(self, x: f32) -> f32 {
        match self {
            Precision::F32 => x,
            Precision::Bf16 => half::bf16::from_f32(x).to_f32(),
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::Precision::{Bf16, F32};

    // 1 + 2^-7 follows 1; halves of that step go to the even neighbour.
    #[test]
    fn bf16_rounds_to_nearest_and_ties_to_even() {
        let step = 1.0 / 128.0;
        for (x, stored) in [
            (1.0 + 0.49 * step, 1.0),
            (1.0 + 0.5 * step, 1.0),
            (1.0 + 0.51 * step, 1.0 + step),
            (1.0 + 1.5 * step, 1.0 + 2.0 * step),
            (-1.0 - 1.5 * step, -1.0 - 2.0 * step),
            (2.0 - 0.25 * step, 2.0),
            // The smallest f32 normal number over 2^7 is the smallest bf16 at all; half of it is a tie with the even 0.
            (f32::MIN_POSITIVE / 128.0, f32::MIN_POSITIVE / 128.0),
            (f32::MIN_POSITIVE / 256.0, 0.0),
            (f32::MIN_POSITIVE / 255.0, f32::MIN_POSITIVE / 128.0),
        ] {
            assert_eq!(Bf16.round(x), stored, "{x:e}");
            assert_eq!(F32.round(x), x);
        }
    }

    #[test]
    fn bf16_keeps_signs_infinities_and_nan_and_overflows_to_infinity() {
        assert!(Bf16.round(-0.0).is_sign_negative());
        assert_eq!(Bf16.round(f32::INFINITY), f32::INFINITY);
        assert_eq!(Bf16.round(f32::MIN), f32::NEG_INFINITY);
        // A NaN whose only set bits lie in the half that goes away.
        assert!(Bf16.round(f32::from_bits(0x7F80_0001)).is_nan());
    }
}
