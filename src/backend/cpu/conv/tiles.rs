//! How the pixels of a map are cut up.

/// Cuts 0..`extent` into as few pieces of at most `most` as there can be, none much smaller than the others: (start, length).
pub(super) fn pieces(extent: usize, most: usize) -> impl Iterator<Item = (usize, usize)> + Clone {
    let count = extent.div_ceil(most);
    (0..count).map(move |i| (i * extent / count, (i + 1) * extent / count - i * extent / count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_cover_everything_once_and_none_is_needlessly_small() {
        let lengths = |extent, most| pieces(extent, most).map(|(_, length)| length).collect::<Vec<_>>();
        assert_eq!(lengths(8, 4), [4, 4]);
        assert_eq!(lengths(7, 4), [3, 4]);
        assert_eq!(lengths(5, 4), [2, 3]);
        assert_eq!(lengths(4, 3), [2, 2]);
        assert_eq!(lengths(0, 3), [0; 0]);
        for (extent, most) in (0..70).flat_map(|extent| (1..9).map(move |most| (extent, most))) {
            let mut end = 0;
            for (start, length) in pieces(extent, most) {
                assert_eq!(start, end);
                assert!((1..=most).contains(&length), "{extent} by {most}");
                end += length;
            }
            assert_eq!(end, extent);
        }
    }
}
