//! Exact selections for mask updates: the smallest weights to drop, the best positions to grow, the lower index first on ties.

use rayon::prelude::*;

use super::Cpu;
use super::masks::clear_outside;
use super::memory::Place;
use super::smallest::smallest;
use crate::backend::{Growth, PruneAndGrow, Span, Weight};
use crate::bitmask::BitMask;
use crate::rng::{self, Domain};

/// An order-preserving key of |x|: magnitudes compare as their bits. NaN sorts above everything.
fn magnitude(x: f32) -> u32 {
    x.to_bits() & 0x7FFF_FFFF
}

/// The key of each value.
fn fill(keys: &mut [u32], values: &[f32], key: impl Fn(f32) -> u32) {
    keys.iter_mut().zip(values).for_each(|(to, &x)| *to = key(x));
}

impl Cpu {
    pub(super) fn update_masks(&mut self, jobs: &[PruneAndGrow]) {
        let (memory, layers, level) = (&self.memory, &self.layers, self.level);
        let updated: Vec<BitMask> = jobs
            .par_iter()
            .map(|job| {
                let layer = &layers[job.weight.layer];
                let (value, leak) = (memory.get(job.weight.value), job.leak.map(|span| memory.get(span)));
                let ranked = |_, first: usize, keys: &mut [u32]| match leak {
                    None => fill(keys, &value[first..], magnitude),
                    Some(leak) => keys.iter_mut().zip(first..).for_each(|(key, i)| {
                        *key = magnitude(if layer.random.get(i) { value[i] } else { leak[i] });
                    }),
                };
                let one = |chosen: Vec<BitMask>| chosen.into_iter().next().expect("there is one mask");
                let dropped = one(smallest(&[&layer.mask], ranked, job.drop, level));
                let kept = layer.mask.without(&dropped);
                let outside = kept.complement();
                let largest = |score: &[f32]| {
                    let keys = |_, first: usize, keys: &mut [u32]| fill(keys, &score[first..], |x| !magnitude(x));
                    one(smallest(&[&outside], keys, job.grow, level))
                };
                let grown = match job.growth {
                    Growth::Gradient => largest(memory.get(job.weight.grad)),
                    Growth::Momentum => largest(memory.get(job.velocity)),
                    Growth::Random { seed, step } => {
                        let layer = job.weight.layer as u32;
                        let key = |i| rng::element_key(seed, Domain::Growth, step, layer, i as u32);
                        let keys = |_, first: usize, keys: &mut [u32]| {
                            keys.iter_mut().zip(first..).for_each(|(to, i)| *to = key(i));
                        };
                        one(smallest(&[&outside], keys, job.grow, level))
                    }
                };
                let mut mask = kept;
                mask.unite(&grown);
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
        let stayed = mask.without(&mask.without(&layer.mask));
        let mut valued = stayed.clone();
        if leak.is_some() {
            // The released code clears what the network holds; what Z dropped keeps its stale value aside.
            valued.unite(&layer.random.complement());
        }
        clear_outside(&valued, value, self.level);
        clear_outside(&stayed, leak_values, self.level);
        if !dense {
            clear_outside(&stayed, velocity, self.level);
        }
        layer.set_mask(mask);
    }

    pub(super) fn keep_largest(&mut self, weights: &[(Weight, Span)], keep: usize) {
        let masks: Vec<&BitMask> = weights.iter().map(|(weight, _)| &self.layers[weight.layer].mask).collect();
        let values: Vec<&[f32]> = weights.iter().map(|(weight, _)| self.memory.get(weight.value)).collect();
        let keys = |weight: usize, first: usize, keys: &mut [u32]| {
            fill(keys, &values[weight][first..], |x| !magnitude(x));
        };
        let kept = smallest(&masks, keys, keep, self.level);
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
    fn magnitudes_order_like_absolute_values() {
        let mut xs = [-0.0f32, 1e-40, -1e-3, 2.0, -3.5, f32::INFINITY];
        xs.sort_by_key(|&x| magnitude(x));
        assert_eq!(xs, [-0.0, 1e-40, -1e-3, 2.0, -3.5, f32::INFINITY]);
        assert_eq!(magnitude(-0.0), magnitude(0.0));
    }
}
