//! Poisoned memory for one case.

use super::bounded::Bounded;
use super::{Reference, values};
use crate::Result;
use crate::backend::{Backend, Map, Precision, Sink, Span, Weight};
use crate::bitmask::BitMask;
use crate::rng::{Domain, Stream};
use crate::shape::Shape;

/// Words between any two places.
const GUARD: usize = 48;

/// What lies where nobody has written: NaN, and as two bf16 numbers too.
const POISON: f32 = f32::from_bits(u32::MAX);

/// Something that a case wrote.
#[derive(Clone, Debug)]
pub(super) enum Output {
    Span(Span),
    /// A weight's gradient where only that of M was asked for.
    Inside(Span, BitMask),
    Value(Map),
    /// A gradient: also zero in padding images.
    Gradient(Map),
    /// M of a layer.
    Mask(usize),
    /// Z of a layer.
    RandomMask(usize),
}

impl Output {
    fn range(&self, on: &dyn Backend) -> std::ops::Range<usize> {
        match self {
            Output::Span(s) | Output::Inside(s, _) => s.at..s.at + s.len,
            Output::Value(m) | Output::Gradient(m) => m.at..m.at + on.map_len(*m),
            Output::Mask(_) | Output::RandomMask(_) => 0..0,
        }
    }

    pub(super) fn expected(&self, on: &mut Reference) -> Vec<Bounded> {
        match self {
            Output::Span(span) => on.bounded(*span),
            Output::Inside(span, mask) => mask.ones_at().map(|i| on.bounded(*span)[i]).collect(),
            Output::Value(map) | Output::Gradient(map) => on.bounded_map(*map),
            _ => self.observed(on, "").into_iter().map(Bounded::from).collect(),
        }
    }

    /// The values, after a look at the zeros around them.
    pub(super) fn observed(&self, on: &mut dyn Backend, who: &str) -> Vec<f32> {
        let bits = |mask: BitMask| (0..mask.len()).map(|i| f32::from(u8::from(mask.get(i)))).collect();
        match self {
            Output::Span(span) => on.read(*span).unwrap(),
            Output::Inside(span, mask) => {
                let all = on.read(*span).unwrap();
                mask.ones_at().map(|i| all[i]).collect()
            }
            Output::Value(map) => observed_map(on, *map, map.shape.n.is_multiple_of(16), who),
            Output::Gradient(map) => observed_map(on, *map, true, who),
            Output::Mask(layer) => bits(on.read_mask(*layer).unwrap()),
            Output::RandomMask(layer) => bits(on.read_random_mask(*layer).unwrap()),
        }
    }
}

/// A map's values. Nothing of its memory may be left unwritten, and where no image is padding, or padding must be zero, all
/// that is not zero must be one of the values.
fn observed_map(on: &mut dyn Backend, map: Map, only_values: bool, who: &str) -> Vec<f32> {
    let values = on.read_map(map).unwrap();
    let words = |precision| on.map_len(Map { precision, ..map });
    let (len, packed) = (words(map.precision), words(map.precision) < words(Precision::F32));
    let raw = numbers(on.read(Span { at: map.at, len }).unwrap(), packed);
    assert!(raw.iter().all(|x| !x.is_nan()), "{who}: {map:?} has NaN in it, maybe in its halo");
    if only_values {
        let nonzero = |all: &[f32]| all.iter().filter(|x| **x != 0.0).count();
        assert_eq!(nonzero(&raw), nonzero(&values), "{who}: {map:?} has more than its values in it");
    }
    values
}

/// The numbers in some words of memory: one in each, or two bf16 ones, the first in the low half.
fn numbers(words: Vec<f32>, packed: bool) -> Vec<f32> {
    if !packed {
        return words;
    }
    words.into_iter().map(f32::to_bits).flat_map(|w| [w << 16, w & 0xFFFF_0000]).map(f32::from_bits).collect()
}

/// One backend's memory, from the start to `end`.
pub(super) struct Arena<'a> {
    on: &'a mut dyn Backend,
    end: usize,
    /// Draws which values are in f32 whatever the backend's precision, as plans may have it.
    exact: Stream,
    weights: Vec<Weight>,
    outputs: Vec<Output>,
    /// Whether the maps that follow are those of a pass that only predicts.
    pub(super) inference: bool,
}

impl<'a> Arena<'a> {
    /// Plays a case and returns what it wrote. `seed` keys which values are in f32.
    pub(super) fn play(on: &'a mut dyn Backend, seed: u64, case: &dyn Fn(&mut Arena)) -> Vec<Output> {
        let exact = Stream::new(seed, Domain::Bootstrap, 0, 0);
        let mut arena = Arena { on, end: 0, exact, weights: vec![], outputs: vec![], inference: false };
        arena.poisoned(GUARD);
        case(&mut arena);
        assert!(!arena.outputs.is_empty(), "the case checks nothing");
        arena.outputs
    }

    /// Memory that nobody has written.
    pub(super) fn poisoned(&mut self, len: usize) -> Span {
        let span = Span { at: self.end, len };
        let end = (self.end + len).next_multiple_of(16) + GUARD;
        self.on.reserve(end).unwrap();
        self.on.write(Span { at: self.end, len: end - self.end }, &vec![POISON; end - self.end]).unwrap();
        self.end = end;
        span
    }

