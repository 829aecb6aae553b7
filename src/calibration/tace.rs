//! The thresholded adaptive calibration error of one class (Nixon et al. 2019).
//!
//! Of its equal-mass bins only sums are wanted, and those are exact, so that the order inside a bin does not matter. Pairs are
//! counted in narrow cells of probability, and only the few cells that a bin ends in are sorted.

use super::adaptive::{Pair, TACE_THRESHOLD, equal_mass_bin};
use super::exact_sum::{ExactSum, units};

/// Pairs that differ in so many of their lowest bits only share a cell: of an octave of probabilities there are 2,048.
const CELL_BITS: u32 = 13;

/// The cell of the smallest probability above the threshold.
const FIRST: u32 = TACE_THRESHOLD.to_bits() >> (CELL_BITS - 1);

/// Cells up to probability 1, and one more for those that rounded to above it.
const CELLS: usize = ((1f32.to_bits() >> (CELL_BITS - 1)) - FIRST + 1) as usize;

/// Below this number of pairs sorting them is faster than going through the cells.
const FEW: usize = 1 << 16;

/// Probabilities above 2^-7 are multiples of 2^-30, so f64 adds them exactly, in any order, up to a sum of 2^23.
const MOST_IN_BIN: usize = 1 << 23;

/// Sums of the pairs of a cell, the probabilities' in units of 2^-32.
#[derive(Clone, Copy, Default)]
struct Sums {
    n: u32,
    hits: u32,
    p: u64,
}

impl Sums {
    #[inline(always)]
    fn add(&mut self, pair: Pair) {
        self.n += 1;
        self.hits += u32::from(pair.hit());
        self.p += units(f64::from(pair.probability())) as u64;
    }

    fn merge(&mut self, other: &Sums) {
        self.n += other.n;
        self.hits += other.hits;
        self.p += other.p;
    }
}

/// One class's part: of its pairs (p_k, [y = k]) with p_k > 0.01, in any order and division, in `count` equal-mass bins weighted
/// n_b / N with N all `samples`.
pub(super) fn of_class(lists: &[&[Pair]], samples: u64, count: usize) -> f64 {
    let total: usize = lists.iter().map(|list| list.len()).sum();
    let surpluses = if total < FEW || total.div_ceil(count) > MOST_IN_BIN {
        by_sorting(lists, count)
    } else {
        by_cells(lists, total, count)
    };
    surpluses.iter().map(|surplus| surplus.abs()).sum::<f64>() / samples as f64
}

/// Hits less the sum of probabilities of each bin.
fn by_sorting(lists: &[&[Pair]], count: usize) -> Vec<f64> {
    let mut pairs = lists.concat();
    pairs.sort_unstable();
    (0..count).map(|bin| equal_mass_bin(&pairs, bin, count).2).collect()
}

/// As [`by_sorting`].
fn by_cells(lists: &[&[Pair]], total: usize, count: usize) -> Vec<f64> {
    let cell_of = |pair: &Pair| ((pair.bits() >> CELL_BITS) - FIRST) as usize;
    let mut cells = vec![Sums::default(); CELLS];
    for list in lists {
        list.iter().for_each(|pair| cells[cell_of(pair)].add(*pair));
    }

    // The bin of which the pairs are that `place` come before in sorted order: see [`equal_mass_bins`](super::adaptive::equal_mass_bins).
    let bin_of = |place: usize| (((place as u128 + 1) * count as u128 - 1) / total as u128) as usize;
    let mut bins = vec![Sums::default(); count];
    let (mut starts, mut divided) = (vec![0; CELLS], vec![false; CELLS]);
    let mut before = 0;
    for ((cell, start), divided) in cells.iter().zip(&mut starts).zip(&mut divided).filter(|item| item.0.0.n > 0) {
        *start = before;
        before += cell.n as usize;
        let (first, last) = (bin_of(*start), bin_of(before - 1));
        *divided = first != last;
        if !*divided {
            bins[first].merge(cell);
        }
    }

    let mut rest = Vec::new();
    for list in lists {
        rest.extend(list.iter().filter(|pair| divided[cell_of(pair)]));
    }
    rest.sort_unstable();
    for of_cell in rest.chunk_by(|a, b| cell_of(a) == cell_of(b)) {
        let start = starts[cell_of(&of_cell[0])];
        of_cell.iter().zip(start..).for_each(|(pair, place)| bins[bin_of(place)].add(*pair));
    }
    bins.iter().map(|bin| ExactSum::from_units(bin.p).below(bin.hits.into())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Domain, Stream};

    fn pairs(seed: u64, number: usize, mut draw: impl FnMut(&mut Stream) -> f32) -> Vec<Pair> {
        let mut random = Stream::new(seed, Domain::Bootstrap, 0, 12);
        (0..number).map(|_| Pair::new(draw(&mut random), random.uniform() < 0.4)).collect()
    }

    // By hand: bins {.25 miss, .5 hit} and {.75 hit}, or the first alone.
    #[test]
    fn three_pairs_in_two_bins_by_hand() {
        let pairs = [(0.75, true), (0.25, false), (0.5, true)].map(|(p, hit)| Pair::new(p, hit));
        assert_eq!(by_cells(&[&pairs], 3, 2), [-0.25, 0.5 + 0.25]);
        assert_eq!(of_class(&[&pairs[..1], &pairs[1..]], 10, 2), (0.25 + 0.75) / 10.0);
    }

    #[test]
    fn cells_give_the_bits_of_sorting() {
        let few_values = pairs(1, 70_000, |random| (1 + random.below(7)) as f32 / 7.0);
        let confident = pairs(2, 70_000, |random| 1.0 - 1e-5 * random.uniform() as f32);
        let uniform = pairs(3, 90_000, |random| 0.011 + 0.989 * random.uniform() as f32);
        let ends: Vec<Pair> =
            [TACE_THRESHOLD.next_up(), 1.0, 1.0 + 1e-5].repeat(1000).into_iter().map(|p| Pair::new(p, true)).collect();
        for lists in [&[&few_values[..]][..], &[&confident], &[&uniform, &[], &confident], &[&ends, &few_values[..9]]] {
            let total = lists.iter().map(|list| list.len()).sum();
            for count in [1, 2, 15, 1000, 100_003] {
                assert_eq!(by_cells(lists, total, count), by_sorting(lists, count), "{total} pairs, {count} bins");
            }
        }
    }
}
