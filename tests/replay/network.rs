//! The small convnet: 3x3 conv, batch norm, ReLU five times, global average pool, linear.

use std::collections::BTreeMap;

use crate::layers::{
    BatchNorm, Conv, Maps, cross_entropy, global_average_pool, global_average_pool_backward, relu, relu_backward,
};
use crate::model::Model;

/// Convolutions `conv1.weight ..`, each followed by `bn1 ..` and a ReLU, and the classifier `fc`.
pub(crate) struct Network {
    convs: Vec<Conv>,
    classifier: Conv,
}

/// What one forward and backward over a batch gives.
pub(crate) struct Pass {
    /// Mean cross-entropy of the batch.
    pub(crate) loss: f64,
    /// dL/dparameter by name, of the loss alone; of a masked weight for all its positions.
    pub(crate) gradients: BTreeMap<String, Vec<f64>>,
    /// The batch's statistics by the name of the running one they feed, `bn1.running_mean ..`.
    pub(crate) statistics: BTreeMap<String, Vec<f64>>,
}

impl Network {
    /// The small convnet for images of one channel and ten classes.
    pub(crate) fn small_convnet() -> Self {
        Network::new(1, &[(16, 1), (32, 2), (32, 1), (64, 2), (64, 1)], 10)
    }

    /// 3x3 convolutions of the given (channels, stride).
    fn new(mut inputs: usize, convs: &[(usize, usize)], classes: usize) -> Self {
        let convs = convs.iter().map(|&(outputs, stride)| {
            let conv = Conv { inputs, outputs, kernel: 3, stride };
            inputs = outputs;
            conv
        });
        let convs = convs.collect();
        Network { convs, classifier: Conv { inputs, outputs: classes, kernel: 1, stride: 1 } }
    }

    /// The loss of a batch in training mode, and its gradients.
    pub(crate) fn pass(&self, model: &Model, images: Maps, labels: &[u8]) -> Pass {
        let (mut gradients, mut statistics) = (BTreeMap::new(), BTreeMap::new());

        let (mut x, mut layers) = (images, Vec::new());
        for (l, conv) in (1..).zip(&self.convs) {
            let convolved = conv.forward(&x, model.values(&format!("conv{l}.weight")));
            let (gamma, beta) = (model.values(&format!("bn{l}.weight")), model.values(&format!("bn{l}.bias")));
            let (normalised, norm) = BatchNorm::forward(&convolved, gamma, beta);
            statistics.insert(format!("bn{l}.running_mean"), norm.mean.clone());
            statistics.insert(format!("bn{l}.running_var"), norm.unbiased_variance.clone());
            let y = relu(&normalised);
            layers.push((l, conv, std::mem::replace(&mut x, y), norm));
        }
        let pooled = global_average_pool(&x);
        let mut logits = self.classifier.forward(&pooled, model.values("fc.weight"));
        for row in logits.data.chunks_exact_mut(self.classifier.outputs) {
            row.iter_mut().zip(model.values("fc.bias")).for_each(|(logit, bias)| *logit += bias);
        }
        let (loss, dlogits) = cross_entropy(&logits, labels);

        let (dpooled, dw) = self.classifier.backward(&pooled, model.values("fc.weight"), &dlogits);
        let mut dbias = vec![0.0; self.classifier.outputs];
        for row in dlogits.data.chunks_exact(self.classifier.outputs) {
            dbias.iter_mut().zip(row).for_each(|(sum, d)| *sum += d);
        }
        gradients.insert("fc.weight".to_owned(), dw);
        gradients.insert("fc.bias".to_owned(), dbias);
        let (mut y, mut dy) = (x.clone(), global_average_pool_backward(&x, &dpooled));
        for (l, conv, x, norm) in layers.into_iter().rev() {
            let dnormalised = relu_backward(&y, &dy);
            let (dconvolved, dgamma, dbeta) = norm.backward(model.values(&format!("bn{l}.weight")), &dnormalised);
            let (dx, dw) = conv.backward(&x, model.values(&format!("conv{l}.weight")), &dconvolved);
            gradients.insert(format!("bn{l}.weight"), dgamma);
            gradients.insert(format!("bn{l}.bias"), dbeta);
            gradients.insert(format!("conv{l}.weight"), dw);
            (y, dy) = (x, dx);
        }
        Pass { loss, gradients, statistics }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Tensor;

    /// Values in (-1, 1) without a pattern that a convolution could cancel.
    fn scattered(count: usize, phase: f64) -> Vec<f64> {
        (0..count).map(|i| ((i as f64 + phase) * 12.9898).sin()).collect()
    }

    fn tensor(shape: &[usize], phase: f64) -> Tensor {
        Tensor { shape: shape.to_vec(), values: scattered(shape.iter().product(), phase) }
    }

    /// Two channels of 5x3 pixels through convolutions of 3 and 4 channels (the second strided) to three classes.
    fn tiny() -> (Network, Model, Maps, Vec<u8>) {
        let tensors = [
            ("conv1.weight", tensor(&[3, 3, 3, 2], 0.1)),
            ("bn1.weight", tensor(&[3], 0.2)),
            ("bn1.bias", tensor(&[3], 0.3)),
            ("conv2.weight", tensor(&[4, 3, 3, 3], 0.4)),
            ("bn2.weight", tensor(&[4], 0.5)),
            ("bn2.bias", tensor(&[4], 0.6)),
            ("fc.weight", tensor(&[3, 4], 0.7)),
            ("fc.bias", tensor(&[3], 0.8)),
        ];
        let tensors = tensors.into_iter().map(|(name, tensor)| (name.to_owned(), tensor)).collect();
        let images = Maps { n: 4, h: 5, w: 3, c: 2, data: scattered(4 * 5 * 3 * 2, 0.9) };
        let network = Network::new(2, &[(3, 1), (4, 2)], 3);
        (network, Model { tensors, masks: BTreeMap::new() }, images, vec![0, 2, 1, 2])
    }

    #[test]
    fn every_gradient_equals_its_central_difference() {
        let (network, model, images, labels) = tiny();
        let gradients = network.pass(&model, images.clone(), &labels).gradients;
        let parameters: Vec<_> = model.tensors.keys().collect();
        assert_eq!(gradients.keys().collect::<Vec<_>>(), parameters);
        for name in parameters {
            assert!(gradients[name].iter().any(|g| g.abs() > 1e-3), "{name}'s gradient is too small to tell anything");
            for (at, &gradient) in gradients[name].iter().enumerate() {
                let h = 1e-5;
                let loss_at = |shift: f64| {
                    let mut shifted = model.clone();
                    shifted.tensors.get_mut(name).unwrap().values[at] += shift;
                    network.pass(&shifted, images.clone(), &labels).loss
                };
                let difference = (loss_at(h) - loss_at(-h)) / (2.0 * h);
                assert!((gradient - difference).abs() < 1e-8, "{name}[{at}]: {gradient} is not {difference}");
            }
        }
    }

    #[test]
    fn the_small_convnet_has_70330_parameters() {
        let network = Network::small_convnet();
        let conv = |c: &Conv| c.kernel * c.kernel * c.inputs * c.outputs;
        let norms: usize = network.convs.iter().map(|c| 2 * c.outputs).sum();
        let convs: usize = network.convs.iter().map(conv).sum();
        assert_eq!(convs + norms + conv(&network.classifier) + network.classifier.outputs, 70_330);
    }
}
