//! Wide ResNets (Zagoruyko & Komodakis 2016).

use super::{Conv2d, Network, scaled};
use crate::error::Result;
use crate::graph::{Graph, NodeId};

/// WRN-depth-widen: three groups of (depth - 4) / 6 pre-activation basic blocks, strides 1, 2, 2.
#[derive(Clone, Debug)]
pub struct WideResNet {
    /// Convolutions in the main path, 6 n + 4.
    pub depth: usize,
    /// Factor over the widths 16, 32, 64.
    pub widen: usize,
    /// Dropout between the two convolutions of a block.
    pub dropout: f64,
    /// Factor of all widths, for small-dense networks.
    pub width: f64,
}

impl WideResNet {
    fn block(&self, g: &mut Graph, x: NodeId, channels: usize, stride: usize) -> Result<NodeId> {
        let activated = g.batch_norm_relu("bn1", x)?;
        let y = g.conv2d("conv1", activated, Conv2d::same(channels, 3, stride))?;
        let y = g.batch_norm_relu("bn2", y)?;
        let y = g.dropout("dropout", y, self.dropout)?;
        let y = g.conv2d("conv2", y, Conv2d::same(channels, 3, 1))?;
        let shortcut = if g.shape(x).c != channels || stride != 1 {
            g.conv2d("shortcut", activated, Conv2d::same(channels, 1, stride))?
        } else {
            x
        };
        g.add("add", y, shortcut)
    }
}

impl Network for WideResNet {
    fn name(&self) -> &str {
        "wrn22-2"
    }

    fn record(&self, g: &mut Graph, images: NodeId, classes: usize) -> Result<NodeId> {
        let mut x = g.conv2d("conv1", images, Conv2d::same(scaled(16, self.width), 3, 1))?;
        for (group, base) in [16, 32, 64].into_iter().enumerate() {
            for block in 0..(self.depth - 4) / 6 {
                let stride = if group > 0 && block == 0 { 2 } else { 1 };
                let channels = scaled(base * self.widen, self.width);
                x = g.scope(format!("groups.{group}.blocks.{block}"), |g| self.block(g, x, channels, stride))?;
            }
        }
        x = g.batch_norm_relu("bn", x)?;
        let pooled = g.global_average_pool("pool", x)?;
        g.linear("fc", pooled, classes)
    }
}
