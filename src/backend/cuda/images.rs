//! Compiled kernels, embedded by build.rs.

/// A kernel file compiled for one architecture.
pub(crate) struct Image {
    pub(crate) file: &'static str,
    pub(crate) architecture: &'static str,
    pub(crate) code: &'static [u8],
    pub(crate) log: &'static str,
}
include!(concat!(env!("OUT_DIR"), "/images.rs"));
