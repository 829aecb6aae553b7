//! VGG-16 with batch norm (Simonyan & Zisserman 2015), the form for 32x32 images.

use super::{Conv2d, Network, scaled};
use crate::error::Result;
use crate::graph::{Graph, Init, NodeId};

/// Thirteen 3x3 convolutions with bias, five max pools, one linear layer. Names count modules as torchvision does: convolution,
/// batch norm and ReLU are three, a pool is one.
#[derive(Clone, Debug)]
pub struct Vgg16 {
    /// Factor of all widths.
    pub width: f64,
}

impl Network for Vgg16 {
    fn name(&self) -> &str {
        "vgg16-bn"
    }

    fn record(&self, g: &mut Graph, images: NodeId, classes: usize) -> Result<NodeId> {
        let (mut x, mut module) = (images, 0);
        for stage in [&[64, 64][..], &[128, 128], &[256, 256, 256], &[512, 512, 512], &[512, 512, 512]] {
            for &channels in stage {
                let name = format!("features.{module}");
                x = g.conv2d(&name, x, Conv2d::same(scaled(channels, self.width), 3, 1))?;
                x = g.bias(&name, x, Init::Constant(0.0))?;
                x = g.batch_norm_relu(&format!("features.{}", module + 1), x)?;
                module += 3;
            }
            x = g.max_pool(&format!("features.{module}"), x, 2, 2, 0)?;
            module += 1;
        }
        let rows = g.flatten("flatten", x)?;
        g.linear("classifier", rows, classes)
    }
}
