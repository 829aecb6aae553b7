//! The evolution of the masks: how far they have moved from the first ones, and how many weights have been tried on the way.

use serde_json::{Map, Value};

use crate::Result;
use crate::bitmask::BitMask;
use crate::graph::Parameter;
use crate::model::Model;

/// What a run remembers of its masks M. The random masks Z leave no trace in it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Evolution {
    layers: Vec<Layer>,
}

#[derive(Clone, Debug, PartialEq)]
struct Layer {
    name: String,
    output_channels: usize,
    first: BitMask,
    /// The union of all masks so far.
    ever: BitMask,
}

/// The masks M of all layers at one moment, in the numbers of `metrics.jsonl`.
#[derive(Clone, Debug, PartialEq)]
pub struct MaskState {
    /// Active weights over maskable ones.
    pub density: f64,
    /// Of the active weights, the share that was active in the first masks; 0 when none is active.
    pub first_mask_overlap: f64,
    /// The share of the maskable weights that has been active at any time so far: the in-time over-parameterisation rate R_s of
    /// Liu et al. ("Do We Actually Need Dense Over-Parameterization?", ICML 2021).
    pub ever_active: f64,
    /// Output channels without any active weight, over all masked tensors: the slices o of a tensor (O, I, kH, kW) or (O, I) that
    /// are all outside M. Such a channel is constant, whatever the input.
    pub dead_channels: usize,
    /// Name and density of each masked tensor.
    pub density_by_layer: Vec<(String, f64)>,
}

/// M of every layer, by ordinal.
pub(super) fn masks(model: &mut Model) -> Result<Vec<BitMask>> {
    model.weights().into_iter().map(|weight| model.mask(weight.layer)).collect()
}

impl Evolution {
    /// The evolution in `slot`; one that begins with the masks of `model` where there is none yet.
    pub(super) fn begun<'a>(slot: &'a mut Option<Evolution>, model: &mut Model) -> Result<&'a mut Evolution> {
        let begun = match slot.take() {
            Some(evolution) => evolution,
            None => {
                let layers = masks(model)?.into_iter().map(|mask| [mask.clone(), mask]).collect();
                Evolution::resumed(model, layers)
            }
        };
        Ok(slot.insert(begun))
    }

    /// Goes on from the first mask and the union of all masks of each layer, by ordinal.
    pub(super) fn resumed(model: &Model, layers: Vec<[BitMask; 2]>) -> Evolution {
        let weights = model.parameters().weights().map(|(_, p)| p);
        let layer = |(p, [first, ever]): (&Parameter, [BitMask; 2])| {
            let [output_channels, ..] = p.kernel_dims();
            Layer { name: p.name.clone(), output_channels, first, ever }
        };
        Evolution { layers: weights.zip(layers).map(layer).collect() }
    }

    /// The first mask of a layer and the union of all so far.
    pub(super) fn masks(&self, layer: usize) -> [&BitMask; 2] {
        let Layer { first, ever, .. } = &self.layers[layer];
        [first, ever]
    }

    /// Counts masks, by ordinal, among those that were in force.
    pub(super) fn take_in(&mut self, masks: &[BitMask]) {
        self.layers.iter_mut().zip(masks).for_each(|(layer, mask)| layer.ever.unite(mask));
    }

    /// Masks, by ordinal, beside those before them.
    pub(super) fn state(&self, masks: &[BitMask]) -> MaskState {
        let layers = || self.layers.iter().zip(masks);
        let share = |part: usize, whole: usize| part as f64 / whole.max(1) as f64;
        let maskable: usize = masks.iter().map(BitMask::len).sum();
        let active: usize = masks.iter().map(BitMask::count).sum();
        let in_first: usize = layers().map(|(layer, mask)| layer.first.overlap(mask)).sum();
        let ever: usize = self.layers.iter().map(|layer| layer.ever.count()).sum();
        MaskState {
            density: share(active, maskable),
            first_mask_overlap: share(in_first, active),
            ever_active: share(ever, maskable),
            dead_channels: layers().map(|(layer, mask)| dead_channels(mask, layer.output_channels)).sum(),
            density_by_layer: layers()
                .map(|(layer, mask)| (layer.name.clone(), share(mask.count(), mask.len())))
                .collect(),
        }
    }
}

/// Output channels without an active weight. The channel is the first dimension in every order of a weight's elements.
fn dead_channels(mask: &BitMask, output_channels: usize) -> usize {
    let elements = mask.len() / output_channels.max(1);
    let mut alive = vec![false; output_channels];
    mask.ones_at().for_each(|element| alive[element / elements] = true);
    alive.into_iter().filter(|alive| !alive).count()
}

impl MaskState {
    /// Adds the numbers to a point of the log.
    pub(super) fn add_to(&self, point: &mut Value) {
        point["density"] = self.density.into();
        point["first_mask_overlap"] = self.first_mask_overlap.into();
        point["ever_active"] = self.ever_active.into();
        point["dead_channels"] = self.dead_channels.into();
        let by_layer = self.density_by_layer.iter().map(|(name, density)| (name.clone(), (*density).into()));
        point["density_by_layer"] = Value::Object(by_layer.collect::<Map<_, _>>());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(bits: &str) -> BitMask {
        let bits: Vec<char> = bits.chars().filter(|c| !c.is_whitespace()).collect();
        BitMask::from_fn(bits.len(), |i| bits[i] == '1')
    }

    fn begin(layers: &[(&str, &str, usize)]) -> Evolution {
        let layer = |&(name, first, output_channels): &(&str, &str, usize)| Layer {
            name: name.into(),
            output_channels,
            first: mask(first),
            ever: mask(first),
        };
        Evolution { layers: layers.iter().map(layer).collect() }
    }

    // Two layers of 3 x 2 and 2 x 3 weights, seven of the twelve active at first.
    #[test]
    fn two_layers_by_hand() {
        let mut evolution = begin(&[("a", "11 10 00", 3), ("b", "110 011", 2)]);
        let first = [mask("11 10 00"), mask("110 011")];
        let state = evolution.state(&first);
        assert_eq!((state.density, state.first_mask_overlap, state.ever_active), (7.0 / 12.0, 1.0, 7.0 / 12.0));
        assert_eq!(state.dead_channels, 1);
        assert_eq!(state.density_by_layer, [("a".to_owned(), 0.5), ("b".to_owned(), 4.0 / 6.0)]);

        // a loses two and gains one, b loses two: three of the four that are left are first ones, eight were ever active.
        let second = [mask("10 00 01"), mask("110 000")];
        evolution.take_in(&second);
        let state = evolution.state(&second);
        assert_eq!((state.density, state.first_mask_overlap, state.ever_active), (4.0 / 12.0, 3.0 / 4.0, 8.0 / 12.0));
        assert_eq!(state.dead_channels, 2);

        // A weight that comes back counts once, and what has been active stays so.
        evolution.take_in(&first);
        let state = evolution.state(&first);
        assert_eq!((state.first_mask_overlap, state.ever_active), (1.0, 8.0 / 12.0));
    }

    #[test]
    fn a_channel_is_alive_by_its_first_or_last_weight_alone() {
        // Rows of 40 elements: not aligned with the words of a mask.
        for (active, dead) in [(vec![], 3), (vec![0], 2), (vec![39], 2), (vec![40], 2), (vec![0, 79, 80], 0)] {
            let mask = BitMask::from_fn(120, |i| active.contains(&i));
            assert_eq!(dead_channels(&mask, 3), dead, "{active:?}");
        }
    }
}
