//! A model as the replay holds it, and the reader of `model.safetensors`.

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::{Dtype, SafeTensors};

/// A parameter or a running statistic.
#[derive(Clone)]
pub(crate) struct Tensor {
    /// In the order of `values`: (O, kH, kW, I) of a convolution, (out, in) of a linear layer, (C) of the rest.
    pub(crate) shape: Vec<usize>,
    pub(crate) values: Vec<f64>,
}

/// Tensors and masks by name; a mask by the name of its weight.
///
/// Convolutions and their masks are held in (O, kH, kW, I) order, since that is what "the lower index" means.
#[derive(Clone)]
pub(crate) struct Model {
    pub(crate) tensors: BTreeMap<String, Tensor>,
    pub(crate) masks: BTreeMap<String, Vec<bool>>,
}

impl Model {
    /// Reads a file that holds convolutions as (O, I, kH, kW) and each mask as U8 under its weight's name + `.mask`.
    pub(crate) fn read(path: &Path) -> Model {
        let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let (mut tensors, mut masks) = (BTreeMap::new(), BTreeMap::new());
        for (name, view) in file.iter() {
            if let Some(weight) = name.strip_suffix(".mask") {
                assert_eq!(view.dtype(), Dtype::U8, "{name}");
                let bits = view.data().iter().map(|&bit| match bit {
                    0 => false,
                    1 => true,
                    other => panic!("{name} holds {other}, which is neither 0 nor 1"),
                });
                let (_, bits) = inputs_last(view.shape(), bits.collect());
                masks.insert(weight.to_owned(), bits);
            } else {
                assert_eq!(view.dtype(), Dtype::F32, "{name}");
                let values = view.data().chunks_exact(4).map(|b| f64::from(f32::from_le_bytes(b.try_into().unwrap())));
                let (shape, values) = inputs_last(view.shape(), values.collect());
                tensors.insert(name.to_owned(), Tensor { shape, values });
            }
        }
        for (weight, mask) in &masks {
            let values = &tensors[weight].values;
            assert_eq!(mask.len(), values.len(), "{weight}");
            assert!(mask.iter().zip(values).all(|(&m, &w)| m || w == 0.0), "{weight} is not 0 outside its mask");
        }
        Model { tensors, masks }
    }

    pub(crate) fn values(&self, name: &str) -> &[f64] {
        &self.tensors.get(name).unwrap_or_else(|| panic!("the model has no tensor {name}")).values
    }

    pub(crate) fn ones(&self, weight: &str) -> usize {
        self.masks[weight].iter().filter(|&&bit| bit).count()
    }
}

/// Reorders (O, I, kH, kW) to (O, kH, kW, I); tensors of another rank stay as they are.
fn inputs_last<T: Copy>(shape: &[usize], values: Vec<T>) -> (Vec<usize>, Vec<T>) {
    let &[outputs, inputs, height, width] = shape else { return (shape.to_vec(), values) };
    let taps = height * width;
    let reordered = (0..values.len()).map(|at| {
        let (o, tap, i) = (at / (taps * inputs), at / inputs % taps, at % inputs);
        values[(o * inputs + i) * taps + tap]
    });
    (vec![outputs, height, width, inputs], reordered.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn convolutions_are_read_with_their_inputs_last() {
        let file = vec!["o0 i0 t0", "o0 i0 t1", "o0 i1 t0", "o0 i1 t1", "o1 i0 t0", "o1 i0 t1", "o1 i1 t0", "o1 i1 t1"];
        let (shape, values) = inputs_last(&[2, 2, 1, 2], file);
        assert_eq!(shape, [2, 1, 2, 2]);
        assert_eq!(values[..4], ["o0 i0 t0", "o0 i1 t0", "o0 i0 t1", "o0 i1 t1"]);
        assert_eq!(values[4..], ["o1 i0 t0", "o1 i1 t0", "o1 i0 t1", "o1 i1 t1"]);
    }
}
