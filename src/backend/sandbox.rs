//! One backend and whatever lies in its memory: single calls on random numbers, to be timed.

use super::{Backend, Map, Span, Weight};
use crate::bitmask::BitMask;
use crate::error::Result;
use crate::rng::{Domain, Stream};
use crate::shape::Shape;

/// A backend that gives out its memory piece by piece.
pub struct Sandbox {
    /// The device.
    pub on: Box<dyn Backend>,
    end: usize,
}

impl Sandbox {
    /// Nothing in memory yet.
    pub fn new(on: Box<dyn Backend>) -> Self {
        Sandbox { on, end: 64 }
    }

    /// Memory for `len` numbers, zero at first.
    pub fn span(&mut self, len: usize) -> Result<Span> {
        let span = Span { at: self.end, len };
        self.end = (self.end + len).next_multiple_of(64);
        self.on.reserve(self.end)?;
        Ok(span)
    }

    /// Normally distributed numbers.
    pub fn noise(&mut self, len: usize) -> Result<Span> {
        let span = self.span(len)?;
        self.on.write(span, &normal(len))?;
        Ok(span)
    }

    /// A map of normally distributed numbers in the backend's precision, one row and column of zeros around it.
    pub fn map(&mut self, shape: Shape) -> Result<Map> {
        let map = Map { at: 0, shape, halo: 1, precision: self.on.precision(), inference: false };
        let at = self.span(self.on.map_len(map))?.at;
        let map = Map { at, ..map };
        self.on.write_map(map, &normal(shape.len()))?;
        Ok(map)
    }

    /// Value and gradient of a weight (O, I, kH, kW), still to be registered.
    pub fn weight(&mut self, layer: usize, [out_channels, in_channels, rows, cols]: [usize; 4]) -> Result<Weight> {
        let len = out_channels * rows * cols * in_channels;
        let (value, grad) = (self.noise(len)?, self.noise(len)?);
        Ok(Weight { layer, value, grad, out_channels, in_channels, kernel: [rows, cols] })
    }

    /// Puts a random mask with a share `density` of ones over a registered weight; returns their number.
    pub fn mask(&mut self, weight: Weight, density: f64) -> Result<usize> {
        let mut draws = Stream::new(0, Domain::InitialMask, 0, 0);
        let mask = BitMask::from_fn(weight.len(), |_| draws.uniform() < density);
        self.on.write_mask(weight.layer, &mask)?;
        Ok(mask.count())
    }

    /// Makes a call and waits for its end on the device.
    pub fn call(&mut self, call: impl FnOnce(&mut dyn Backend) -> Result<()>) -> Result<()> {
        call(self.on.as_mut())?;
        self.on.read(Span { at: 0, len: 1 }).map(drop)
    }
}

fn normal(len: usize) -> Vec<f32> {
    let mut draws = Stream::new(len as u64, Domain::Weights, 0, 0);
    (0..len).map(|_| draws.normal() as f32).collect()
}
