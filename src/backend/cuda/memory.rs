//! Device memory: one arena for spans and maps, and the copies between host and device layouts.

use half::bf16;

use super::driver::{Address, Driver};
use super::kernels::{Floats, Tensor};
use crate::Result;
use crate::backend::{Map, Precision, Span};
use crate::shape::Shape;

/// Channels of a pixel come in pieces of this many.
pub(super) const GROUP: usize = 8;

/// A piece of device memory that may have to grow.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    pub(super) at: Address,
    pub(super) bytes: usize,
}

impl Buffer {
    /// Makes sure of `bytes` bytes, keeping what is in them; true when they moved.
    pub(super) fn reserve(&mut self, on: &mut dyn Driver, bytes: usize) -> Result<bool> {
        if bytes <= self.bytes {
            return Ok(false);
        }
        let at = on.allocate(bytes)?;
        if self.bytes > 0 {
            on.copy(self.at, at, self.bytes)?;
            on.free(self.at);
        }
        *self = Buffer { at, bytes };
        Ok(true)
    }

    /// Takes another piece of `bytes` bytes; what was in the old one is lost.
    pub(super) fn replace(&mut self, on: &mut dyn Driver, bytes: usize) -> Result<()> {
        if self.bytes > 0 {
            on.free(std::mem::take(self).at);
        }
        *self = Buffer { at: on.allocate(bytes)?, bytes };
        Ok(())
    }
}

/// 4-byte words of a map: NHWC, channels padded to a multiple of 8.
pub(super) fn words(shape: Shape, precision: Precision) -> usize {
    let elements = shape.n * shape.pixels() * shape.c.next_multiple_of(GROUP);
    match precision {
        Precision::F32 => elements,
        Precision::Bf16 => elements / 2,
    }
}

impl Buffer {
    /// The map as kernels see it.
    pub(super) fn tensor(&self, map: Map) -> Tensor {
        let Shape { n, c, h, w } = map.shape;
        Tensor {
            at: self.at.plus(4 * map.at),
            n: n as u32,
            h: h as u32,
            w: w as u32,
            c: c as u32,
            groups: c.div_ceil(GROUP) as u32,
            bf16: u32::from(map.precision == Precision::Bf16),
        }
    }

    /// The place of a span.
    pub(super) fn floats(&self, span: Span) -> Floats {
        Floats(self.at.plus(4 * span.at))
    }
}

/// Where each of a map's values, in (N, C, H, W) order, lies in device layout.
fn places(shape: Shape) -> impl Iterator<Item = usize> {
    let padded = shape.c.next_multiple_of(GROUP);
    let (pixels, image) = (shape.pixels(), shape.c * shape.pixels());
    (0..shape.len()).map(move |i| (i / image * pixels + i % pixels) * padded + i % image / pixels)
}

/// (N, C, H, W) values in device layout.
pub(super) fn to_device(values: &[f32], shape: Shape, precision: Precision) -> Vec<u32> {
    let mut words = vec![0; words(shape, precision)];
    match precision {
        Precision::F32 => {
            let to: &mut [f32] = bytemuck::cast_slice_mut(&mut words);
            places(shape).zip(values).for_each(|(at, &x)| to[at] = x);
        }
        Precision::Bf16 => {
            let to: &mut [u16] = bytemuck::cast_slice_mut(&mut words);
            places(shape).zip(values).for_each(|(at, &x)| to[at] = bf16::from_f32(x).to_bits());
        }
    }
    words
}

/// Device layout as (N, C, H, W) values.
pub(super) fn from_device(words: &[u32], shape: Shape, precision: Precision) -> Vec<f32> {
    match precision {
        Precision::F32 => {
            let from: &[f32] = bytemuck::cast_slice(words);
            places(shape).map(|at| from[at]).collect()
        }
        Precision::Bf16 => {
            let from: &[u16] = bytemuck::cast_slice(words);
            places(shape).map(|at| bf16::from_bits(from[at]).to_f32()).collect()
        }
    }
}
