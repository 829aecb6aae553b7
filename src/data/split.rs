//! Training, validation and test images.

use serde::{Deserialize, Serialize};

use super::Dataset;
use crate::{Error, Result};

/// A data set as read.
#[derive(Clone, Debug)]
pub struct TrainTest {
    /// Training images, in file order.
    pub train: Dataset,
    /// Test images, in file order.
    pub test: Dataset,
    /// One line for each file whose checksum is not the published one, though it is well-formed.
    pub warnings: Vec<String>,
}

/// How much of a data set is used: the keys `data.train_limit`, `data.test_limit` and `data.validation`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// The first N training images; all of them if absent.
    pub train_limit: Option<usize>,
    /// The first N test images; all of them if absent.
    pub test_limit: Option<usize>,
    /// The last N of what `train_limit` leaves are set apart for validation.
    #[serde(default)]
    pub validation: usize,
}

impl Limits {
    /// How many of `available` training images are trained on, the first ones, and how many after them are for validation.
    ///
    /// # Errors
    /// [`Error::Usage`]: a `train_limit` of 0 or beyond the data, a validation that leaves nothing to train on.
    pub fn split_sizes(&self, available: usize) -> Result<(usize, usize)> {
        let used = limit("data.train_limit", self.train_limit, available, "training")?;
        match used.checked_sub(self.validation) {
            Some(train) if train > 0 => Ok((train, self.validation)),
            _ => Err(Error::Usage(format!(
                "data.validation = {}: expected fewer than the {used} training images it is taken from",
                self.validation
            ))),
        }
    }

    /// Whether at most these numbers of training and test images are asked for.
    pub(super) fn within(&self, [train, test]: [usize; 2]) -> bool {
        self.train_limit.is_some_and(|n| n <= train) && self.test_limit.is_some_and(|n| n <= test)
    }
}

/// The three parts of a data set.
#[derive(Clone, Debug)]
pub struct Splits {
    /// What the network learns from. Image i is image i of the file.
    pub train: Dataset,
    /// What is set apart, for methods that fit on it; may be empty.
    pub validation: Dataset,
    /// What the result is measured on.
    pub test: Dataset,
}

impl TrainTest {
    /// Applies the limits: `train_limit` first, then the last `validation` images are set apart.
    ///
    /// A limit of 0 or beyond the data, or a validation that leaves nothing to train on, is an [`Error::Usage`].
    pub fn split(self, limits: Limits) -> Result<Splits> {
        let TrainTest { mut train, mut test, .. } = self;
        let (kept, validation) = limits.split_sizes(train.len())?;
        train.truncate(kept + validation);
        test.truncate(limit("data.test_limit", limits.test_limit, test.len(), "test")?);
        let validation = train.split_off(kept);
        Ok(Splits { train, validation, test })
    }
}

fn limit(key: &str, limit: Option<usize>, available: usize, kind: &str) -> Result<usize> {
    match limit {
        None => Ok(available),
        Some(n) if (1..=available).contains(&n) => Ok(n),
        Some(n) => Err(Error::Usage(format!("{key} = {n}: expected 1 to {available}, the {kind} images there are"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{ImageShape, Normalisation};

    // Image i has pixel i and label i.
    fn numbered(n: usize) -> Dataset {
        let shape = ImageShape { channels: 1, height: 1, width: 1 };
        let names = (0..n).map(|i| i.to_string()).collect();
        let pixels = (0..n).map(|i| i as u8).collect();
        let norm = Normalisation::new(255, &[0.0], &[1.0]);
        Dataset::in_memory("numbered", shape, names, norm, (0..n as u32).collect(), pixels).unwrap()
    }

    fn split(limits: Limits) -> Result<Splits> {
        TrainTest { train: numbered(10), test: numbered(6), warnings: vec![] }.split(limits)
    }

    #[test]
    fn the_limit_comes_first_and_validation_is_the_end_of_what_it_leaves() {
        let splits = split(Limits { train_limit: Some(8), test_limit: Some(2), validation: 3 }).unwrap();
        assert_eq!(splits.train.labels(), [0, 1, 2, 3, 4]);
        assert_eq!(splits.validation.labels(), [5, 6, 7]);
        assert_eq!(splits.test.labels(), [0, 1]);
        assert_eq!(splits.validation.image(2).unwrap().as_ref(), [7]);
    }

    #[test]
    fn without_limits_everything_is_used_and_validation_is_empty() {
        let splits = split(Limits::default()).unwrap();
        assert_eq!((splits.train.len(), splits.validation.len(), splits.test.len()), (10, 0, 6));
    }

    #[test]
    fn limits_that_cannot_be_met_name_their_key() {
        let cases = [
            (Limits { validation: 10, ..Limits::default() }, "data.validation = 10: expected fewer than the 10"),
            (
                Limits { train_limit: Some(4), validation: 4, ..Limits::default() },
                "data.validation = 4: expected fewer than the 4",
            ),
            (Limits { train_limit: Some(11), ..Limits::default() }, "data.train_limit = 11: expected 1 to 10"),
            (Limits { test_limit: Some(0), ..Limits::default() }, "data.test_limit = 0: expected 1 to 6"),
        ];
        for (limits, expected) in cases {
            let error = split(limits).unwrap_err();
            assert!(matches!(error, Error::Usage(_)) && error.to_string().starts_with(expected), "{error}");
        }
    }

    #[test]
    fn the_sizes_foretold_are_those_of_the_split() {
        for (train_limit, validation) in [(None, 0), (None, 9), (Some(10), 3), (Some(1), 0), (Some(8), 7)] {
            let limits = Limits { train_limit, test_limit: None, validation };
            let splits = split(limits).unwrap();
            assert_eq!(limits.split_sizes(10).unwrap(), (splits.train.len(), splits.validation.len()));
            assert_eq!(splits.validation.len(), validation);
        }
    }
}
