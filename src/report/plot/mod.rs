//! Plots as SVG text. They stay legible without colour: what colour tells apart, fill, hatching or dashes do too.
//!
//! Each function returns a complete SVG document; [`super::png::render`] turns it into a PNG. Sizes are CSS pixels. Values
//! that are not finite are left out, so a diverged run can still be drawn.

mod against_sparsity;
mod bars;
mod bin_sweep;
mod chart;
mod confidence;
mod curves;
mod density;
mod evolution;
mod look;
mod panel;
mod radar;
mod reliability;
mod training;

pub use against_sparsity::against_sparsity;
pub use bars::bars;
pub use bin_sweep::bin_sweep;
pub use confidence::confidence;
pub use density::density;
pub use evolution::{Evolution, evolution};
pub use panel::{Panel, Point, Series};
pub use radar::radar;
pub use reliability::{comparison, reliability};
pub use training::{Line, Mark, Training, training};

#[cfg(test)]
mod tests;
