//! A masked weight in a file of tensors, in one of two forms. Readers take either; which one a file has, its names say.

use super::checkpoint::{TensorFile, Tensors};
use crate::error::Result;

/// How a masked weight `NAME` is written. The order of elements is that of files, (O, I, kH, kW).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `NAME`, F32 of the weight's shape, and `NAME.mask`, U8 of the same shape, 0 or 1.
    Dense,
    /// `NAME.bits`, U8, the mask with one bit an element, lowest bit first, unused bits 0; and `NAME.values`, F32, the values inside
    /// the mask in order. Values outside are 0 and not kept.
    Sparse,
}

fn mask_name(weight: &str) -> String {
    format!("{weight}.mask")
}

fn bits_name(weight: &str) -> String {
    format!("{weight}.bits")
}

fn values_name(weight: &str) -> String {
    format!("{weight}.values")
}

impl Tensors {
    /// Adds a masked weight: all of its values and its mask, one byte an element.
    pub(super) fn weight(&mut self, name: &str, dims: &[usize], values: &[f32], mask: Vec<u8>, form: Form) {
        match form {
            Form::Dense => {
                self.floats(name.into(), dims, values);
                self.bytes(mask_name(name), dims, mask);
            }
            Form::Sparse => {
                let eight = |chunk: &[u8]| chunk.iter().enumerate().fold(0, |byte, (i, &bit)| byte | bit << i);
                let bits: Vec<u8> = mask.chunks(8).map(eight).collect();
                let inside: Vec<f32> =
                    values.iter().zip(&mask).filter(|(_, bit)| **bit == 1).map(|(x, _)| *x).collect();
                self.floats(values_name(name), &[inside.len()], &inside);
                self.bytes(bits_name(name), &[bits.len()], bits);
            }
        }
    }
}

impl TensorFile {
    /// How the file holds the weight `name`, if it does.
    fn form(&self, name: &str) -> Form {
        if self.has(&bits_name(name)) { Form::Sparse } else { Form::Dense }
    }

    /// The names of the tensors that hold the weight `name` and its mask.
    pub(super) fn weight_names(&self, name: &str) -> [String; 2] {
        match self.form(name) {
            Form::Dense => [name.into(), mask_name(name)],
            Form::Sparse => [values_name(name), bits_name(name)],
        }
    }

    /// The values of a masked weight of that shape.
    pub(super) fn weight(&self, name: &str, dims: &[usize]) -> Result<Vec<f32>> {
        if self.form(name) == Form::Dense {
            return self.floats(name, dims);
        }
        let mask = self.unpacked(name, dims)?;
        let ones = mask.iter().filter(|&&bit| bit == 1).count();
        let mut inside = self.floats(&values_name(name), &[ones])?.into_iter();
        Ok(mask.iter().map(|&bit| if bit == 1 { inside.next().unwrap_or_default() } else { 0.0 }).collect())
    }

    /// The mask of a weight of that shape, one byte an element, 0 or 1; None where the file has none.
    pub(super) fn mask(&self, name: &str, dims: &[usize]) -> Result<Option<Vec<u8>>> {
        let mask = mask_name(name);
        match self.form(name) {
            Form::Sparse => self.unpacked(name, dims).map(Some),
            Form::Dense if !self.has(&mask) => Ok(None),
            Form::Dense => {
                let bytes = self.bytes(&mask, dims)?;
                match bytes.iter().find(|&&byte| byte > 1) {
                    Some(bad) => Err(self.error(format!("mask {mask} holds {bad}, expected 0 and 1"))),
                    None => Ok(Some(bytes.into())),
                }
            }
        }
    }

