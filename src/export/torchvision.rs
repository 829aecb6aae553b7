//! Networks as torchvision's `load_state_dict(strict=True)` takes them.
//!
//! The parameters have torchvision's names from the start, so what is left is what PyTorch has beside them, and what the forms for small
//! images change in torchvision's classes:
//!
//! | network | torchvision |
//! |---|---|
//! | resnet18-imagenet, resnet50-imagenet | `resnet18(num_classes=C)`, `resnet50(num_classes=C)` |
//! | resnet18, resnet50 | the same, then `conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)` and `maxpool = nn.Identity()` |
//! | vgg16-bn | `vgg16_bn()`, then `avgpool = nn.Identity()` and `classifier = nn.Linear(512, C)` for 32x32 images |

use super::values;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::graph::Role;
use crate::model::Model;
use crate::train::checkpoint::{Tensors, to_json};
use crate::train::trained::About;

/// Networks that torchvision has.
const NETWORKS: [&str; 5] = ["resnet18", "resnet50", "resnet18-imagenet", "resnet50-imagenet", "vgg16-bn"];

/// Whether torchvision has the network of a configuration, in its width.
pub fn state_dict_fits(config: &Config) -> bool {
    check(config).is_ok()
}

/// Fails where torchvision has no such network.
pub(super) fn check(config: &Config) -> Result<()> {
    let name = config.network.name.name();
    let why = if !NETWORKS.contains(&name) {
        format!("torchvision has no {name}, only {}", NETWORKS.join(", "))
    } else if config.width_factor() != 1.0 {
        format!("torchvision has no {name} as narrow as that of {}", config.method)
    } else {
        return Ok(());
    };
    Err(Error::Usage(format!("{why}; export with --names cigl")))
}

/// The `state_dict` as a safetensors file: parameters, running statistics, and for each batch norm `NAME.num_batches_tracked`, an I64
/// scalar. That one is 0, for it counts batches only to weigh them where a batch norm has no momentum, and torchvision's have one.
pub(super) fn state_dict(model: &mut Model, about: &About) -> Result<Vec<u8>> {
    let mut tensors = Tensors::default();
    for (id, p) in model.parameters().clone().iter() {
        tensors.floats(p.name.clone(), &p.dims, &values(model, id)?);
        if p.role == Role::RunningVariance {
            let norm = p.name.trim_end_matches("running_var");
            tensors.integer(format!("{norm}num_batches_tracked"), 0);
        }
    }
    Ok(tensors.to_file(&to_json(about)?))
}
