//! Numbers that know how far f32 arithmetic may be from them.

use std::iter::Sum;
use std::ops::{Add, Div, Mul, Neg, Sub};

use crate::backend::Precision;

/// The largest relative error of one f32 rounding.
const UNIT: f64 = 1.0 / (1 << 24) as f64;

/// A value in f64 and a bound on the error of the same computation in f32, from the standard model of rounding: every operation
/// passes on the errors of its operands and adds one rounding (Higham 2002, section 2.2).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Bounded {
    pub(crate) value: f64,
    pub(crate) error: f64,
}

impl Bounded {
    /// A number that f32 has exactly.
    pub(crate) fn exact(value: f64) -> Self {
        Bounded { value, error: 0.0 }
    }

    /// The result of one operation whose operands' errors make `error`.
    fn rounded(value: f64, error: f64) -> Self {
        Bounded { value, error: error + UNIT * (value.abs() + error) }
    }

    /// A value computed in some way whose absolute error is a few `roundings` of numbers as large as `magnitude`.
    pub(crate) fn after(roundings: f64, magnitude: f64, value: f64) -> Self {
        Bounded { value, error: roundings * UNIT * magnitude }
    }

    /// Whether an f32 result is one that this computation may give.
    pub(crate) fn admits(self, x: f32) -> bool {
        (f64::from(x) - self.value).abs() <= self.error
    }

    /// What a map of this precision holds of it. Rounding keeps the order of numbers, so it takes the ends of the interval where the
    /// value lies to those of the new one; a value known exactly becomes another.
    pub(crate) fn stored(self, precision: Precision) -> Self {
        if precision == Precision::F32 {
            return self;
        }
        if self.error == 0.0 {
            return Self::exact(nearest_bf16(self.value));
        }
        let [low, high] = [self.value - self.error, self.value + self.error].map(nearest_bf16);
        Bounded { value: (low + high) / 2.0, error: (high - low) / 2.0 }
    }

    pub(crate) fn sqrt(self) -> Self {
        let root = self.value.sqrt();
        let error = if self.error == 0.0 { 0.0 } else { root - (self.value - self.error).max(0.0).sqrt() };
        Self::rounded(root, error)
    }

    /// e^x, by an approximation good to two units in the last place.
    pub(crate) fn exp(self) -> Self {
        let value = self.value.exp();
        let passed = value * self.error.exp_m1();
        Bounded { value, error: passed + 4.0 * UNIT * (value + passed) }
    }

    /// ln x, by an approximation good to two units in the last place.
    pub(crate) fn ln(self) -> Self {
        let value = self.value.ln();
        let passed = -(-self.error / self.value).ln_1p();
        Bounded { value, error: passed + 4.0 * UNIT * (value.abs() + passed) }
    }

    /// max(0, x)
    pub(crate) fn rectified(self) -> Self {
        if self.value <= -self.error { Self::default() } else { Bounded { value: self.value.max(0.0), ..self } }
    }
}

/// The nearest number of 8 significant bits, or below 2^-126 the nearest multiple of 2^-133; the even one of two.
fn nearest_bf16(x: f64) -> f64 {
    let exponent = (x.abs().max(f64::from(f32::MIN_POSITIVE)).to_bits() >> 52) - 7;
    let step = f64::from_bits(exponent << 52);
    (x / step).round_ties_even() * step
}

impl From<f32> for Bounded {
    fn from(x: f32) -> Self {
        Self::exact(f64::from(x))
    }
}

impl Add for Bounded {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self::rounded(self.value + other.value, self.error + other.error)
    }
}

impl Sub for Bounded {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        self + -other
    }
}

impl Neg for Bounded {
    type Output = Self;
    fn neg(self) -> Self {
        Bounded { value: -self.value, ..self }
    }
}