    fn unpacked(&self, name: &str, dims: &[usize]) -> Result<Vec<u8>> {
        let len = dims.iter().product::<usize>();
        let bits = self.bytes(&bits_name(name), &[len.div_ceil(8)])?;
        if bits.last().is_some_and(|last| !len.is_multiple_of(8) && last >> (len % 8) != 0) {
            return Err(self.error(format!("mask {} has ones past its {len} elements", bits_name(name))));
        }
        Ok((0..len).map(|i| bits[i / 8] >> (i % 8) & 1).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::{Path, PathBuf};

    const DIMS: [usize; 2] = [3, 5];

    fn file(folder: &Path, tensors: &Tensors) -> PathBuf {
        let path = folder.join("weights.safetensors");
        std::fs::write(&path, tensors.to_file("test")).unwrap();
        path
    }

    // 15 elements: the ones are 0, 3, 8, 14; bits 0b0000_1001 and 0b0100_0001. One value inside the mask is -0, one is NaN.
    fn weight() -> (Vec<f32>, Vec<u8>) {
        let (mut values, mut mask) = (vec![0.0; 15], vec![0; 15]);
        for (i, value) in [(0, 1.5), (3, -0.0), (8, f32::NAN), (14, -2.0)] {
            (values[i], mask[i]) = (value, 1);
        }
        (values, mask)
    }

    #[test]
    fn both_forms_bring_back_every_bit() {
        let folder = tempfile::tempdir().unwrap();
        let (values, mask) = weight();
        for form in [Form::Dense, Form::Sparse] {
            let mut tensors = Tensors::default();
            tensors.weight("w", &DIMS, &values, mask.clone(), form);
            let file = TensorFile::read(&file(folder.path(), &tensors)).unwrap();
            let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&file.weight("w", &DIMS).unwrap()), bits(&values), "{form:?}");
            assert_eq!(file.mask("w", &DIMS).unwrap().unwrap(), mask, "{form:?}");
            let mut names = file.weight_names("w");
            names.sort();
            assert_eq!(file.names().unwrap(), names, "{form:?}");
        }
    }

    #[test]
    fn the_sparse_form_is_a_bit_an_element_lowest_first_and_the_values_inside() {
        let folder = tempfile::tempdir().unwrap();
        let (values, mask) = weight();
        let mut tensors = Tensors::default();
        tensors.weight("w", &DIMS, &values, mask, Form::Sparse);
        let file = TensorFile::read(&file(folder.path(), &tensors)).unwrap();
        assert_eq!(file.bytes("w.bits", &[2]).unwrap(), [0b0000_1001, 0b0100_0001]);
        let inside = file.floats("w.values", &[4]).unwrap();
        assert_eq!((inside[0], inside[1].to_bits(), inside[3]), (1.5, (-0.0f32).to_bits(), -2.0));
    }

    #[test]
    fn bits_and_values_that_do_not_fit_each_other_are_one_error() {
        let folder = tempfile::tempdir().unwrap();
        let cases: [(usize, Vec<u8>, &str); 4] = [
            (3, vec![9, 65], "tensor w.values is F32 [3], expected F32 [4]"),
            (5, vec![9, 65], "tensor w.values is F32 [5], expected F32 [4]"),
            (4, vec![9], "tensor w.bits is U8 [1], expected U8 [2]"),
            (5, vec![9, 65 | 128], "mask w.bits has ones past its 15 elements"),
        ];
        for (values, bits, expected) in cases {
            let mut tensors = Tensors::default();
            tensors.floats("w.values".into(), &[values], &vec![1.0; values]);
            tensors.bytes("w.bits".into(), &[bits.len()], bits);
            let error = TensorFile::read(&file(folder.path(), &tensors)).unwrap().weight("w", &DIMS).unwrap_err();
            assert!(error.to_string().ends_with(expected), "{error}");
        }
    }

    #[test]
    fn a_weight_without_a_mask_is_read_and_a_mask_of_other_numbers_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let mut tensors = Tensors::default();
        tensors.floats("w".into(), &DIMS, &[0.5; 15]);
        let bare = TensorFile::read(&file(folder.path(), &tensors)).unwrap();
        assert_eq!((bare.weight("w", &DIMS).unwrap(), bare.mask("w", &DIMS).unwrap()), (vec![0.5; 15], None));
        tensors.bytes("w.mask".into(), &DIMS, vec![2; 15]);
        let error = TensorFile::read(&file(folder.path(), &tensors)).unwrap().mask("w", &DIMS).unwrap_err();
        assert!(error.to_string().ends_with("mask w.mask holds 2, expected 0 and 1"), "{error}");
    }
}
