//! Sorting of many integers by their digits.
//!
//! A comparison sort of ten million confidences mispredicts a branch for every second comparison. Here the leading bits send each
//! key into one of 512 buckets, all lists at once, and each bucket, by then small enough for a cache, is sorted by its other bits,
//! nine at a time from the lowest. Equal keys are alike, so neither the division nor the number of threads shows in the result.

use rayon::prelude::*;

/// Bits of a digit: the ends of so many buckets stay in the first-level cache.
const DIGIT: u32 = 9;
const BUCKETS: usize = 1 << DIGIT;

/// A bucket with fewer is not worth the counters of its digits.
const FEW: usize = 2048;

/// All keys of the lists, of which there are fewer than 2^32, in ascending order.
pub(super) fn sorted(lists: &[&[u32]]) -> Vec<u32> {
    let bounds = |list: &&[u32]| list.iter().fold((u32::MAX, 0), |(least, most), &key| (key.min(least), key.max(most)));
    let (least, most) = (lists.par_iter().map(bounds)).reduce(|| (u32::MAX, 0), |a, b| (a.0.min(b.0), a.1.max(b.1)));
    let bits = u32::BITS - most.saturating_sub(least).leading_zeros();
    let below = bits.saturating_sub(DIGIT);
    let bucket_of = |key: u32| ((key - least) >> below) as usize;

    let counts: Vec<[usize; BUCKETS]> = (lists.par_iter())
        .map(|list| {
            let mut counts = [0; BUCKETS];
            list.iter().for_each(|&key| counts[bucket_of(key)] += 1);
            counts
        })
        .collect();

    let mut all = vec![0; lists.iter().map(|list| list.len()).sum()];
    // Of each list the room it fills: a part of every bucket.
    let mut rooms: Vec<Vec<&mut [u32]>> = lists.iter().map(|_| Vec::with_capacity(BUCKETS)).collect();
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
        for &key in *list {
            let bucket = bucket_of(key);
            rooms[bucket][filled[bucket]] = key;
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
    buckets.into_par_iter().for_each_init(Vec::new, |other, bucket| sort_bucket(bucket, other, least, below));
    all
}

/// Sorts keys that differ in the lowest `bits` bits of their distance to `least` only; `other` is room that is used again.
fn sort_bucket(bucket: &mut [u32], other: &mut Vec<u32>, least: u32, bits: u32) {
    if bucket.len() < FEW {
        bucket.sort_unstable();
        return;
    }
    other.resize(bucket.len(), 0);
    let (mut from, mut to) = (&mut *bucket, &mut other[..]);
    let mut swapped = false;
    for shift in (0..bits).step_by(DIGIT as usize) {
        let digit = |key: u32| (key - least) as usize >> shift & (BUCKETS - 1);
        let mut ends = [0u32; BUCKETS];
        from.iter().for_each(|&key| ends[digit(key)] += 1);
        let mut start = 0;
        for end in &mut ends {
            start += std::mem::replace(end, start);
        }
        for &key in from.iter() {
            let at = &mut ends[digit(key)];
            to[*at as usize] = key;
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

    fn check(lists: &[&[u32]]) {
        let mut expected = lists.concat();
        expected.sort_unstable();
        assert!(sorted(lists) == expected, "lists of {:?}", lists.iter().map(|list| list.len()).collect::<Vec<_>>());
    }

    #[test]
    fn lists_of_every_length_and_spread_come_out_as_the_standard_library_sorts_them() {
        let mut random = Stream::new(4, Domain::Bootstrap, 0, 0);
        for (length, first, spread) in
            [(0, 0, 1), (1, 9, 1), (3000, 7, 1), (5000, 1 << 30, 1000), (300_000, 0, u32::MAX)]
        {
            let lists = [length, 0, length / 3].map(|length| {
                let keys = (0..length).map(|_| first + random.below(spread));
                keys.collect::<Vec<_>>()
            });
            check(&lists.each_ref().map(|list| &list[..]));
        }
        check(&[]);
    }

    // Nearly all in one bucket.
    #[test]
    fn one_key_far_from_the_others_changes_nothing() {
        let mut random = Stream::new(5, Domain::Bootstrap, 0, 0);
        let mut list: Vec<u32> = (0..50_000).map(|_| u32::MAX - random.below(1 << 20)).collect();
        list.push(0);
        check(&[&list]);
    }
}