impl Mul for Bounded {
    type Output = Self;
    fn mul(self, other: Self) -> Self {
        let error = self.value.abs() * other.error + other.value.abs() * self.error + self.error * other.error;
        Self::rounded(self.value * other.value, error)
    }
}

impl Div for Bounded {
    type Output = Self;
    fn div(self, by: Self) -> Self {
        let value = self.value / by.value;
        let error = (self.error + value.abs() * by.error) / (by.value.abs() - by.error).max(f64::MIN_POSITIVE);
        Self::rounded(value, error)
    }
}

/// A sum of products in an order of the device's choosing.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Accumulator {
    value: f64,
    passed: f64,
    magnitude: f64,
    terms: usize,
}

impl Accumulator {
    pub(crate) fn push(&mut self, term: Bounded) {
        self.value += term.value;
        self.passed += term.error;
        self.magnitude += term.value.abs() + term.error;
        self.terms += 1;
    }

    /// Adds a b, without the cost of rounding the product on its own.
    pub(crate) fn push_product(&mut self, a: Bounded, b: Bounded) {
        let product = a.value * b.value;
        self.value += product;
        self.passed += a.value.abs() * b.error + b.value.abs() * a.error + a.error * b.error;
        self.magnitude += product.abs();
        self.terms += 1;
    }

    /// The sum when no term goes through more than `depth` additions: error at most (depth + 2) roundings of the sum of
    /// magnitudes, one for the term's own product, one for a last addition.
    pub(crate) fn sum(self, depth: usize) -> Bounded {
        let roundings = (self.terms.min(depth) + 2) as f64;
        Bounded { value: self.value, error: self.passed + roundings * UNIT * (self.magnitude + self.passed) }
    }
}

impl Sum for Bounded {
    /// In any order.
    fn sum<I: Iterator<Item = Self>>(terms: I) -> Self {
        let mut all = Accumulator::default();
        terms.for_each(|term| all.push(term));
        all.sum(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f32_arithmetic_stays_within_its_bounds_and_the_bounds_are_tight() {
        let mut x = Bounded::exact(1.0);
        let mut y = 1.0f32;
        for i in 1..200 {
            let (a, b) = (1.0 + 1.0 / i as f32, 0.3 * i as f32);
            x = (x * a.into() + b.into()).sqrt() / (Bounded::from(a) - b.into());
            y = (y * a + b).sqrt() / (a - b);
            x.value = x.value.abs();
            y = y.abs();
            assert!(x.admits(y), "{i}: {y} is not {x:?}");
            assert!(x.error < 1e-4 * x.value, "{i}: {x:?}");
        }
    }

    // bf16 numbers next to 1: 1 - 2^-8, 1, 1 + 2^-7.
    #[test]
    fn what_bf16_holds_is_exact_unless_rounding_may_go_either_way() {
        let stored = |value, error| Bounded { value, error }.stored(Precision::Bf16);
        let (below, above) = (1.0 - 1.0 / 256.0, 1.0 + 1.0 / 128.0);
        assert_eq!(stored(1.003, 1e-6), Bounded::exact(1.0));
        assert_eq!(stored(-1.005, 1e-6), Bounded::exact(-above));
        let either = stored(1.0 + 1.0 / 256.0, 1e-9);
        assert!(either.admits(1.0) && either.admits(above as f32) && !either.admits(below as f32));
        assert_eq!(stored(1.0 + 1.0 / 256.0, 0.0), Bounded::exact(1.0));
        assert_eq!(stored(1e-42, 0.0), Bounded::exact(0.0));
        assert_eq!(Bounded { value: 1.003, error: 1e-6 }.stored(Precision::F32), Bounded { value: 1.003, error: 1e-6 });
    }

    #[test]
    fn exact_numbers_admit_nothing_else() {
        assert!(Bounded::from(0.1).admits(0.1) && !Bounded::from(0.1).admits(0.1f32.next_up()));
        assert!(!Bounded::exact(0.0).admits(f32::NAN));
    }
}
