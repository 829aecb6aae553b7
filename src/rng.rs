//! Counter-based random numbers: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
//!
//! Nothing random in this crate has a state. A draw is a pure function of (seed, [`Domain`], coordinates), so that it is
//! stored nowhere, equal on every device and thread count, and the same after a resume.

/// What a random number is for. Each use has a constant of its own, the fourth word of Philox's counter, so that no two
/// uses ever share a draw. These numbers are part of the file format of reproducibility: never renumber them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Domain {
    /// The random mask Z: counter (4 w + b, step, layer), see [`mask_word`].
    RandomMask = 0,
    /// The initial deterministic mask: one 32-bit key an element.
    InitialMask = 1,
    /// Initial weights.
    Weights = 2,
    /// The order of the training images in an epoch.
    Shuffle = 3,
    /// Crops and flips, by (epoch, image).
    Augment = 4,
    /// Dropout of activations.
    Dropout = 5,
    /// Mixup's coefficients and partners.
    Mixup = 6,
    /// SET's random growth: one 32-bit key an element.
    Growth = 7,
    /// Random masks at test time.
    MonteCarlo = 8,
    /// Bootstrap resampling.
    Bootstrap = 9,
}

/// Rounds of Philox4x32-10.
pub(crate) const ROUNDS: usize = 10;
/// What a round multiplies the counter's first and third word with.
pub(crate) const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
/// What the key grows by from round to round.
pub(crate) const KEY_STEPS: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];

/// Ten rounds of Philox4x32 on `counter` under `key`.
pub fn philox(key: [u32; 2], counter: [u32; 4]) -> [u32; 4] {
    let ([mut k0, mut k1], [mut c0, mut c1, mut c2, mut c3]) = (key, counter);
    for _ in 0..ROUNDS {
        let a = u64::from(MULTIPLIERS[0]) * u64::from(c0);
        let b = u64::from(MULTIPLIERS[1]) * u64::from(c2);
        (c0, c1, c2, c3) = ((b >> 32) as u32 ^ c1 ^ k0, b as u32, (a >> 32) as u32 ^ c3 ^ k1, a as u32);
        (k0, k1) = (k0.wrapping_add(KEY_STEPS[0]), k1.wrapping_add(KEY_STEPS[1]));
    }
    [c0, c1, c2, c3]
}

/// Splits a 64-bit seed into Philox's key, low word first.
pub fn key(seed: u64) -> [u32; 2] {
    [seed as u32, (seed >> 32) as u32]
}

/// The 16-bit threshold of a keep probability: an element is kept when its draw lies below it.
///
/// `keep = 1` gives 65,536, above every draw, so every element is kept.
pub fn keep_threshold(keep: f64) -> u32 {
    (keep * 65536.0).round() as u32
}

/// Word `word` of a random mask: 32 Bernoulli bits, those of the elements `32 word ..`, lowest bit first.
///
/// Block b = 0..3 of the word is the Philox output of counter (4 word + b, step, layer, domain); its 128 bits are eight
/// 16-bit draws, low half first, and element 32 word + 8 b + j is kept when draw j is below `threshold`.
pub fn mask_word(seed: u64, domain: Domain, step: u32, layer: u32, word: u32, threshold: u32) -> u32 {
    let mut bits = 0;
    for block in 0..4 {
        let draws = philox(key(seed), [4 * word + block, step, layer, domain as u32]);
        for (pair, draw) in draws.into_iter().enumerate() {
            let at = 8 * block + 2 * pair as u32;
            bits |= u32::from(draw & 0xFFFF < threshold) << at | u32::from(draw >> 16 < threshold) << (at + 1);
        }
    }
    bits
}

/// The 32-bit key of element `element`, of counter (element / 4, a, b, domain), word element % 4: for choices by order.
pub fn element_key(seed: u64, domain: Domain, a: u32, b: u32, element: u32) -> u32 {
    philox(key(seed), [element / 4, a, b, domain as u32])[element as usize % 4]
}

/// A sequence of draws addressed by (seed, domain, a, b): counters (0, a, b, domain), (1, a, b, domain), ...
#[derive(Clone, Debug)]
pub struct Stream {
    key: [u32; 2],
    counter: [u32; 4],
    block: [u32; 4],
    used: usize,
}

