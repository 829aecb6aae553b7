//! A network of your own, trained sparse: `cargo run --release --example own_network`
//!
//! The network is a struct that records its layers. Everything else (masks for every weight, densities by layer, the training
//! loop, averaging, metrics) is the library's, and is told what to do by a configuration.

use cigl::backend::cpu::Cpu;
use cigl::config::{Assignment, Config};
use cigl::error::Result;
use cigl::graph::{Graph, NodeId};
use cigl::nn::{Conv2d, Network};
use cigl::train::Trainer;

/// A residual network for tiny images: a stem, some blocks with a shortcut, pooling, a linear layer.
struct TinyResNet {
    channels: usize,
    blocks: usize,
}

impl Network for TinyResNet {
    fn name(&self) -> &str {
        "tiny-resnet"
    }

    // Called once for every batch size and for training and evaluation, so it must record the same layers each time. Nothing is
    // computed here: a node stands for a value of a known shape.
    fn record(&self, g: &mut Graph, images: NodeId, classes: usize) -> Result<NodeId> {
        // The name given to a layer becomes that of its parameters: `stem.weight` (channels, inputs, 3, 3).
        let x = g.conv2d("stem", images, Conv2d::same(self.channels, 3, 1))?;
        let mut x = g.batch_norm_relu("stem_bn", x)?;
        for block in 1..=self.blocks {
            // Inside a scope, `conv1` is `block1.conv1`, `block2.conv1` ...
            x = g.scope(format!("block{block}"), |g| self.block(g, x))?;
        }
        let features = g.global_average_pool("pool", x)?;
        g.linear("fc", features, classes)
    }
}

impl TinyResNet {
    /// relu(x + conv(relu(conv(x)))), with batch norms. The last starts at 0, so that a new block passes its input on.
    fn block(&self, g: &mut Graph, x: NodeId) -> Result<NodeId> {
        let inside = g.conv2d("conv1", x, Conv2d::same(self.channels, 3, 1))?;
        let inside = g.batch_norm_relu("bn1", inside)?;
        let inside = g.conv2d("conv2", inside, Conv2d::same(self.channels, 3, 1))?;
        g.batch_norm_add_relu("bn2", inside, |_| Ok(x))
    }
}

fn main() -> Result<()> {
    // A preset says how to train and on what; settings change it, as --set does on the command line.
    let settings = ["method=cigl", "sparsity=0.9", "train.epochs=10", "random_mask.keep=0.95"];
    let settings = settings.into_iter().map(Assignment::parse).collect::<Result<Vec<_>>>()?;
    let config = Config::resolve(Some("digits"), None, &settings)?;
    let digits = config.data.dataset.load(None, config.limits())?.split(config.limits())?;

    let network = Box::new(TinyResNet { channels: 32, blocks: 2 });
    let mut trainer = Trainer::start(&config, network, &digits.train, Box::new(Cpu::new()))?;
    while !trainer.is_done() {
        let report = trainer.step()?;
        if let Some(epoch) = report.epoch_end {
            println!(
                "epoch {:2}  loss {:.3}  training accuracy {:.1} %",
                report.epoch,
                epoch.loss,
                100.0 * epoch.accuracy
            );
        }
    }
    // CigL's result is the average of the last epochs' networks; this puts it in place of the last weights.
    trainer.finish(&mut |_| {})?;

    let metrics = trainer.evaluate(&digits.test)?.metrics;
    println!("\n{} test images", metrics.n);
    println!("accuracy  {:.2} %", 100.0 * metrics.accuracy);
    println!("ECE       {:.4}", metrics.ece);
    println!("sparsity  {:.2} %", 100.0 * (1.0 - trainer.model().density()?));
    let model = trainer.model();
    for (weight, (_, parameter)) in model.weights().into_iter().zip(model.parameters().clone().weights()) {
        println!("  {:<20} {:5} of {:5} weights", parameter.name, model.mask(weight.layer)?.count(), weight.len());
    }
    Ok(())
}
