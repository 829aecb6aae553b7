//! When the deterministic mask is updated, and how much of it.

use serde::{Deserialize, Serialize};

/// The steps at which the mask is updated: 0-based step g with g < `end` and (g + 1) mod `delta_t` = 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpdateSteps {
    /// dT, the steps from one update to the next; at least 1.
    pub delta_t: u64,
    /// T_end, the step from which the mask is frozen.
    pub end: u64,
}

impl UpdateSteps {
    /// Whether the 0-based `step` updates the mask (and so takes no optimiser step).
    pub fn contains(&self, step: u64) -> bool {
        step < self.end && (step + 1).is_multiple_of(self.delta_t)
    }

    /// The number of updates among the first `steps` steps of a run.
    pub fn count(&self, steps: u64) -> u64 {
        self.end.min(steps) / self.delta_t
    }

    /// The last update among the first `steps` steps, where there is one.
    pub fn last(&self, steps: u64) -> Option<u64> {
        (self.count(steps) * self.delta_t).checked_sub(1)
    }
}

/// How the drop fraction falls from alpha to 0 over the steps 0 ..= T_end (RigL, section 3 and appendix G).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DropSchedule {
    /// alpha throughout.
    Constant,
    /// alpha (1 - g / T_end).
    Linear,
    /// alpha / 2 (1 + cos(pi g / T_end)).
    Cosine,
    /// RigL's inverse power alpha (1 - g / T_end)^k with its k = 3, the form of Zhu and Gupta's pruning schedule.
    Cubic,
}

impl DropSchedule {
    /// The drop fraction at the 0-based `step`, between 0 and `alpha`; 0 from step `end` on.
    pub fn fraction(self, alpha: f64, step: u64, end: u64) -> f64 {
        if step >= end {
            return 0.0;
        }
        let progress = step as f64 / end as f64;
        match self {
            DropSchedule::Constant => alpha,
            DropSchedule::Linear => alpha * (1.0 - progress),
            DropSchedule::Cosine => alpha / 2.0 * (1.0 + (std::f64::consts::PI * progress).cos()),
            DropSchedule::Cubic => alpha * (1.0 - progress).powi(3),
        }
    }
}

/// Weights to drop from a layer with `n_active` of them: ceil(fraction n_active), at most all.
pub fn drop_count(fraction: f64, n_active: usize) -> usize {
    ((fraction * n_active as f64).ceil() as usize).min(n_active)
}

/// Gradual magnitude pruning: s(t) = S (1 - (1 - t / t_n)^3) from dense (Zhu and Gupta, "To prune, or not to prune",
/// 2017, equation 1), where t counts steps from 1 and t_n is the last update, so that the target S is met exactly.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PruningSchedule {
    /// S, the final sparsity, in [0, 1).
    pub target: f64,
    /// When weights are removed.
    pub updates: UpdateSteps,
}

impl PruningSchedule {
    /// Sparsity once the 0-based `step` is done: constant between updates, the target after the last.
    pub fn sparsity(&self, step: u64) -> f64 {
        let all = self.updates.count(u64::MAX);
        let done = self.updates.count(step.saturating_add(1));
        self.target_after(done, all)
    }

    /// Mean density 1 - s over the first `steps` steps, E[1 - s_t] of the training cost. 1 where there are none.
    ///
    /// An update step itself still runs at the density before it.
    pub fn mean_density(&self, steps: u64) -> f64 {
        if steps == 0 {
            return 1.0;
        }
        let (all, done) = (self.updates.count(u64::MAX), self.updates.count(steps));
        let before_last: f64 = (0..done).map(|k| 1.0 - self.target_after(k, all)).sum();
        let rest = (steps - done * self.updates.delta_t) as f64;
        (before_last * self.updates.delta_t as f64 + rest * (1.0 - self.target_after(done, all))) / steps as f64
    }