impl Stream {
    /// Starts the sequence of (seed, domain, a, b).
    pub fn new(seed: u64, domain: Domain, a: u32, b: u32) -> Self {
        Stream { key: key(seed), counter: [0, a, b, domain as u32], block: [0; 4], used: 4 }
    }

    /// The next 32 random bits.
    pub fn bits(&mut self) -> u32 {
        if self.used == 4 {
            self.block = philox(self.key, self.counter);
            self.counter[0] = self.counter[0].wrapping_add(1);
            self.used = 0;
        }
        self.used += 1;
        self.block[self.used - 1]
    }

    /// Uniform in [0, 1), a multiple of 2^-53.
    pub fn uniform(&mut self) -> f64 {
        let (high, low) = (u64::from(self.bits()), u64::from(self.bits()));
        ((high << 32 | low) >> 11) as f64 * (-53f64).exp2()
    }

    /// Uniform integer below `n` (Lemire's multiplication, without its bias). `n` must not be 0.
    pub fn below(&mut self, n: u32) -> u32 {
        let reject = n.wrapping_neg() % n;
        loop {
            let product = u64::from(self.bits()) * u64::from(n);
            if product as u32 >= reject {
                return (product >> 32) as u32;
            }
        }
    }

    /// Standard normal (Box-Muller, the cosine half only: one draw never depends on a stored second one).
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }

    /// Fisher-Yates shuffle.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i as u32 + 1) as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Random123's kat_vectors.
    #[test]
    fn philox_gives_the_published_known_answers() {
        let cases = [
            ([0; 2], [0; 4], [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]),
            ([u32::MAX; 2], [u32::MAX; 4], [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd]),
            (
                [0xa4093822, 0x299f31d0],
                [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344],
                [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1],
            ),
        ];
        for (key, counter, expected) in cases {
            assert_eq!(philox(key, counter), expected);
        }
    }

    #[test]
    fn a_mask_word_keeps_everything_at_one_and_nothing_at_zero() {
        for word in 0..100 {
            assert_eq!(mask_word(7, Domain::RandomMask, 3, 2, word, keep_threshold(1.0)), u32::MAX);
            assert_eq!(mask_word(7, Domain::RandomMask, 3, 2, word, keep_threshold(0.0)), 0);
        }
    }

    // From the definition: the first draw of seed 0, counter 0 is the low half of 0x6627e8d5.
    #[test]
    fn mask_bits_follow_the_specified_order_of_draws() {
        let draws = [0xe8d5, 0x6627, 0xc58d, 0xe169, 0xac4c, 0xbc57, 0xdbd8, 0x9b00];
        for threshold in [0x6628, 0xac4d, 0xe8d5, 0xe8d6] {
            let word = mask_word(0, Domain::RandomMask, 0, 0, 0, threshold);
            for (j, draw) in draws.into_iter().enumerate() {
                assert_eq!(word >> j & 1 == 1, draw < threshold, "element {j}, threshold {threshold:#x}");
            }
        }
    }

    #[test]
    fn masks_keep_the_asked_fraction() {
        let (words, keep) = (20_000, 0.9);
        let ones: u32 =
            (0..words).map(|w| mask_word(1, Domain::RandomMask, 5, 0, w, keep_threshold(keep)).count_ones()).sum();
        let (n, sd) = (32.0 * words as f64, (keep * (1.0 - keep)).sqrt());
        assert!((ones as f64 / n - keep).abs() < 5.0 * sd / n.sqrt());
    }

    #[test]
    fn normal_draws_have_mean_zero_and_variance_one() {
        let mut stream = Stream::new(3, Domain::Weights, 0, 0);
        let n = 100_000;
        let (sum, squares) = (0..n).map(|_| stream.normal()).fold((0.0, 0.0), |(s, q), x| (s + x, q + x * x));
        assert!((sum / n as f64).abs() < 0.02 && (squares / n as f64 - 1.0).abs() < 0.03);
    }

    #[test]
    fn a_shuffle_is_a_permutation() {
        let mut items: Vec<u32> = (0..1000).collect();
        Stream::new(1, Domain::Shuffle, 2, 0).shuffle(&mut items);
        assert_ne!(items, (0..1000).collect::<Vec<_>>());
        items.sort();
        assert_eq!(items, (0..1000).collect::<Vec<_>>());
    }
}
