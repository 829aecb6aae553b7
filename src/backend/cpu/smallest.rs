//! Exact selection: of the candidates in some masks those with the smallest keys, the lower position first on ties.
//!
//! A sample of the candidates tells between which two keys the last chosen one lies. One pass over all of them then settles everything
//! but what lies between, and only that is ordered. The choice never depends on the sample: where it misled, the pass is made again
//! without bounds.

use rayon::prelude::*;

use super::simd::{Lanes, Level, dispatch};
use crate::bitmask::BitMask;

/// Words of a mask that a task looks at.
const WORDS: usize = 512;

/// Positions that are looked at for the sample: more of them cost random reads, fewer leave more to order.
const SAMPLE: usize = 1 << 14;

/// Fewer candidates than this are ordered without asking a sample first.
const FEW: usize = 4 * SAMPLE;

/// The `count` ones of `masks`, or all where there are fewer, with the smallest keys; of equal keys those in an earlier mask, and in
/// one mask the lower index. `keys` fills in the keys of the elements of a mask (its number) from an index on.
pub(super) fn smallest(
    masks: &[&BitMask],
    keys: impl Fn(usize, usize, &mut [u32]) + Sync,
    count: usize,
    level: Level,
) -> Vec<BitMask> {
    let candidates = masks.iter().map(|mask| mask.count()).sum::<usize>();
    if count >= candidates {
        return masks.iter().map(|&mask| mask.clone()).collect();
    }
    if count == 0 {
        return masks.iter().map(|mask| BitMask::zeros(mask.len())).collect();
    }
    const ALL: [u32; 2] = [0, u32::MAX];
    let bounds = if candidates < FEW { ALL } else { sampled_bounds(masks, &keys, count as f64 / candidates as f64) };
    let (mut chosen, mut between) = divide(masks, &keys, bounds, level);
    let settled = |chosen: &[BitMask]| chosen.iter().map(BitMask::count).sum::<usize>();
    if !(settled(&chosen)..=settled(&chosen) + between.len()).contains(&count) {
        (chosen, between) = divide(masks, &keys, ALL, level);
    }
    let rest = count - settled(&chosen);
    if rest > 0 && rest < between.len() {
        between.select_nth_unstable(rest - 1);
    }
    let starts = starts(masks);
    for key_and_position in &between[..rest] {
        let position = *key_and_position as u32 as usize;
        let mask = starts.partition_point(|&start| start <= position) - 1;
        chosen[mask].set(position - starts[mask], true);
    }
    chosen
}

/// Where each mask begins, were they one behind the other.
fn starts(masks: &[&BitMask]) -> Vec<usize> {
    masks.iter().scan(0, |at, mask| Some(std::mem::replace(at, *at + mask.len()))).collect()
}

/// Keys that should enclose the one below which a share `q` of the candidates lies: four standard deviations of the sample to either
/// side.
fn sampled_bounds(masks: &[&BitMask], keys: &impl Fn(usize, usize, &mut [u32]), q: f64) -> [u32; 2] {
    let starts = starts(masks);
    let total = masks.iter().map(|mask| mask.len() as u64).sum::<u64>();
    // Multiples of the golden ratio of 2^32: they fill the range evenly, and no stride of a tensor divides them.
    let spread = |j: usize| (((j as u64).wrapping_mul(0x9E37_79B9) & 0xFFFF_FFFF) * total) >> 32;
    let mut sample: Vec<u32> = (0..SAMPLE)
        .filter_map(|j| {
            let position = spread(j) as usize;
            let mask = starts.partition_point(|&start| start <= position) - 1;
            let index = position - starts[mask];
            let mut key = [0];
            masks[mask].get(index).then(|| keys(mask, index, &mut key)).map(|()| key[0])
        })
        .collect();
    sample.sort_unstable();
    let n = sample.len() as f64;
    let (middle, reach) = (q * n, 4.0 * (n * q * (1.0 - q)).sqrt() + 2.0);
    let at = |rank: f64, beyond: u32| match rank {
        rank if rank < 0.0 => beyond,
        rank => sample.get(rank as usize).copied().unwrap_or(beyond),
    };
    [at(middle - reach, 0), at(middle + reach, u32::MAX)]
}

