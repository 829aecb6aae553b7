//! The binary files of CIFAR-10 and CIFAR-100 (<https://www.cs.toronto.edu/~kriz/cifar.html>): records of one or two label
//! bytes and 3,072 pixels, the red, green and blue planes of 32x32 in row-major order.

use std::path::Path;

use super::ImageShape;
use crate::{Error, Result};

/// The shape of every CIFAR image.
pub(super) const SHAPE: ImageShape = ImageShape { channels: 3, height: 32, width: 32 };

/// The classes of CIFAR-10.
pub(super) const CLASSES_10: [&str; 10] =
    ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];

/// The fine classes of CIFAR-100, one a line.
pub(super) const CLASSES_100: &str = include_str!("cifar100_classes.txt");

/// How a record begins.
#[derive(Clone, Copy)]
pub(super) enum Record {
    /// One label byte, 0 to 9.
    Cifar10,
    /// A coarse label byte, 0 to 19, which is not used, then a fine one, 0 to 99, which is.
    Cifar100,
}

impl Record {
    /// Bytes before the pixels, and the labels expected in the last of them.
    fn head(self) -> (usize, u8) {
        match self {
            Record::Cifar10 => (1, 10),
            Record::Cifar100 => (2, 100),
        }
    }
}

/// Appends the labels and pixels of the file `path`, which must hold exactly `records` records.
///
/// The files announce nothing themselves, so their published size is the only sign of a truncation.
pub(super) fn append(
    path: &Path,
    contents: &[u8],
    record: Record,
    records: usize,
    labels: &mut Vec<u32>,
    pixels: &mut Vec<u8>,
) -> Result<()> {
    let (head, classes) = record.head();
    let size = head + SHAPE.elements();
    if contents.len() != records * size {
        let (got, expected) = (contents.len(), records * size);
        return Err(Error::file(path, format!("{got} bytes, expected {expected} ({records} records of {size})")));
    }
    for (at, record) in contents.chunks_exact(size).enumerate() {
        let label = record[head - 1];
        if label >= classes {
            let last = classes - 1;
            return Err(Error::file(path, format!("label {label} in record {at} (from 0), expected 0 to {last}")));
        }
        labels.push(label.into());
        pixels.extend_from_slice(&record[head..]);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(contents: &[u8], record: Record, records: usize) -> Result<(Vec<u32>, Vec<u8>)> {
        let (mut labels, mut pixels) = (vec![], vec![]);
        append(Path::new("x.bin"), contents, record, records, &mut labels, &mut pixels)?;
        Ok((labels, pixels))
    }

    // A record whose pixel i is (i + label) % 251.
    fn record(labels: &[u8]) -> Vec<u8> {
        let last = labels[labels.len() - 1] as usize;
        labels.iter().copied().chain((0..3072).map(|i| ((i + last) % 251) as u8)).collect()
    }

    #[test]
    fn cifar10_records_are_a_label_and_three_planes() {
        let contents = [record(&[7]), record(&[0])].concat();
        let (labels, pixels) = read(&contents, Record::Cifar10, 2).unwrap();
        assert_eq!(labels, [7, 0]);
        assert_eq!(pixels, [&contents[1..3073], &contents[3074..]].concat());
    }

    #[test]
    fn cifar100_labels_are_the_fine_ones() {
        let contents = [record(&[19, 99]), record(&[3, 42])].concat();
        let (labels, pixels) = read(&contents, Record::Cifar100, 2).unwrap();
        assert_eq!(labels, [99, 42]);
        assert_eq!(pixels, [&contents[2..3074], &contents[3076..]].concat());
    }

    #[test]
    fn a_truncated_file_says_its_size_and_the_expected_one() {
        let contents = [record(&[1]), record(&[2])].concat();
        for (cut, got) in [(1, 6145), (3073, 3073), (6146, 0)] {
            let error = read(&contents[..6146 - cut], Record::Cifar10, 2).unwrap_err();
            assert_eq!(error.to_string(), format!("x.bin: {got} bytes, expected 6146 (2 records of 3073)"));
        }
    }

    #[test]
    fn a_label_out_of_range_names_its_record() {
        let ten = read(&[record(&[9]), record(&[10])].concat(), Record::Cifar10, 2).unwrap_err();
        assert_eq!(ten.to_string(), "x.bin: label 10 in record 1 (from 0), expected 0 to 9");
        let hundred = read(&record(&[0, 100]), Record::Cifar100, 1).unwrap_err();
        assert_eq!(hundred.to_string(), "x.bin: label 100 in record 0 (from 0), expected 0 to 99");
    }

    // They are numbered in alphabetical order.
    #[test]
    fn the_hundred_fine_classes_are_distinct_and_sorted() {
        let names: Vec<&str> = CLASSES_100.lines().collect();
        assert_eq!(names.len(), 100);
        assert!(names.windows(2).all(|pair| pair[0] < pair[1]));
    }
}
