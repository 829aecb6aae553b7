//! The masked weights on the device: masks, effective weights, the optimiser's step.

use super::Cuda;
use super::driver::Address;
use super::kernels::Words;
use super::memory::Buffer;
use crate::Result;
use crate::backend::{Adam, Draw, Effective, Precision, Sgd, Span, Update, Weight};
use crate::bitmask::BitMask;

/// What the device keeps of one masked weight besides its values.
pub(super) struct Layer {
    pub(super) weight: Weight,
    /// M, packed as in [`BitMask`]; words are padded to a multiple of 4.
    pub(super) mask: Words,
    /// Z as last drawn, packed likewise.
    pub(super) random: Words,
    /// What convolutions multiply with: (O, kH, kW, I) in the backend's precision, I padded with zeros to a multiple of 8.
    pub(super) effective: Address,
    /// The factor of effective weights under Z: 1, or 1 / keep.
    pub(super) scale: f32,
}

/// All masked weights, by ordinal, and the memory they share.
#[derive(Default)]
pub(super) struct Layers {
    pub(super) all: Vec<Layer>,
    memory: Buffer,
}

impl Cuda {
    pub(super) fn register_layers(&mut self, weights: &[Weight]) -> Result<()> {
        todo!()
    }

    pub(super) fn upload_mask(&mut self, layer: usize, mask: &BitMask) -> Result<()> {
        todo!()
    }

    pub(super) fn download_mask(&mut self, layer: usize) -> Result<BitMask> {
        todo!()
    }

    pub(super) fn download_random_mask(&mut self, layer: usize) -> Result<BitMask> {
        todo!()
    }

    pub(super) fn draw_masks(&mut self, draw: &Draw) -> Result<()> {
        todo!()
    }

    pub(super) fn apply_masks(&mut self, which: Effective, leaks: &[Span]) -> Result<()> {
        todo!()
    }

    pub(super) fn step_sgd(&mut self, rule: Sgd, updates: &[Update]) -> Result<()> {
        todo!()
    }

    pub(super) fn step_adam(&mut self, rule: Adam, updates: &[Update], second: &[Span]) -> Result<()> {
        todo!()
    }

    pub(super) fn average_in(
        &mut self,
        value: Span,
        masked: Option<(Weight, Effective, Option<Span>)>,
        average: Span,
        n: u32,
    ) -> Result<()> {
        todo!()
    }
}
