//! Packed masks: one bit an element, 32 elements a word, element i in bit i % 32 of word i / 32.

/// A 0/1 mask over the elements of one weight tensor. Bits past the length are always 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BitMask {
    words: Vec<u32>,
    len: usize,
}

impl BitMask {
    /// All zeros.
    pub fn zeros(len: usize) -> Self {
        BitMask { words: vec![0; len.div_ceil(32)], len }
    }

    /// All ones.
    pub fn ones(len: usize) -> Self {
        Self::from_words((0..len.div_ceil(32)).map(|_| u32::MAX).collect(), len)
    }

    /// Takes packed words; bits past `len` are cleared.
    ///
    /// # Panics
    /// When `words` has another length than `len` bits need.
    pub fn from_words(mut words: Vec<u32>, len: usize) -> Self {
        assert_eq!(words.len(), len.div_ceil(32), "a mask of {len} bits takes {} words", len.div_ceil(32));
        if let (Some(last), true) = (words.last_mut(), !len.is_multiple_of(32)) {
            *last &= (1 << (len % 32)) - 1;
        }
        BitMask { words, len }
    }

    /// Element i is 1 where `bit(i)` says so.
    pub fn from_fn(len: usize, mut bit: impl FnMut(usize) -> bool) -> Self {
        let mut mask = Self::zeros(len);
        (0..len).filter(|&i| bit(i)).for_each(|i| mask.set(i, true));
        mask
    }

    /// Elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True for a mask over nothing.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bit of element `i`.
    #[inline]
    pub fn get(&self, i: usize) -> bool {
        self.words[i / 32] >> (i % 32) & 1 == 1
    }

    /// Sets the bit of element `i`.
    #[inline]
    pub fn set(&mut self, i: usize, on: bool) {
        let bit = 1 << (i % 32);
        if on {
            self.words[i / 32] |= bit;
        } else {
            self.words[i / 32] &= !bit;
        }
    }

    /// The number of ones.
    pub fn count(&self) -> usize {
        self.words.iter().map(|w| w.count_ones() as usize).sum()
    }

    /// The indices of the ones, ascending.
    pub fn ones_at(&self) -> impl Iterator<Item = usize> + '_ {
        self.words.iter().enumerate().flat_map(|(at, &word)| {
            std::iter::successors((word != 0).then_some(word), |w| Some(w & (w - 1)).filter(|&w| w != 0))
                .map(move |w| 32 * at + w.trailing_zeros() as usize)
        })
    }

    /// Takes packed bytes, element i in bit i % 8 of byte i / 8; bits past `len` are cleared, and a short slice is filled up with zeros.
    pub fn from_bytes(bytes: &[u8], len: usize) -> Self {
        let word = |at: usize| {
            let bytes = std::array::from_fn(|i| bytes.get(4 * at + i).copied().unwrap_or(0));
            u32::from_le_bytes(bytes)
        };
        Self::from_words((0..len.div_ceil(32)).map(word).collect(), len)
    }

    /// The packed bytes of [`from_bytes`](Self::from_bytes), ceil(len / 8) of them.
    pub fn to_bytes(&self) -> Vec<u8> {
        let bytes = self.words.iter().flat_map(|word| word.to_le_bytes());
        bytes.take(self.len.div_ceil(8)).collect()
    }

    /// The packed words.
    pub fn words(&self) -> &[u32] {
        &self.words
    }

    /// Sets the ones of `other` too.
    ///
    /// # Panics
    /// When the lengths differ.
    pub fn unite(&mut self, other: &BitMask) {
        assert_eq!(self.len, other.len, "masks over different tensors");
        self.words.iter_mut().zip(&other.words).for_each(|(a, b)| *a |= b);
    }

    /// The ones that `other` has not.
    ///
    /// # Panics
    /// When the lengths differ.
    pub fn without(&self, other: &BitMask) -> BitMask {
        assert_eq!(self.len, other.len, "masks over different tensors");
        let words = self.words.iter().zip(&other.words).map(|(a, b)| a & !b);
        BitMask { words: words.collect(), len: self.len }
    }

    /// Ones for zeros and zeros for ones.
    pub fn complement(&self) -> BitMask {
        Self::from_words(self.words.iter().map(|word| !word).collect(), self.len)
    }

    /// The ones of both.
    pub fn overlap(&self, other: &BitMask) -> usize {
        self.words.iter().zip(&other.words).map(|(a, b)| (a & b).count_ones() as usize).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_past_the_length_stay_zero() {
        for len in [0, 1, 31, 32, 33, 63, 65] {
            assert_eq!(BitMask::ones(len).count(), len);
            assert_eq!(BitMask::ones(len).ones_at().collect::<Vec<_>>(), (0..len).collect::<Vec<_>>());
        }
    }

    #[test]
    fn packed_bytes_have_the_first_element_lowest() {
        let mask = BitMask::from_fn(11, |i| [0, 2, 8, 10].contains(&i));
        assert_eq!(mask.to_bytes(), [0b101, 0b101]);
        for len in [0, 1, 8, 31, 32, 33, 100] {
            let mask = BitMask::from_fn(len, |i| i % 3 == 1);
            assert_eq!(mask.to_bytes().len(), len.div_ceil(8));
            assert_eq!(BitMask::from_bytes(&mask.to_bytes(), len), mask);
        }
        assert_eq!(BitMask::from_bytes(&[0xff, 0xff], 9).count(), 9);
    }

    #[test]
    fn ones_are_listed_in_ascending_order() {
        let at = [0, 1, 30, 31, 32, 63, 64, 99];
        let mask = BitMask::from_fn(100, |i| at.contains(&i));
        assert_eq!(mask.ones_at().collect::<Vec<_>>(), at);
        assert_eq!(mask.count(), at.len());
    }
}
