//! The derivatives of the reference against central differences of its forward passes, in f64.
