//! Sums that do not depend on the order of their terms.

use std::ops::AddAssign;

/// The fixed-point unit's inverse, 2^32.
const SCALE: f64 = 4_294_967_296.0;

/// A term from here on counts as infinite: no loss means anything at 10^12, and 2^55 smaller ones cannot overflow.
const LARGEST: f64 = 1_099_511_627_776.0;

/// Terms up to this size take the short way of [`units`].
const SMALL: f64 = 524_288.0;

/// So many terms below [`SMALL`], which is 2^51 units, add up in 64 bits.
const MOST_AT_ONCE: usize = 1 << 11;

/// 1.5 x 2^20.
const ANCHOR: f64 = 1_572_864.0;

/// A term below [`SMALL`] in units, rounded to the nearest, ties to even, in one addition: numbers around 1.5 x 2^20 are
/// multiples of 2^-32, and as bits they count up by one from each to the next.
#[inline(always)]
pub(super) fn units(term: f64) -> i64 {
    (term + ANCHOR).to_bits().wrapping_sub(ANCHOR.to_bits()) as i64
}

/// Whether all numbers within 2e-13 of a term are rounded to the same unit; never of a term from 256 on.
#[inline(always)]
pub(super) fn is_clear(term: f64) -> bool {
    let nearest = (term + ANCHOR) - ANCHOR;
    (term.abs() < 256.0) & ((term - nearest).abs() < 0.499 / SCALE)
}

/// A sum of terms, each rounded once to a multiple of 2^-32 and then added as an integer; infinities are counted apart.
///
/// Any order and any split into shards gives the same bits. The rounding moves a mean by 1.2e-10 at most. A device may keep
/// the integer in 64 bits: terms up to 100 leave room for 20 million samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExactSum {
    units: i128,
    infinite: u64,
}

impl ExactSum {
    /// A sum that somebody else made: of its finite terms in multiples of 2^-32, and the number of infinite ones.
    pub(super) fn of_units(units: u64, infinite: u64) -> Self {
        ExactSum { units: units.into(), infinite }
    }

    /// Adds a term that is not NaN and not below -2^40; from 2^40 on it counts as infinite.
    pub fn add(&mut self, term: f64) {
        if term.abs() < SMALL {
            self.units += i128::from(units(term));
        } else if term < LARGEST {
            self.units += (term * SCALE).round_ties_even() as i128;
        } else {
            self.infinite += 1;
        }
    }

    /// Adds terms of the kind that [`Self::add`] takes, in vectors where they are all small.
    #[inline(always)]
    pub(super) fn add_all(&mut self, terms: &[f64]) {
        for terms in terms.chunks(MOST_AT_ONCE) {
            let mut large = 0u32;
            for term in terms {
                large |= u32::from(term.abs() >= SMALL);
            }
            if large == 0 {
                self.units += i128::from(terms.iter().map(|&term| units(term)).sum::<i64>());
            } else {
                terms.iter().for_each(|&term| self.add(term));
            }
        }
    }

    /// The sum; infinite when a term was.
    pub fn value(self) -> f64 {
        if self.infinite > 0 { f64::INFINITY } else { self.finite() }
    }

    /// How many terms were infinite.
    pub fn infinite(self) -> u64 {
        self.infinite
    }

    /// `count` minus the sum of the finite terms, exact until the last rounding: a bin's correct ones less its confidences.
    pub fn below(self, count: u64) -> f64 {
        (((i128::from(count)) << 32) - self.units) as f64 / SCALE
    }

    /// A sum of so many units, none infinite.
    pub(super) fn from_units(units: u64) -> Self {
        ExactSum { units: i128::from(units), infinite: 0 }
    }

    fn finite(self) -> f64 {
        self.units as f64 / SCALE
    }
}

impl AddAssign for ExactSum {
    fn add_assign(&mut self, other: Self) {
        self.units += other.units;
        self.infinite += other.infinite;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn multiples_of_the_unit_add_without_any_rounding() {
        let mut sum = ExactSum::default();
        for term in [1e12, 0.25, -1e12, 1.0 / SCALE] {
            sum.add(term);
        }
        assert_eq!(sum.value(), 0.25 + 1.0 / SCALE);
    }

    #[test]
    fn the_short_way_rounds_to_the_nearest_unit_and_ties_to_even() {
        let unit = 1.0 / SCALE;
        for (term, expected) in
            [(0.5, 0), (1.5, 2), (2.5, 2), (-0.5, 0), (-1.5, -2), (0.49, 0), (0.51, 1), (4_294_967_296.0, 1 << 32)]
        {
            assert_eq!(units(term * unit), expected, "{term} units");
        }
        assert_eq!([units(SMALL - unit), units(unit - SMALL)], [(1 << 51) - 1, 1 - (1 << 51)]);
    }

    #[test]
    fn terms_add_up_to_the_same_at_once_and_one_by_one() {
        let small: Vec<f64> = (0..5000).map(|i| f64::from(i) / 7.0 - 300.0).collect();
        for more in [&[][..], &[SMALL - 1.0; 3000], &[2.0 * SMALL, 1.0], &[f64::INFINITY]] {
            let terms = [&small, more].concat();
            let (mut at_once, mut one_by_one) = (ExactSum::default(), ExactSum::default());
            at_once.add_all(&terms);
            terms.iter().for_each(|&term| one_by_one.add(term));
            assert_eq!(at_once, one_by_one);
        }
    }

    #[test]
    fn a_term_near_the_middle_between_two_units_is_not_clear() {
        for (units_of_term, expected) in
            [(0.0, true), (7.0, true), (7.498, true), (7.4999, false), (7.5, false), (7.5009, false), (7.502, true)]
        {
            assert_eq!(is_clear(units_of_term / SCALE), expected, "{units_of_term} units");
        }
        assert!(!is_clear(f64::INFINITY) && !is_clear(f64::NAN) && !is_clear(256.0));
    }

    #[test]
    fn an_infinite_term_is_counted_and_makes_the_sum_infinite() {
        let mut sum = ExactSum::default();
        sum.add(2.0);
        sum.add(f64::INFINITY);
        assert_eq!((sum.value(), sum.infinite()), (f64::INFINITY, 1));
    }
}
