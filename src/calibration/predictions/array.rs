//! An array of a file, read some rows at a time.

use std::io::Read;
use std::path::{Path, PathBuf};

use half::{bf16, f16};

use super::values::Values;
use crate::{Error, Result};

/// The type of an array's elements, little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Element {
    F16,
    Bf16,
    F32,
    F64,
    Signed(usize),
    Unsigned(usize),
}

impl Element {
    pub(super) fn bytes(self) -> usize {
        match self {
            Element::F16 | Element::Bf16 => 2,
            Element::F32 => 4,
            Element::F64 => 8,
            Element::Signed(bytes) | Element::Unsigned(bytes) => bytes,
        }
    }

    fn is_float(self) -> bool {
        !matches!(self, Element::Signed(_) | Element::Unsigned(_))
    }
}

/// What an array says of itself before its elements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) element: Element,
    pub(super) shape: Vec<u64>,
}

impl Header {
    /// Bytes of its elements, if that is a number.
    pub(super) fn bytes(&self) -> Option<u64> {
        self.shape.iter().try_fold(self.element.bytes() as u64, |bytes, &extent| bytes.checked_mul(extent))
    }
}

/// An array whose elements come from `read`, in C order.
pub(super) struct Array {
    path: PathBuf,
    /// What it is called in messages: `array logits`, or nothing for a file that is one array.
    name: String,
    header: Header,
    read: Box<dyn Read + Send>,
    rows_left: u64,
    bytes: Vec<u8>,
}

impl Array {
    /// An array of `path`; `available` bytes are there for its elements.
    ///
    /// # Errors
    /// Fewer bytes than its shape needs.
    pub(super) fn new(
        path: &Path,
        name: &str,
        header: Header,
        available: u64,
        read: Box<dyn Read + Send>,
    ) -> Result<Self> {
        let name = if name.is_empty() { String::new() } else { format!("array {name}: ") };
        match header.bytes() {
            Some(bytes) if bytes <= available => {
                let rows_left = header.shape.first().copied().unwrap_or(0);
                Ok(Array { path: path.into(), name, header, read, rows_left, bytes: Vec::new() })
            }
            needed => {
                let needed = needed.map_or("too many".into(), |bytes| bytes.to_string());
                let detail = format!("{name}truncated: {available} bytes, its shape {:?} needs {needed}", header.shape);
                Err(Error::file(path, detail))
            }
        }
    }

    pub(super) fn rows_left(&self) -> u64 {
        self.rows_left
    }

    /// Checks that it can hold scores (N, C); returns C.
    pub(super) fn check_scores(&self) -> Result<usize> {
        if !self.header.element.is_float() {
            return Err(self.fail("holds integers, expected scores as f16, f32 or f64"));
        }
        match self.header.shape[..] {
            [_, classes] if (2..=super::MOST_CLASSES).contains(&classes) => Ok(classes as usize),
            _ => Err(self.fail(&format!(
                "has shape {:?}, expected (samples, classes) with 2 to {} classes",
                self.header.shape,
                super::MOST_CLASSES
            ))),
        }
    }

    /// Checks that it can hold the labels of `samples`.
    pub(super) fn check_labels(&self, samples: u64) -> Result<()> {
        match self.header.shape[..] {
            [n] | [n, 1] if n == samples => Ok(()),
            _ => Err(self.fail(&format!("has shape {:?}, expected {samples} labels", self.header.shape))),
        }
    }

    /// Replaces `out` by the next `rows` rows of scores; there must be so many.
    pub(super) fn read_scores(&mut self, rows: usize, out: &mut Values) -> Result<()> {
        let width = self.header.shape[1..].iter().product::<u64>() as usize;
        let elements = rows * width;
        self.rows_left -= rows as u64;
        match self.header.element {
            Element::F64 => {
                let mut values = out.take_f64(elements);
                self.read.read_exact(bytemuck::cast_slice_mut(&mut values)).map_err(|e| self.unreadable(e))?;
                values.iter_mut().for_each(|value| *value = f64::from_bits(u64::from_le(value.to_bits())));
                *out = Values::F64(values);
            }
            Element::F32 => {
                let mut values = out.take_f32(elements);
                self.read.read_exact(bytemuck::cast_slice_mut(&mut values)).map_err(|e| self.unreadable(e))?;
                values.iter_mut().for_each(|value| *value = f32::from_bits(u32::from_le(value.to_bits())));
                *out = Values::F32(values);
            }
            half => {
                self.fill(elements * half.bytes())?;
                let mut values = out.take_f32(elements);
                for (value, &pair) in values.iter_mut().zip(self.bytes.as_chunks::<2>().0) {
                    *value = match half {
                        Element::Bf16 => bf16::from_le_bytes(pair).to_f32(),
                        _ => f16::from_le_bytes(pair).to_f32(),
                    };
                }
                *out = Values::F32(values);
            }
        }
        Ok(())
    }