    pub(super) fn span(&mut self, values: &[f32]) -> Span {
        let span = self.poisoned(values.len());
        self.on.write(span, values).unwrap();
        span
    }

    fn map(&mut self, shape: Shape, halo: usize, precision: Precision) -> Map {
        let map = Map { at: 0, shape, halo, precision, inference: self.inference };
        let at = self.poisoned(self.on.map_len(map)).at;
        Map { at, ..map }
    }

    /// The precision of the next value.
    fn drawn(&mut self) -> Precision {
        if self.exact.uniform() < 0.5 { Precision::F32 } else { self.on.precision() }
    }

    /// An activation whose padding images hold something: nobody may look at them.
    pub(super) fn value(&mut self, shape: Shape, halo: usize, values: &[f32]) -> Map {
        let precision = self.drawn();
        self.value_in(precision, shape, halo, values)
    }

    /// As [`Arena::value`], for convolutions, which read the backend's precision only.
    pub(super) fn convolved(&mut self, shape: Shape, halo: usize, values: &[f32]) -> Map {
        self.value_in(self.on.precision(), shape, halo, values)
    }

    /// As [`Arena::value`], for the loss, which reads f32 only.
    pub(super) fn exact(&mut self, shape: Shape, halo: usize, values: &[f32]) -> Map {
        self.value_in(Precision::F32, shape, halo, values)
    }

    fn value_in(&mut self, precision: Precision, shape: Shape, halo: usize, values: &[f32]) -> Map {
        let images = if self.inference { shape.n } else { shape.n.next_multiple_of(16) };
        let full = Shape { n: images, ..shape };
        let map = self.map(full, halo, precision);
        let junk = std::iter::repeat_n(1e3, full.len() - shape.len());
        self.on.write_map(map, &values.iter().copied().chain(junk).collect::<Vec<_>>()).unwrap();
        Map { shape, ..map }
    }

    /// A gradient, whose padding images hold 0.
    pub(super) fn gradient(&mut self, shape: Shape, halo: usize, values: &[f32]) -> Map {
        let map = self.map(shape, halo, self.on.precision());
        self.on.write_map(map, values).unwrap();
        map
    }

    /// Poisoned memory for an op's value.
    pub(super) fn result(&mut self, shape: Shape, halo: usize) -> Map {
        let precision = self.drawn();
        self.map(shape, halo, precision)
    }

    /// Where a gradient goes: poisoned memory to set, or some gradient to add to.
    pub(super) fn sink(&mut self, shape: Shape, halo: usize, add: bool) -> Sink<Map> {
        let to = if add {
            self.gradient(shape, halo, &values(shape.len(), 77))
        } else {
            self.map(shape, halo, self.on.precision())
        };
        Sink { to, add }
    }

    /// As [`Arena::sink`], for parameters.
    pub(super) fn span_sink(&mut self, len: usize, add: bool) -> Sink<Span> {
        let to = if add { self.span(&values(len, 78)) } else { self.poisoned(len) };
        Sink { to, add }
    }

    /// A masked weight with these values; its gradient holds `grad`.
    pub(super) fn weight(&mut self, dims: [usize; 4], value: &[f32], grad: &[f32]) -> Weight {
        let [out_channels, in_channels, rows, cols] = dims;
        let layer = self.weights.len();
        let (value, grad) = (self.span(value), self.span(grad));
        let weight = Weight { layer, value, grad, out_channels, in_channels, kernel: [rows, cols] };
        self.weights.push(weight);
        weight
    }

    /// Declares the weights so far and their masks.
    pub(super) fn register(&mut self, masks: &[BitMask]) {
        self.on.register(&self.weights).unwrap();
        masks.iter().enumerate().for_each(|(layer, mask)| self.on.write_mask(layer, mask).unwrap());
    }

    /// Preparations that other cases check.
    pub(super) fn prepare(&mut self, call: impl FnOnce(&mut dyn Backend) -> Result<()>) {
        call(self.on).unwrap();
    }

    /// The call under test: writes its outputs and nothing else. Outputs are read when the case is over, so no later call may
    /// write them again.
    pub(super) fn run(&mut self, outputs: &[Output], call: impl FnOnce(&mut dyn Backend) -> Result<()>) {
        let whole = Span { at: 0, len: self.end };
        let before = self.on.read(whole).unwrap();
        call(self.on).unwrap();
        let after = self.on.read(whole).unwrap();
        let ranges: Vec<_> = outputs.iter().map(|output| output.range(self.on)).collect();
        for i in (0..self.end).filter(|i| !ranges.iter().any(|range| range.contains(i))) {
            assert_eq!(before[i].to_bits(), after[i].to_bits(), "word {i} was changed; outputs lie at {ranges:?}");
        }
        self.outputs.extend_from_slice(outputs);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_words_hold_two_numbers_of_which_a_nan_shows() {
        let word = f32::from_bits(0x4000_3F80);
        assert_eq!(numbers(vec![word], true), [1.0, 2.0]);
        assert_eq!(numbers(vec![word], false), [word]);
        assert!(numbers(vec![POISON], true).into_iter().all(f32::is_nan));
    }
}
