//! ResNets (He et al. 2016), version 1.5: a bottleneck's stride is on its 3x3 convolution.

use super::{Conv2d, Network, scaled};
use crate::error::Result;
use crate::graph::{Graph, NodeId};

/// How the images enter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stem {
    /// 3x3 convolution, stride 1, no pooling: 32x32 images.
    Cifar,
    /// 7x7 convolution, stride 2, then 3x3 max pooling, stride 2: 224x224 images.
    ImageNet,
}

/// A residual network with torchvision's names.
#[derive(Clone, Debug)]
pub struct ResNet {
    name: &'static str,
    stem: Stem,
    blocks: [usize; 4],
    bottleneck: bool,
    width: f64,
}

impl ResNet {
    /// ResNet-18: basic blocks [2, 2, 2, 2].
    pub fn resnet18(stem: Stem, width: f64) -> Self {
        let name = if stem == Stem::Cifar { "resnet18" } else { "resnet18-imagenet" };
        ResNet { name, stem, blocks: [2; 4], bottleneck: false, width }
    }

    /// ResNet-50: bottlenecks [3, 4, 6, 3], expansion 4.
    pub fn resnet50(stem: Stem, width: f64) -> Self {
        let name = if stem == Stem::Cifar { "resnet50" } else { "resnet50-imagenet" };
        ResNet { name, stem, blocks: [3, 4, 6, 3], bottleneck: true, width }
    }

    fn block(&self, g: &mut Graph, x: NodeId, channels: usize, stride: usize) -> Result<NodeId> {
        let (last, body, out) = if self.bottleneck {
            let y = g.conv2d("conv1", x, Conv2d::same(channels, 1, 1))?;
            let y = g.batch_norm_relu("bn1", y)?;
            let y = g.conv2d("conv2", y, Conv2d::same(channels, 3, stride))?;
            let y = g.batch_norm_relu("bn2", y)?;
            let y = g.conv2d("conv3", y, Conv2d::same(4 * channels, 1, 1))?;
            ("bn3", y, 4 * channels)
        } else {
            let y = g.conv2d("conv1", x, Conv2d::same(channels, 3, stride))?;
            let y = g.batch_norm_relu("bn1", y)?;
            let y = g.conv2d("conv2", y, Conv2d::same(channels, 3, 1))?;
            ("bn2", y, channels)
        };
        g.batch_norm_add_relu(last, body, |g| {
            if stride == 1 && g.shape(x).c == out {
                return Ok(x);
            }
            let y = g.conv2d("downsample.0", x, Conv2d::same(out, 1, stride))?;
            g.batch_norm("downsample.1", y)
        })
    }
}

impl Network for ResNet {
    fn name(&self) -> &str {
        self.name
    }

    fn record(&self, g: &mut Graph, images: NodeId, classes: usize) -> Result<NodeId> {
        let width = |channels| scaled(channels, self.width);
        let mut x = match self.stem {
            Stem::Cifar => g.conv2d("conv1", images, Conv2d::same(width(64), 3, 1))?,
            Stem::ImageNet => g.conv2d("conv1", images, Conv2d::same(width(64), 7, 2))?,
        };
        x = g.batch_norm_relu("bn1", x)?;
        if self.stem == Stem::ImageNet {
            x = g.max_pool("maxpool", x, 3, 2, 1)?;
        }
        for (stage, &blocks) in self.blocks.iter().enumerate() {
            for block in 0..blocks {
                let stride = if stage > 0 && block == 0 { 2 } else { 1 };
                x = g.scope(format!("layer{}.{block}", stage + 1), |g| self.block(g, x, width(64 << stage), stride))?;
            }
        }
        let pooled = g.global_average_pool("avgpool", x)?;
        g.linear("fc", pooled, classes)
    }
}