    /// Replaces `out` by the next `rows` labels, the first of which is that of row `first`.
    pub(super) fn read_labels(&mut self, rows: usize, first: u64, classes: usize, out: &mut Vec<u32>) -> Result<()> {
        let element = self.header.element;
        self.rows_left -= rows as u64;
        self.fill(rows * element.bytes())?;
        out.clear();
        // Bytes are what most files hold, and are looked at one by one below only where there is something to tell.
        if element == Element::Unsigned(1) && self.bytes.iter().all(|&label| usize::from(label) < classes) {
            out.extend(self.bytes.iter().map(|&label| u32::from(label)));
            return Ok(());
        }
        for (i, bytes) in self.bytes.chunks_exact(element.bytes()).enumerate() {
            let label = whole(element, bytes).and_then(|label| {
                u32::try_from(label).ok().filter(|&label| (label as usize) < classes).ok_or_else(|| label.to_string())
            });
            out.push(label.map_err(|found| self.fail(&label_fault(first + i as u64, &found, classes)))?);
        }
        Ok(())
    }

    fn fill(&mut self, bytes: usize) -> Result<()> {
        self.bytes.resize(bytes, 0);
        self.read.read_exact(&mut self.bytes).map_err(|e| self.unreadable(e))
    }

    fn fail(&self, detail: &str) -> Error {
        Error::file(&self.path, format!("{}{detail}", self.name))
    }

    fn unreadable(&self, cause: std::io::Error) -> Error {
        Error::file_because(&self.path, format!("{}truncated or damaged", self.name), cause)
    }
}

/// How a label that may not be is told.
pub(super) fn label_fault(row: u64, found: &str, classes: usize) -> String {
    format!("row {row} has label {found}, expected a whole number from 0 to {}", classes - 1)
}

/// One element as a whole number; else how it looks.
fn whole(element: Element, bytes: &[u8]) -> Result<i64, String> {
    let mut wide = [0; 8];
    wide[..bytes.len()].copy_from_slice(bytes);
    let bits = u64::from_le_bytes(wide);
    let unused = 64 - 8 * bytes.len() as u32;
    let number = match element {
        Element::Signed(_) => return Ok((bits << unused) as i64 >> unused),
        Element::Unsigned(_) => return i64::try_from(bits).map_err(|_| bits.to_string()),
        Element::F16 => f16::from_bits(bits as u16).to_f64(),
        Element::Bf16 => bf16::from_bits(bits as u16).to_f64(),
        Element::F32 => f64::from(f32::from_bits(bits as u32)),
        Element::F64 => f64::from_bits(bits),
    };
    if number.fract() == 0.0 && number.abs() < 9e15 { Ok(number as i64) } else { Err(number.to_string()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_of_every_type_are_whole_numbers() {
        for (element, bytes, expected) in [
            (Element::Signed(1), &(-3i8).to_le_bytes()[..], Ok(-3)),
            (Element::Unsigned(1), &[200], Ok(200)),
            (Element::Signed(4), &70_000i32.to_le_bytes(), Ok(70_000)),
            (Element::Signed(8), &i64::MIN.to_le_bytes(), Ok(i64::MIN)),
            (Element::Unsigned(8), &u64::MAX.to_le_bytes(), Err("18446744073709551615".to_string())),
            (Element::F32, &7f32.to_le_bytes(), Ok(7)),
            (Element::F64, &7.5f64.to_le_bytes(), Err("7.5".into())),
            (Element::F16, &f16::from_f32(9.0).to_le_bytes(), Ok(9)),
            (Element::F64, &f64::NAN.to_le_bytes(), Err("NaN".into())),
        ] {
            assert_eq!(whole(element, bytes), expected, "{element:?}");
        }
    }
}
