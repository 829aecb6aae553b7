//! What a run shows of itself: tables and plots. Nothing here writes a file; callers get strings and bytes.

pub mod plot;
pub mod png;
pub mod summary;
pub mod table;