/// The candidates with keys below the first bound, and of those from there up to and with the second one key (high half) and position
/// over all masks (low half).
fn divide(
    masks: &[&BitMask],
    keys: &(impl Fn(usize, usize, &mut [u32]) + Sync),
    [lower, upper]: [u32; 2],
    level: Level,
) -> (Vec<BitMask>, Vec<u64>) {
    let (mut all_below, mut all_between) = (vec![], vec![]);
    for ((number, mask), start) in masks.iter().enumerate().zip(starts(masks)) {
        let mut below = vec![0; mask.words().len()];
        let chunks = below.par_chunks_mut(WORDS).zip(mask.words().par_chunks(WORDS)).enumerate();
        let between: Vec<Vec<u64>> = chunks
            .map(|(chunk, (below, candidates))| {
                let first = 32 * WORDS * chunk;
                let mut of = vec![u32::MAX; 32 * candidates.len()];
                let inside = of.len().min(mask.len() - first);
                keys(number, first, &mut of[..inside]);
                let mut within = vec![0; candidates.len()];
                dispatch!(level, compare(
                    keys: &[u32] = &of,
                    bounds: [u32; 2] = [lower, upper],
                    candidates: &[u32] = candidates,
                    below: &mut [u32] = below,
                    within: &mut [u32] = &mut within,
                ));
                let within = BitMask::from_words(within, of.len());
                within.ones_at().map(|i| u64::from(of[i]) << 32 | (start + first + i) as u64).collect()
            })
            .collect();
        all_below.push(BitMask::from_words(below, mask.len()));
        all_between.extend(between.into_iter().flatten());
    }
    (all_below, all_between)
}

/// Sets the bits of candidates with keys below the bounds and within them: 32 keys a word.
#[inline(always)]
unsafe fn compare<L: Lanes>(
    keys: &[u32],
    [lower, upper]: [u32; 2],
    candidates: &[u32],
    below: &mut [u32],
    within: &mut [u32],
) {
    let words = keys.as_chunks::<32>().0.iter().zip(candidates).zip(below).zip(within);
    for (((keys, &candidates), below), within) in words {
        let (mut less, mut most) = (0, 0);
        for (i, &key) in keys.iter().enumerate() {
            less |= u32::from(key < lower) << i;
            most |= u32::from(key <= upper) << i;
        }
        *below = less & candidates;
        *within = most & !less & candidates;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Domain, Stream};

    /// The definition: sort everything.
    fn sorted(masks: &[&BitMask], keys: &[Vec<u32>], count: usize) -> Vec<BitMask> {
        let ones = masks.iter().enumerate().flat_map(|(m, mask)| mask.ones_at().map(move |i| (m, i)));
        let mut order: Vec<(u32, usize, usize)> = ones.map(|(m, i)| (keys[m][i], m, i)).collect();
        order.sort();
        let mut chosen: Vec<BitMask> = masks.iter().map(|mask| BitMask::zeros(mask.len())).collect();
        order.into_iter().take(count).for_each(|(_, m, i)| chosen[m].set(i, true));
        chosen
    }

    fn assert_chooses_as_sorting(masks: &[&BitMask], keys: &[Vec<u32>], count: usize) {
        let fill = |m: usize, first: usize, to: &mut [u32]| to.copy_from_slice(&keys[m][first..][..to.len()]);
        for level in Level::available() {
            assert!(smallest(masks, fill, count, level) == sorted(masks, keys, count), "{count} on {level:?}");
        }
    }

    #[test]
    fn ties_go_to_the_lower_index_and_none_and_all_are_exact() {
        let mask = BitMask::from_fn(6, |i| i != 4);
        for count in [0, 1, 3, 4, 5, 9] {
            assert_chooses_as_sorting(&[&mask], &[vec![5, 3, 3, 3, 0, 1]], count);
        }
    }

    #[test]
    fn large_tensors_are_chosen_from_as_if_all_were_sorted() {
        let mut stream = Stream::new(11, Domain::Shuffle, 0, 0);
        let lens = [150_001, 31, 260_000];
        let random: Vec<Vec<u32>> = lens.iter().map(|&n| (0..n).map(|_| stream.below(1 << 30)).collect()).collect();
        let masks = lens.map(|n| BitMask::from_fn(n, |_| stream.below(10) > 2));
        let masks: Vec<&BitMask> = masks.iter().collect();
        // What a sample cannot foresee: few distinct keys, one key, and small keys where no sample looks.
        let coarse: Vec<Vec<u32>> = random.iter().map(|keys| keys.iter().map(|key| key % 3).collect()).collect();
        let equal: Vec<Vec<u32>> = lens.iter().map(|&n| vec![7; n]).collect();
        let hidden: Vec<Vec<u32>> = lens.iter().map(|&n| (0..n as u32).map(|i| u32::from(i > 5)).collect()).collect();
        for keys in [&random, &coarse, &equal, &hidden] {
            for count in [1, 5, 1_000, 90_000, 250_000] {
                assert_chooses_as_sorting(&masks, keys, count);
            }
        }
    }
}
