//! Mask updates: which layers drop and grow how many weights. The selecting itself is the backend's.

use super::evolution::{Evolution, masks};
use super::schedule::Timetable;
use super::start::densities;
use super::trainer::{MaskChange, Moments};
use crate::Result;
use crate::backend::{Growth, PruneAndGrow, Span, Weight};
use crate::bitmask::BitMask;
use crate::config::{Config, MaskUpdates};
use crate::model::Model;
use crate::sparse::schedule::{DropSchedule, PruningSchedule, UpdateSteps, drop_count};
use crate::sparse::snfs;

/// A method's way of updating M.
pub(super) struct MaskUpdater {
    kind: MaskUpdates,
    seed: u64,
    alpha: f64,
    schedule: DropSchedule,
    updates: UpdateSteps,
    pruning: PruningSchedule,
    /// The layers whose planned density is 1: they take no part.
    dense: Vec<bool>,
}

impl MaskUpdater {
    pub(super) fn new(config: &Config, timetable: &Timetable, model: &Model) -> Result<Self> {
        Ok(MaskUpdater {
            kind: config.ingredients().updates,
            seed: config.seed,
            alpha: config.sparse.alpha,
            schedule: config.sparse.schedule,
            updates: timetable.updates,
            pruning: PruningSchedule { target: config.sparsity, updates: timetable.updates },
            dense: densities(config, model)?.iter().map(|density| density.is_dense()).collect(),
        })
    }

    /// Updates the masks of all layers after the passes of step `g`, which their evolution then counts.
    pub(super) fn update(
        &self,
        model: &mut Model,
        evolution: &mut Evolution,
        moments: &[Moments],
        g: u64,
    ) -> Result<MaskChange> {
        let layers: Vec<(Weight, Moments)> = moments.iter().filter_map(|m| Some((model.weight(m.id)?, *m))).collect();
        let before = masks(model)?;
        let drop_fraction = if self.kind == MaskUpdates::Gmp {
            let all: usize = layers.iter().map(|(w, _)| w.len()).sum();
            let active: usize = before.iter().map(BitMask::count).sum();
            let keep = ((1.0 - self.pruning.sparsity(g)) * all as f64 + 0.5) as usize;
            let places: Vec<(Weight, Span)> = layers.iter().map(|(w, m)| (*w, m.velocity)).collect();
            model.backend().prune_globally(&places, keep)?;
            active.saturating_sub(keep) as f64 / active.max(1) as f64
        } else {
            let fraction = self.schedule.fraction(self.alpha, g, self.updates.end);
            let jobs = self.jobs(model, &layers, &before, fraction, g)?;
            model.backend().prune_and_grow(&jobs)?;
            fraction
        };
        let after = masks(model)?;
        let kept: usize = before.iter().zip(&after).map(|(a, b)| a.overlap(b)).sum();
        let active: usize = after.iter().map(BitMask::count).sum();
        evolution.take_in(&after);
        let overlap = kept as f64 / active.max(1) as f64;
        Ok(MaskChange { drop_fraction, overlap, masks: evolution.state(&after) })
    }

    /// Drop as many as the schedule says in every layer that is not dense, and grow as many.
    fn jobs(
        &self,
        model: &mut Model,
        layers: &[(Weight, Moments)],
        masks: &[BitMask],
        fraction: f64,
        g: u64,
    ) -> Result<Vec<PruneAndGrow>> {
        let sparse: Vec<usize> = (0..layers.len()).filter(|&l| !self.dense[l]).collect();
        let drops: Vec<usize> = sparse.iter().map(|&l| drop_count(fraction, masks[l].count())).collect();
        let grows = if self.kind == MaskUpdates::Snfs {
            let mut candidates = Vec::with_capacity(sparse.len());
            for (&l, drop) in sparse.iter().zip(&drops) {
                let (weight, moments) = layers[l];
                let free = weight.len() - masks[l].count() + drop;
                candidates.push((model.backend().mean_magnitude(weight, moments.velocity)?, free));
            }
            snfs::redistribute(drops.iter().sum(), &candidates)
        } else {
            drops.clone()
        };
        let growth = match self.kind {
            MaskUpdates::Set => Growth::Random { seed: self.seed, step: g as u32 },
            MaskUpdates::Snfs => Growth::Momentum,
            _ => Growth::Gradient,
        };
        let job = |((&l, drop), grow): ((&usize, usize), usize)| PruneAndGrow {
            weight: layers[l].0,
            drop,
            grow,
            growth,
            velocity: layers[l].1.velocity,
            dense_momentum: self.kind == MaskUpdates::Snfs,
            leak: layers[l].1.leak,
        };
        Ok(sparse.iter().zip(drops).zip(grows).map(job).collect())
    }
}

/// The mask of the `count` largest |x|, ties to the lower index.
pub(super) fn largest(values: &[f32], count: usize) -> BitMask {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[b].abs().total_cmp(&values[a].abs()).then(a.cmp(&b)));
    let mut mask = BitMask::zeros(values.len());
    order[..count].iter().for_each(|&i| mask.set(i, true));
    mask
}
