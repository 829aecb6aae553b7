//! Where places lie: one arena, in which what is never alive together may overlap.

use super::{ALIGNMENT, Place};

/// What places are sorted by.
type Order<'a> = &'a dyn Fn(&Place) -> (usize, usize);

/// Gives every place its offset. Returns the end of the arena and the live maximum.
///
/// No greedy order is best for all networks: these are tried, and the first with the lowest end is kept.
pub(super) fn lay_out(places: &mut [Place], base: usize) -> (usize, usize) {
    let by_size = |p: &Place| (usize::MAX - p.len, p.live.0);
    let by_start = |p: &Place| (p.live.0, usize::MAX - p.len);
    let by_end = |p: &Place| (usize::MAX - p.live.1, usize::MAX - p.len);
    let by_area = |p: &Place| (usize::MAX - p.len * (1 + p.live.1 - p.live.0), p.live.0);
    let by_size_from_the_end = |p: &Place| (usize::MAX - p.len, usize::MAX - p.live.1);
    let by_life = |p: &Place| (p.live.0 + usize::MAX / 2 - p.live.1, usize::MAX - p.len);
    let orders: [Order; 6] = [&by_size, &by_start, &by_end, &by_area, &by_size_from_the_end, &by_life];
    let tried = orders.into_iter().map(|order| first_fit(places, base, order));
    let end_of = |at: &[usize]| places.iter().zip(at).map(|(p, at)| at + p.len).max().unwrap_or(base);
    let best = tried.min_by_key(|at| end_of(at)).expect("there are orders to try");
    places.iter_mut().zip(best).for_each(|(place, at)| place.at = at);
    let end = places.iter().map(|p| p.at + p.len).max().unwrap_or(base).next_multiple_of(ALIGNMENT);
    let steps = places.iter().map(|p| p.live.1 + 1).max().unwrap_or(0);
    let alive = |t: usize| places.iter().filter(|p| p.live.0 <= t && t <= p.live.1).map(|p| p.len).sum();
    (end, (0..steps).map(alive).max().unwrap_or(0))
}

/// The offset of each place when, in the given order, each takes the lowest one where nothing alive at the same time lies.
fn first_fit(places: &[Place], base: usize, order: Order) -> Vec<usize> {
    let mut queue: Vec<usize> = (0..places.len()).collect();
    queue.sort_by_key(|&i| order(&places[i]));
    let mut offsets = vec![base; places.len()];
    for (done, &i) in queue.iter().enumerate() {
        let (first, last) = places[i].live;
        let mut near: Vec<(usize, usize)> = queue[..done]
            .iter()
            .map(|&j| (&places[j], offsets[j]))
            .filter(|(p, _)| p.live.0 <= last && first <= p.live.1)
            .map(|(p, at)| (at, at + p.len))
            .collect();
        near.sort_unstable();
        for (from, to) in near {
            if offsets[i] + places[i].len <= from {
                break;
            }
            offsets[i] = offsets[i].max(to.next_multiple_of(ALIGNMENT));
        }
    }
    offsets
}
