//! What a run shows of itself: tables, plots and pages. Nothing here writes a file; callers get strings and bytes.

pub mod html;
pub mod metrics;
pub mod plot;
pub mod png;
pub mod summary;
pub mod svg;
pub mod table;
