//! Scores as a file holds them: f64 stays f64, all else becomes f32 without loss.

/// A buffer of scores of either type.
#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    /// From f16, bf16 or f32.
    F32(Vec<f32>),
    /// From f64 or text.
    F64(Vec<f64>),
}

impl Values {
    /// Number of scores.
    pub fn len(&self) -> usize {
        match self {
            Values::F32(values) => values.len(),
            Values::F64(values) => values.len(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Score `at`.
    pub(super) fn get(&self, at: usize) -> f64 {
        match self {
            Values::F32(values) => f64::from(values[at]),
            Values::F64(values) => values[at],
        }
    }

    /// Takes its room for `len` f32, to be overwritten and given back.
    pub(super) fn take_f32(&mut self, len: usize) -> Vec<f32> {
        let mut values = match std::mem::replace(self, Values::F32(Vec::new())) {
            Values::F32(values) => values,
            Values::F64(_) => Vec::new(),
        };
        values.resize(len, 0.0);
        values
    }

    /// As [`Self::take_f32`], of f64.
    pub(super) fn take_f64(&mut self, len: usize) -> Vec<f64> {
        let mut values = match std::mem::replace(self, Values::F64(Vec::new())) {
            Values::F64(values) => values,
            Values::F32(_) => Vec::new(),
        };
        values.resize(len, 0.0);
        values
    }
}
