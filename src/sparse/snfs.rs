//! Sparse networks from scratch (Dettmers & Zettlemoyer 2019): how growth is spread over the layers.

/// Shares `total` new weights among layers of (mean |momentum|, free positions): in proportion to momentum, at most what is
/// free, the exact total (as long as there is room for it). What a full layer cannot take goes to the others by the same rule;
/// the last few weights go to the largest remainders, lower layer first on ties.
pub fn redistribute(total: usize, layers: &[(f64, usize)]) -> Vec<usize> {
    let mut given = vec![0; layers.len()];
    let mut left = total.min(layers.iter().map(|(_, free)| free).sum());
    while left > 0 {
        let open: Vec<usize> = (0..layers.len()).filter(|&l| given[l] < layers[l].1).collect();
        let momentum: f64 = open.iter().map(|&l| layers[l].0).sum();
        let share = |l: usize| match momentum {
            // No momentum anywhere, as at the first step: even shares.
            m if m <= 0.0 || !m.is_finite() => left as f64 / open.len() as f64,
            m => left as f64 * layers[l].0 / m,
        };
        let mut shares: Vec<(usize, f64)> = open.iter().map(|&l| (l, share(l))).collect();
        let mut spent = 0;
        for &(l, share) in &shares {
            let take = (share as usize).min(layers[l].1 - given[l]);
            given[l] += take;
            spent += take;
        }
        if spent == 0 {
            shares.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
            for (l, _) in shares.into_iter().take(left) {
                given[l] += 1;
                spent += 1;
            }
        }
        left -= spent;
    }
    given
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_follows_momentum_and_keeps_the_total() {
        assert_eq!(redistribute(10, &[(1.0, 100), (4.0, 100)]), [2, 8]);
        assert_eq!(redistribute(10, &[(1.0, 100), (1.0, 100), (1.0, 100)]), [4, 3, 3]);
    }

    #[test]
    fn a_full_layer_passes_its_share_on() {
        assert_eq!(redistribute(10, &[(9.0, 2), (1.0, 100)]), [2, 8]);
        assert_eq!(redistribute(10, &[(9.0, 2), (1.0, 3)]), [2, 3]);
    }

    #[test]
    fn without_any_momentum_shares_are_even() {
        assert_eq!(redistribute(9, &[(0.0, 100), (0.0, 2), (0.0, 100)]), [4, 2, 3]);
    }
}