    fn target_after(&self, done: u64, all: u64) -> f64 {
        if all == 0 {
            return 0.0;
        }
        self.target * (1.0 - (1.0 - done as f64 / all as f64).powi(3))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAPER: UpdateSteps = UpdateSteps { delta_t: 100, end: 65_918 };

    #[test]
    fn the_papers_schedule_has_659_updates_at_the_specified_steps() {
        let steps: Vec<u64> = (0..88_000).filter(|&g| PAPER.contains(g)).collect();
        assert_eq!((steps.len(), steps[0], steps[658]), (659, 99, 65_899));
        assert_eq!((PAPER.count(88_000), PAPER.last(88_000)), (659, Some(65_899)));
    }

    #[test]
    fn the_small_scale_schedules_have_34_and_69_updates() {
        assert_eq!(UpdateSteps { delta_t: 20, end: 690 }.count(920), 34);
        assert_eq!(UpdateSteps { delta_t: 20, end: 1_380 }.count(1_840), 69);
    }

    #[test]
    fn counting_agrees_with_listing_for_runs_cut_short() {
        for (delta_t, end) in [(1, 7), (5, 20), (5, 21), (5, 4), (3, 0)] {
            let updates = UpdateSteps { delta_t, end };
            for steps in 0..30 {
                let listed: Vec<u64> = (0..steps).filter(|&g| updates.contains(g)).collect();
                assert_eq!(updates.count(steps), listed.len() as u64, "{updates:?} in {steps}");
                assert_eq!(updates.last(steps), listed.last().copied(), "{updates:?} in {steps}");
            }
        }
    }

    #[test]
    fn drop_fractions_start_at_alpha_and_end_at_zero() {
        for (schedule, half) in [
            (DropSchedule::Constant, 0.3),
            (DropSchedule::Linear, 0.15),
            (DropSchedule::Cosine, 0.15),
            (DropSchedule::Cubic, 0.3 / 8.0),
        ] {
            assert_eq!(schedule.fraction(0.3, 0, 1000), 0.3);
            assert!((schedule.fraction(0.3, 500, 1000) - half).abs() < 1e-12, "{schedule:?}");
            assert_eq!(schedule.fraction(0.3, 1000, 1000), 0.0);
        }
        // cos(pi / 3) = 1 / 2, so a third of the way the cosine has fallen to three quarters of alpha.
        assert!((DropSchedule::Cosine.fraction(0.4, 300, 900) - 0.3).abs() < 1e-12);
    }

    #[test]
    fn a_fraction_of_a_weight_is_a_whole_one() {
        assert_eq!(drop_count(0.3, 11), 4);
        assert_eq!(drop_count(0.5, 10), 5);
        assert_eq!(drop_count(0.0, 10), 0);
        assert_eq!(drop_count(1e-9, 10), 1);
        assert_eq!(drop_count(1.0, 10), 10);
    }

    #[test]
    fn pruning_goes_from_dense_to_exactly_the_target_at_the_last_update() {
        let pruning = PruningSchedule { target: 0.9, updates: PAPER };
        assert_eq!(pruning.sparsity(98), 0.0);
        assert!((pruning.sparsity(99) - 0.9 * (1.0 - (658.0_f64 / 659.0).powi(3))).abs() < 1e-12);
        assert!(pruning.sparsity(65_898) < 0.9);
        assert_eq!(pruning.sparsity(65_899), 0.9);
        assert_eq!(pruning.sparsity(87_999), 0.9);
    }

    #[test]
    fn the_mean_density_of_pruning_is_that_of_its_steps() {
        let pruning = PruningSchedule { target: 0.8, updates: UpdateSteps { delta_t: 7, end: 50 } };
        for steps in [1, 6, 7, 8, 49, 50, 80] {
            // The density a step runs at is that which the step before it left.
            let listed: f64 =
                (0..steps).map(|g: u64| g.checked_sub(1).map_or(1.0, |b| 1.0 - pruning.sparsity(b))).sum();
            assert!((pruning.mean_density(steps) - listed / steps as f64).abs() < 1e-12, "{steps} steps");
        }
    }
}
