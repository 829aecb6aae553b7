//! The Brier score's decomposition, class by class over bins.

use super::one_vs_rest::ClassTally;

/// Sums over the samples of one bin of a class, p being its probability and y = [label is the class].
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct BinSums {
    pub(super) n: f64,
    /// Of y.
    pub(super) positives: f64,
    pub(super) p: f64,
    pub(super) p_squared: f64,
    /// Of p y.
    pub(super) p_of_positives: f64,
}

impl BinSums {
    pub(super) fn of(tally: &ClassTally) -> Self {
        BinSums {
            n: tally.n as f64,
            positives: tally.positives as f64,
            p: tally.p().value(),
            p_squared: tally.p_squared().value(),
            p_of_positives: tally.p_of_positives().value(),
        }
    }

    /// Adds `copies` of a sample; a negative number takes them away.
    pub(super) fn add(&mut self, copies: f64, p: f64, positive: bool) {
        self.n += copies;
        self.p += copies * p;
        self.p_squared += copies * p * p;
        if positive {
            self.positives += copies;
            self.p_of_positives += copies * p;
        }
    }
}

/// The terms of brier = reliability - resolution + uncertainty + within-bin.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct BrierParts {
    pub(super) reliability: f64,
    pub(super) resolution: f64,
    pub(super) uncertainty: f64,
    pub(super) within_bin: f64,
}

impl BrierParts {
    /// Adds one class's: Murphy's decomposition (1973), with the within-bin variance and covariance of Stephenson et al. (2008)
    /// as one term. `samples` is the number in all bins.
    pub(super) fn add_class(&mut self, bins: &[BinSums], samples: f64) {
        let base_rate = bins.iter().map(|bin| bin.positives).sum::<f64>() / samples;
        self.uncertainty += base_rate * (1.0 - base_rate);
        for bin in bins.iter().filter(|bin| bin.n > 0.0) {
            let weight = bin.n / samples;
            let (rate, forecast) = (bin.positives / bin.n, bin.p / bin.n);
            let (mean_square, mean_product) = (bin.p_squared / bin.n, bin.p_of_positives / bin.n);
            self.reliability += weight * (forecast - rate).powi(2);
            self.resolution += weight * (rate - base_rate).powi(2);
            let (variance, covariance) = (mean_square - forecast * forecast, mean_product - forecast * rate);
            self.within_bin += weight * (variance - 2.0 * covariance);
        }
    }
}
