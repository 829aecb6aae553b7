//! Inference on the CPU: a network's masked weights in the form that predicts fastest.
//!
//! Weights are compressed to those inside their masks, batch norm rides along with the convolutions, and sixteen images at a time go
//! through the whole network before the next sixteen, so that activations stay in the caches.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;

use crate::backend::cpu::Cpu;
use crate::backend::cpu::simd::LANES;
use crate::backend::{Extent, StepState};
use crate::error::{Error, Result};
use crate::graph::Mode;
use crate::model::Model;
use crate::nn::Network;

/// A network that only predicts, on rayon's current thread pool.
///
/// ```
/// use cigl::backend::cpu::Cpu;
/// use cigl::inference::InferenceSession;
/// use cigl::model::Model;
/// use cigl::nn::Mlp;
///
/// let network = || Box::new(Mlp { hidden: vec![32] });
/// let mut model = Model::new(network(), [1, 8, 8], 10, Box::new(Cpu::new()))?;
/// model.initialise(0)?;
/// let mut session = InferenceSession::new(&mut model, || Ok(network()))?;
/// let logits = session.logits(&[0.5; 3 * 64])?;
/// assert_eq!(logits.len(), 3 * 10);
/// # Ok::<(), cigl::Error>(())
/// ```
pub struct InferenceSession {
    /// One a thread: each has memory of its own.
    workers: Vec<Mutex<Model>>,
    image: usize,
    classes: usize,
}

impl InferenceSession {
    /// Takes over the weights and masks of `model`; `network` makes the same network anew.
    ///
    /// # Errors
    /// A network with other parameters than the model's; memory that cannot be had.
    pub fn new(model: &mut Model, network: impl Fn() -> Result<Box<dyn Network>>) -> Result<Self> {
        let (image, classes) = (model.image(), model.classes());
        let worker = |_| {
            let mut worker = Model::new(network()?, image, classes, Box::new(Cpu::new()))?;
            if worker.parameters() != model.parameters() {
                return Err(Error::shape(
                    "inference",
                    format!("{} is another network than the model's", worker.network()),
                ));
            }
            worker.reserve()?;
            for (id, _) in worker.parameters().clone().iter() {
                let values = model.read(id, model.value(id))?;
                worker.write(id, worker.value(id), &values)?;
                if let Some(weight) = model.weight(id) {
                    let mask = model.mask(weight.layer)?;
                    worker.backend().write_mask(weight.layer, &mask)?;
                }
            }
            worker.use_deterministic_weights()?;
            Ok(Mutex::new(worker))
        };
        let workers = (0..rayon::current_num_threads()).map(worker).collect::<Result<_>>()?;
        Ok(InferenceSession { workers, image: image.iter().product(), classes })
    }

    /// Logits (N, classes) of normalised images (N, C, H, W), any number of them.
    ///
    /// The same as evaluating the model gives, to the bit, whatever the number of images and threads.
    ///
    /// # Errors
    /// Pixels that are not those of whole images.
    pub fn logits(&mut self, images: &[f32]) -> Result<Vec<f32>> {
        if !images.len().is_multiple_of(self.image) {
            let detail = format!("{} values, expected a multiple of {}, those of an image", images.len(), self.image);
            return Err(Error::shape("inference", detail));
        }
        let mut logits = vec![0.0; images.len() / self.image * self.classes];
        let images: Vec<&[f32]> = images.chunks(LANES * self.image).collect();
        let blocks: Vec<_> = logits.chunks_mut(LANES * self.classes).map(Mutex::new).collect();
        let next = AtomicUsize::new(0);
        // Every worker takes block after block; the last ones are shared by the kernels inside.
        self.workers.par_iter().with_max_len(1).try_for_each(|worker| {
            let mut model = worker.lock().expect("a worker that panicked took the session with it");
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                let Some(images) = images.get(at) else { return Ok(()) };
                let state = StepState { seed: 0, step: 0, statistics_momentum: 0.0, extent: Extent::Active };
                let values = model.forward(Mode::Evaluate, images, state)?;
                blocks[at].lock().expect("every block has one writer").copy_from_slice(&values);
            }
        })?;
        drop(blocks);
        Ok(logits)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::bitmask::BitMask;
    use crate::graph::Role;
    use crate::nn::{NetworkOptions, network};
    use crate::rng::{Domain, Stream};

    const IMAGE: [usize; 3] = [3, 8, 8];

    fn body(name: &str) -> Result<Box<dyn Network>> {
        network(name, NetworkOptions { width: 0.25, ..NetworkOptions::default() })
    }

    /// One of the known networks, as [`altered`] leaves it.
    fn trained(name: &str) -> Model {
        altered(Model::new(body(name).unwrap(), IMAGE, 5, Box::new(Cpu::new())).unwrap())
    }

    /// The network with every other layer at density .2, and scales, shifts and statistics unlike those of the start: a fresh residual
    /// block is the identity, whatever is in it.
    pub(crate) fn altered(mut model: Model) -> Model {
        model.initialise(1).unwrap();
        let mut draws = Stream::new(2, Domain::Weights, 0, 0);
        for (id, p) in model.parameters().clone().iter().filter(|(_, p)| p.role != Role::Weight) {
            let positive = |x: f64| if p.role == Role::RunningVariance { 0.5 + x } else { x - 0.3 };
            let values: Vec<f32> = (0..p.len()).map(|_| positive(draws.uniform()) as f32).collect();
            model.write(id, model.value(id), &values).unwrap();
        }
        for weight in model.weights().into_iter().filter(|weight| weight.layer % 2 == 1) {
            let mask = BitMask::from_fn(weight.len(), |_| draws.uniform() < 0.2);
            model.backend().write_mask(weight.layer, &mask).unwrap();
        }
        model.use_deterministic_weights().unwrap();
        model
    }

    #[test]
    fn a_session_predicts_what_evaluation_does_for_any_number_of_images_and_threads() {
        let mut draws = Stream::new(3, Domain::Weights, 0, 0);
        for name in ["wrn22-2", "resnet18", "small-convnet", "mlp"] {
            let mut model = trained(name);
            for threads in [1, 3] {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                let mut session = pool.install(|| InferenceSession::new(&mut model, || body(name))).unwrap();
                for n in [0, 1, 16, 37] {
                    let images: Vec<f32> = (0..n * 192).map(|_| draws.normal() as f32).collect();
                    let state = StepState { seed: 0, step: 0, statistics_momentum: 0.0, extent: Extent::Active };
                    let expected = match n {
                        0 => vec![],
                        _ => model.forward(Mode::Evaluate, &images, state).unwrap(),
                    };
                    let logits = pool.install(|| session.logits(&images)).unwrap();
                    assert!(logits.iter().all(|x| x.is_finite()) && logits.len() == 5 * n, "{name}: {logits:?}");
                    assert_eq!(logits, expected, "{name}, {n} images, {threads} threads");
                }
            }
        }
    }

    #[test]
    fn a_session_refuses_another_network_and_parts_of_images() {
        let mut model = trained("mlp");
        let other = InferenceSession::new(&mut model, || body("resnet18")).err().unwrap().to_string();
        assert!(other.contains("another network"), "{other}");
        let mut session = InferenceSession::new(&mut model, || body("mlp")).unwrap();
        let part = session.logits(&[0.0; 200]).unwrap_err().to_string();
        assert!(part.contains("200 values, expected a multiple of 192"), "{part}");
    }
}
