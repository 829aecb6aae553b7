//! Files of predictions.
