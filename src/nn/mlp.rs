//! A multilayer perceptron.

use super::Network;
use crate::error::Result;
use crate::graph::{Graph, NodeId};

/// Linear layers with ReLU between them, on flattened images: `fc1`, `fc2`, ...
#[derive(Clone, Debug)]
pub struct Mlp {
    /// Features of the hidden layers; LeNet-300-100 has 300 and 100.
    pub hidden: Vec<usize>,
}

impl Network for Mlp {
    fn name(&self) -> &str {
        "mlp"
    }

    fn record(&self, g: &mut Graph, images: NodeId, classes: usize) -> Result<NodeId> {
        let mut x = g.flatten("flatten", images)?;
        for (i, &features) in self.hidden.iter().enumerate() {
            x = g.linear(&format!("fc{}", i + 1), x, features)?;
            x = g.relu(&format!("relu{}", i + 1), x)?;
        }
        g.linear(&format!("fc{}", self.hidden.len() + 1), x, classes)
    }
}
