//! Logical shapes: what the graph speaks of. How a shape lies in memory is each backend's own affair.

use std::fmt;

/// The shape of an activation: images (N, C, H, W), or rows of features (N, C) as H = W = 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shape {
    /// Images in the batch.
    pub n: usize,
    /// Channels, or features.
    pub c: usize,
    /// Rows.
    pub h: usize,
    /// Columns.
    pub w: usize,
}

impl Shape {
    /// Images (N, C, H, W).
    pub fn images(n: usize, c: usize, h: usize, w: usize) -> Self {
        Shape { n, c, h, w }
    }

    /// Rows of features (N, C).
    pub fn features(n: usize, c: usize) -> Self {
        Shape { n, c, h: 1, w: 1 }
    }

    /// Elements in all.
    pub fn len(self) -> usize {
        self.n * self.c * self.h * self.w
    }

    /// True when there is no element.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Pixels of one channel of one image.
    pub fn pixels(self) -> usize {
        self.h * self.w
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.h == 1 && self.w == 1 {
            write!(f, "({}, {})", self.n, self.c)
        } else {
            write!(f, "({}, {}, {}, {})", self.n, self.c, self.h, self.w)
        }
    }
}
