//! The two ways in which maps are stored.

use std::fmt;

/// How the numbers of a [`Map`](super::Map) are stored; arithmetic on them is in f32 either way.
///
/// A backend has one precision for its activations, their gradients and the effective weights. Masters of the weights, gradients
/// of parameters, optimiser state, statistics and losses are f32 on every backend, and so are the maps that the loss reads: a plan
/// settles it map by map.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Precision {
    /// IEEE 754 binary32: 24 significant bits.
    #[default]
    F32,
    /// bfloat16, f32's exponent with 8 significant bits: what is stored is the f32 result, rounded to nearest, ties to even.
    Bf16,
}

impl fmt::Display for Precision {
    /// `f32` or `bf16`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Precision::F32 => "f32",
            Precision::Bf16 => "bf16",
        })
    }
}
