//! The masked weights on the device: their masks, and the memory of their effective weights.

use super::Cuda;
use super::driver::Address;
use super::kernels::{Keep, Words};
use super::memory::{Buffer, GROUP};
use super::update::Table;
use crate::Result;
use crate::backend::{Draw, Precision, Span, Weight};
use crate::bitmask::BitMask;
use crate::rng;

/// Elements that a block of the weights' kernels takes: 256 threads of 8.
pub(super) const BLOCK: usize = 2048;

/// Pieces of the layers' memory start at multiples of this many bytes.
const ALIGNMENT: usize = 256;

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
    /// What keys and scales the draw of each layer, as the device has it.
    pub(super) keep: Vec<Keep>,
    pub(super) keep_memory: Buffer,
    /// The numbers of a step.
    pub(super) step_memory: Buffer,
    /// All layers, for draws and effective weights alone.
    pub(super) masks: Table,
    /// The leaks that `masks` names.
    pub(super) leaks: Vec<Span>,
    /// The parameters of an optimiser step.
    pub(super) updates: Table,
}

/// What keys and scales the draw of each of so many layers.
pub(super) fn keep_of(draw: &Draw, layers: usize) -> Vec<Keep> {
    let of = |&keep: &f64| Keep {
        threshold: rng::keep_threshold(keep),
        scale: if draw.inverted { (1.0 / keep) as f32 } else { 1.0 },
    };
    draw.keep[..layers].iter().map(of).collect()
}

impl Cuda {
    pub(super) fn register_layers(&mut self, weights: &[Weight]) -> Result<()> {
        let size = match self.precision {
            Precision::F32 => 4,
            Precision::Bf16 => 2,
        };
        let mut end = 0;
        let mut take = |bytes: usize| {
            end += bytes.next_multiple_of(ALIGNMENT);
            end - bytes.next_multiple_of(ALIGNMENT)
        };
        let offsets: Vec<[usize; 3]> = weights
            .iter()
            .map(|w| {
                let rows = w.out_channels * w.kernel[0] * w.kernel[1];
                let mask = w.len().div_ceil(32).next_multiple_of(4) * 4;
                [take(mask), take(mask), take(rows * w.in_channels.next_multiple_of(GROUP) * size)]
            })
            .collect();
        self.forget_replays();
        let memory = &mut self.layers.memory;
        memory.replace(self.driver.as_mut(), end)?;
        let place = |(weight, [mask, random, effective]): (&Weight, [usize; 3])| Layer {
            weight: *weight,
            mask: Words(memory.at.plus(mask)),
            random: Words(memory.at.plus(random)),
            effective: memory.at.plus(effective),
            scale: 1.0,
        };
        let all: Vec<Layer> = weights.iter().zip(offsets).map(place).collect();
        for layer in &all {
            let ones = BitMask::ones(layer.weight.len());
            self.driver.write(layer.mask.0, bytemuck::cast_slice(ones.words()))?;
            self.driver.write(layer.random.0, bytemuck::cast_slice(ones.words()))?;
        }
        self.layers.all = all;
        self.layers.keep.clear();
        self.layers.leaks.clear();
        self.set_keep(vec![Keep { threshold: rng::keep_threshold(1.0), scale: 1.0 }; weights.len()])
    }

    pub(super) fn set_keep(&mut self, keep: Vec<Keep>) -> Result<()> {
        if keep != self.layers.keep {
            let bytes: &[u8] = bytemuck::cast_slice(&keep);
            if self.layers.keep_memory.reserve(self.driver.as_mut(), bytes.len())? {
                self.forget_replays();
            }
            self.driver.write(self.layers.keep_memory.at, bytes)?;
            self.layers.all.iter_mut().zip(&keep).for_each(|(layer, keep)| layer.scale = keep.scale);
            self.layers.keep = keep;
        }
        Ok(())
    }

    pub(super) fn upload_mask(&mut self, layer: usize, mask: &BitMask) -> Result<()> {
        self.driver.write(self.layers.all[layer].mask.0, bytemuck::cast_slice(mask.words()))
    }

    pub(super) fn download_mask(&mut self, layer: usize) -> Result<BitMask> {
        self.download(self.layers.all[layer].mask, self.layers.all[layer].weight.len())
    }

    pub(super) fn download_random_mask(&mut self, layer: usize) -> Result<BitMask> {
        self.download(self.layers.all[layer].random, self.layers.all[layer].weight.len())
    }

    fn download(&mut self, from: Words, len: usize) -> Result<BitMask> {
        let mut words = vec![0u32; len.div_ceil(32)];
        self.driver.read(from.0, bytemuck::cast_slice_mut(&mut words))?;
        Ok(BitMask::from_words(words, len))
    }
}
