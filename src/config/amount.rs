//! Points of training given either relative to its length or as they are.

use serde::{Deserialize, Serialize};

/// A point of training in steps: a value up to 1 is a fraction of training, a value above 1 is a step.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Steps(pub f64);

impl Steps {
    /// The step, halves rounded up, in a training of `steps` steps (mask schedules count partial batches as fractions).
    ///
    /// `multiplier` stretches what was given in steps as `steps` already stretches fractions.
    pub fn resolve(self, steps: f64, multiplier: f64) -> u64 {
        round_half_up(self.0 * if self.0 <= 1.0 { steps } else { multiplier })
    }
}

/// An epoch, counted from 1: a value below 1 is a fraction of training, one from 1 on an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub f64);

impl Epoch {
    /// The epoch in a training of `epochs` epochs: fractions are rounded up. `multiplier` as in [`Steps::resolve`].
    pub fn resolve(self, epochs: u64, multiplier: f64) -> u64 {
        let exact = self.0 * if self.0 < 1.0 { epochs as f64 } else { multiplier };
        ((exact - ROUNDING).ceil() as u64).max(1)
    }
}

/// Decimal fractions are not exact in binary: what is this close to a boundary is meant to be on it.
const ROUNDING: f64 = 1e-9;

/// Rounds halves up, where a half may have lost a rounding error.
pub fn round_half_up(x: f64) -> u64 {
    (x + 0.5 + ROUNDING).floor() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_up_to_one_are_fractions_and_values_above_are_steps() {
        for (value, steps, expected) in [
            (0.75, 920.0, 690),
            (0.5, 7.0, 4),
            (0.29, 50.0, 15),
            (1.0, 100.0, 100),
            (0.0, 100.0, 0),
            (1760.0, 100.0, 1760),
            (1.5, 100.0, 2),
        ] {
            assert_eq!(Steps(value).resolve(steps, 1.0), expected, "{value} of {steps}");
        }
        assert_eq!(Steps(0.5).resolve(200.0, 2.0), 100);
        assert_eq!(Steps(100.0).resolve(200.0, 2.0), 200);
    }

    #[test]
    fn fractions_of_epochs_are_rounded_up_to_an_epoch() {
        for (value, epochs, expected) in
            [(0.8, 250, 200), (0.8, 40, 32), (0.8, 12, 10), (0.07, 100, 7), (1.0, 40, 1), (32.0, 40, 32), (0.001, 5, 1)]
        {
            assert_eq!(Epoch(value).resolve(epochs, 1.0), expected, "{value} of {epochs}");
        }
        assert_eq!(Epoch(32.0).resolve(80, 2.0), 64);
    }
}
