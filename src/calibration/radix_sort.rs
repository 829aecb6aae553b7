//! Sorting of many pairs by the digits of their bits.
//!
//! A comparison sort of ten million confidences mispredicts a branch for every second comparison. Here the leading bits send each
//! pair into one of 512 buckets, all lists at once, and each bucket, by then small enough for a cache, is sorted by its other bits,
//! nine at a time from the lowest. Equal pairs are alike, so neither the division nor the number of threads shows in the result.

use rayon::prelude::*;

use super::adaptive::Pair;

/// Bits of a digit: the ends of so many buckets stay in the first-level cache.
const DIGIT: u32 = 9;
const BUCKETS: usize = 1 << DIGIT;

/// Below this number comparisons are faster than counting digits.
const FEW: usize = 2048;

/// All pairs of the lists in ascending order.
pub(super) fn sorted(lists: &[Vec<Pair>]) -> Vec<Pair> {
    let of_lists = lists.iter().flatten();
    let (Some(least), Some(most)) = (of_lists.clone().min(), of_lists.max()) else { return Vec::new() };
    let bits = u32::BITS - (most.bits() - least.bits()).leading_zeros();
    let below = bits.saturating_sub(DIGIT);
    let bucket_of = |pair: &Pair| ((pair.bits() - least.bits()) >> below) as usize;

    let counts: Vec<[usize; BUCKETS]> = (lists.par_iter())
        .map(|list| {
            let mut counts = [0; BUCKETS];
            list.iter().for_each(|pair| counts[bucket_of(pair)] += 1);
            counts
        })
        .collect();

    let mut all = vec![Pair::default(); lists.iter().map(Vec::len).sum()];
    // Of each list the room it fills: a part of every bucket.
    let mut rooms: Vec<Vec<&mut [Pair]>> = lists.iter().map(|_| Vec::with_capacity(BUCKETS)).collect();
    let mut left = &mut all[..];
    for bucket in 0..BUCKETS {
        for (rooms, counts) in rooms.iter_mut().zip(&counts) {
            let (room, rest) = left.split_at_mut(counts[bucket]);
            rooms.push(room);
            left = rest;
        }
    }
    lists.par_iter().zip(rooms).for_each(|(list, mut rooms)| {
        let mut filled = [0; BUCKETS];
        for pair in list {
            let bucket = bucket_of(pair);
            rooms[bucket][filled[bucket]] = *pair;
            filled[bucket] += 1;
        }
    });

    let mut buckets = Vec::with_capacity(BUCKETS);
    let mut left = &mut all[..];
    for bucket in 0..BUCKETS {
        let (room, rest) = left.split_at_mut(counts.iter().map(|counts| counts[bucket]).sum());
        buckets.push(room);
        left = rest;
    }
    buckets.into_par_iter().for_each_init(Vec::new, |other, bucket| sort_bucket(bucket, other, least.bits(), below));
    all
}

/// Sorts pairs that differ in the lowest `bits` bits of their distance to `least` only; `other` is room that is used again.
fn sort_bucket(bucket: &mut [Pair], other: &mut Vec<Pair>, least: u32, bits: u32) {
    if bucket.len() < FEW {
        bucket.sort_unstable();
        return;
    }
    other.resize(bucket.len(), Pair::default());
    let (mut from, mut to) = (&mut *bucket, &mut other[..]);
    let mut swapped = false;
    for shift in (0..bits).step_by(DIGIT as usize) {
        let digit = |pair: &Pair| (pair.bits() - least) as usize >> shift & (BUCKETS - 1);
        let mut ends = [0u32; BUCKETS];
        from.iter().for_each(|pair| ends[digit(pair)] += 1);
        let mut start = 0;
        for end in &mut ends {
            start += std::mem::replace(end, start);
        }
        for pair in from.iter() {
            let at = &mut ends[digit(pair)];
            to[*at as usize] = *pair;
            *at += 1;
        }
        std::mem::swap(&mut from, &mut to);
        swapped = !swapped;
    }
    if swapped {
        to.copy_from_slice(from);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Domain, Stream};

    #[test]
    fn lists_of_every_length_and_spread_come_out_as_the_standard_library_sorts_them() {
        let mut random = Stream::new(4, Domain::Bootstrap, 0, 0);
        for (length, low, high) in [
            (0, 0.0, 1.0),
            (1, 0.0, 1.0),
            (3000, 0.5, 0.5),
            (5000, 0.999, 1.0),
            (300_000, 0.0, 1.0),
            (100_000, 0.1, 0.1001),
        ] {
            let mut draw = || Pair::new((low + (high - low) * random.uniform()) as f32, random.uniform() < 0.5);
            let lists = [length, 0, length / 3].map(|length| (0..length).map(|_| draw()).collect::<Vec<_>>());
            let mut expected = lists.concat();
            expected.sort_unstable();
            assert_eq!(sorted(&lists), expected, "{length} pairs from {low} to {high}");
        }
    }

    // Nearly all in one bucket, which is then larger than any cache.
    #[test]
    fn one_value_far_from_the_others_changes_nothing() {
        let mut random = Stream::new(5, Domain::Bootstrap, 0, 0);
        let mut list: Vec<Pair> = (0..50_000).map(|_| Pair::new(1.0 - 1e-3 * random.uniform() as f32, true)).collect();
        list.push(Pair::new(0.0, false));
        let mut expected = list.clone();
        expected.sort_unstable();
        assert_eq!(sorted(&[list]), expected);
    }
}
