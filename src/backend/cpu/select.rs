//! Exact selections for mask updates: the smallest weights to drop, the best positions to grow, the lower index first on ties.

use rayon::prelude::*;

use super::Cpu;
use super::memory::Place;
use crate::backend::{Growth, PruneAndGrow, Span, Weight};
use crate::bitmask::BitMask;
use crate::rng::{self, Domain};

/// An order-preserving key of |x|: magnitudes compare as their bits. NaN sorts above everything.
fn magnitude(x: f32) -> u32 {
    x.to_bits() & 0x7FFF_FFFF
}

/// The `count` candidates with the smallest keys, ties to the lower index.
fn smallest(candidates: impl Iterator<Item = (u32, usize)>, count: usize) -> Vec<usize> {
    // Key above index in one integer: its order is the order asked for, and no two are equal.
    let mut keys: Vec<u64> = candidates.map(|(key, index)| u64::from(key) << 32 | index as u64).collect();
    if count == 0 {
        return vec![];
    }
    if count < keys.len() {
        keys.select_nth_unstable(count - 1);
        keys.truncate(count);
    }
    keys.into_iter().map(|key| key as u32 as usize).collect()
}

impl Cpu {
    pub(super) fn update_masks(&mut self, jobs: &[PruneAndGrow]) {
        let memory = &self.memory;
        let layers = &self.layers;
        let updated: Vec<BitMask> = jobs
            .par_iter()
            .map(|job| {
                let get = |span: Span| memory.get(span);
                let layer = &layers[job.weight.layer];
                let (value, leak) = (get(job.weight.value), job.leak.map(get));
                let ranked = |i: usize| match leak {
                    Some(leak) if !layer.random.get(i) => leak[i],
                    _ => value[i],
                };
                let mut mask = layer.mask.clone();
                for i in smallest(mask.ones_at().map(|i| (magnitude(ranked(i)), i)), job.drop) {
                    mask.set(i, false);
                }
                let outside = (0..mask.len()).filter(|&i| !mask.get(i));
                let by = |score: &[f32]| smallest(outside.clone().map(|i| (!magnitude(score[i]), i)), job.grow);
                let grown = match job.growth {
                    Growth::Gradient => by(get(job.weight.grad)),
                    Growth::Momentum => by(get(job.velocity)),
                    Growth::Random { seed, step } => {
                        let layer = job.weight.layer as u32;
                        let key = |i| rng::element_key(seed, Domain::Growth, step, layer, i as u32);
                        smallest(outside.clone().map(|i| (key(i), i)), job.grow)
                    }
                };
                grown.into_iter().for_each(|i| mask.set(i, true));
                mask
            })
            .collect();
        for (job, mask) in jobs.iter().zip(updated) {
            self.change_mask(job.weight, mask, Some(job.velocity), job.dense_momentum, job.leak);
        }
    }

    /// Puts a new M in force: what left and what came starts at 0, with zero momentum unless that is dense.
    fn change_mask(&mut self, weight: Weight, mask: BitMask, velocity: Option<Span>, dense: bool, leak: Option<Span>) {
        let layer = &mut self.layers[weight.layer];
        let velocity = velocity.map_or(0..0, Place::range);
        let leak_range = leak.map_or(0..0, Place::range);
        let [value, velocity, leak_values] = self.memory.apart([weight.value.range(), velocity, leak_range]);
        for i in (0..mask.len()).filter(|&i| !(mask.get(i) && layer.mask.get(i))) {
            // The released code clears what the network holds; what Z dropped keeps its stale value aside.
            if leak.is_none() || layer.random.get(i) {
                value[i] = 0.0;
            }
            if let Some(leak) = leak_values.get_mut(i) {
                *leak = 0.0;
            }
            if let (Some(v), false) = (velocity.get_mut(i), dense) {
                *v = 0.0;
            }
        }
        layer.set_mask(mask);
    }

    pub(super) fn keep_largest(&mut self, weights: &[(Weight, Span)], keep: usize) {
        let offsets: Vec<usize> =
            weights.iter().scan(0, |at, (w, _)| Some(std::mem::replace(at, *at + w.len()))).collect();
        let candidates = weights.iter().zip(&offsets).flat_map(|((w, _), &offset)| {
            let value = self.memory.get(w.value);
            self.layers[w.layer].mask.ones_at().map(move |i| (!magnitude(value[i]), offset + i))
        });
        let mut kept: Vec<BitMask> = weights.iter().map(|(w, _)| BitMask::zeros(w.len())).collect();
        for i in smallest(candidates, keep) {
            let layer = offsets.partition_point(|&o| o <= i) - 1;
            kept[layer].set(i - offsets[layer], true);
        }
        for (&(weight, velocity), mask) in weights.iter().zip(kept) {
            self.change_mask(weight, mask, Some(velocity), false, None);
        }
    }

    pub(super) fn mean_inside(&self, weight: Weight, of: Span) -> f64 {
        let (mask, values) = (&self.layers[weight.layer].mask, self.memory.get(of));
        let sum: f64 = mask.ones_at().map(|i| f64::from(values[i].abs())).sum();
        sum / mask.count().max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selection_prefers_the_lower_index_on_ties() {
        let keys = [5, 3, 3, 3, 9, 1];
        let mut chosen = smallest(keys.into_iter().zip(0..), 3);
        chosen.sort();
        assert_eq!(chosen, [1, 2, 5]);
    }

    #[test]
    fn selection_of_none_and_of_all_is_exact() {
        assert!(smallest([(1, 0), (2, 1)].into_iter(), 0).is_empty());
        assert_eq!(smallest([(1, 0), (2, 1)].into_iter(), 2).len(), 2);
    }

    #[test]
    fn magnitudes_order_like_absolute_values() {
        let mut xs = [-0.0f32, 1e-40, -1e-3, 2.0, -3.5, f32::INFINITY];
        xs.sort_by_key(|&x| magnitude(x));
        assert_eq!(xs, [-0.0, 1e-40, -1e-3, 2.0, -3.5, f32::INFINITY]);
        assert_eq!(magnitude(-0.0), magnitude(0.0));
    }
}
