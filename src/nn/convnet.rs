//! The small convnet of the demo.

use super::layers::fan_in_uniform;
use super::{Conv2d, Network, scaled};
use crate::error::Result;
use crate::graph::{Graph, NodeId};

/// Five 3x3 conv-BN-ReLU of 16, 32 (stride 2), 32, 64 (stride 2) and 64 channels, global average pool, linear: 70,330 parameters
/// on 28x28 gray images.
#[derive(Clone, Debug)]
pub struct SmallConvnet {
    /// Factor of all widths.
    pub width: f64,
}

impl Network for SmallConvnet {
    fn name(&self) -> &str {
        "small-convnet"
    }

    fn record(&self, g: &mut Graph, images: NodeId, classes: usize) -> Result<NodeId> {
        let mut x = images;
        for (i, (channels, stride)) in [(16, 1), (32, 2), (32, 1), (64, 2), (64, 1)].into_iter().enumerate() {
            let init = fan_in_uniform(9 * g.shape(x).c);
            let conv = Conv2d { init, ..Conv2d::same(scaled(channels, self.width), 3, stride) };
            x = g.conv2d(&format!("conv{}", i + 1), x, conv)?;
            x = g.batch_norm_relu(&format!("bn{}", i + 1), x)?;
        }
        let pooled = g.global_average_pool("pool", x)?;
        g.linear("fc", pooled, classes)
    }
}
