//! Inference on the CPU: a network's masked weights in the form that predicts fastest.
//!
//! Weights are compressed to those inside their masks, batch norm rides along with the convolutions, and sixteen images at a time go
//! through the whole network before the next sixteen, so that activations stay in the caches. A few images that are left over go one by
//! one, in the layout that the CPU has for a single image.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;

use crate::backend::cpu::Cpu;
use crate::backend::cpu::simd::LANES;
use crate::backend::{Extent, StepState, on_pool};
use crate::error::{Error, Result};
use crate::graph::Mode;
use crate::model::Model;
use crate::nn::Network;

/// Up to so many images that do not fill a block go through the network one by one.
///
/// Measured on WRN-22-2 with AVX-512, one thread and two, at 0, 90, 95 and 99 % sparsity: a block takes as long as eleven single images,
/// whatever the sparsity.
const SINGLY: usize = 10;

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
        let count = images.len() / self.image;
        let mut logits = vec![0.0; count * self.classes];
        // Blocks of sixteen, then what is left over.
        let left = count % LANES;
        let step = if left <= SINGLY { 1 } else { LANES };
        let (blocks, rest) = images.split_at((count - left) * self.image);
        let images: Vec<&[f32]> = blocks.chunks(LANES * self.image).chain(rest.chunks(step * self.image)).collect();
        let (blocks, rest) = logits.split_at_mut((count - left) * self.classes);
        let blocks = blocks.chunks_mut(LANES * self.classes).chain(rest.chunks_mut(step * self.classes));
        let blocks: Vec<_> = blocks.map(Mutex::new).collect();
        let next = AtomicUsize::new(0);
        // Every worker takes block after block; the last ones are shared by the kernels inside.
        let work = |worker: &Mutex<Model>| {
            let mut model = worker.lock().expect("a worker that panicked took the session with it");
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                let Some(images) = images.get(at) else { return Ok(()) };
                let state = StepState { seed: 0, step: 0, statistics_momentum: 0.0, extent: Extent::Active };
                let values = model.forward(Mode::Evaluate, images, state)?;
                blocks[at].lock().expect("every block has one writer").copy_from_slice(&values);
            }
        };
        // On a thread of the pool: from outside, every kernel would have to wake one up.
        on_pool(true, || self.workers.par_iter().with_max_len(1).try_for_each(work))?;
        drop(blocks);
        Ok(logits)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::backend::cpu::Level;
    use crate::bitmask::BitMask;
    use crate::graph::Role;
    use crate::nn::{NetworkOptions, network};
    use crate::rng::{Domain, Stream};

    const IMAGE: [usize; 3] = [3, 8, 8];

    fn body(name: &str) -> Result<Box<dyn Network>> {
        network(name, NetworkOptions { width: 0.25, ..NetworkOptions::default() })
    }

    /// One of the known networks, as [`altered`] leaves it.
    fn trained(name: &str, image: [usize; 3]) -> Model {
        altered(Model::new(body(name).unwrap(), image, 5, Box::new(Cpu::new())).unwrap())
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

    const STATE: StepState = StepState { seed: 0, step: 0, statistics_momentum: 0.0, extent: Extent::Active };

    fn noise(images: usize, image: [usize; 3]) -> Vec<f32> {
        let mut draws = Stream::new(3, Domain::Weights, 0, 0);
        (0..images * image.iter().product::<usize>()).map(|_| draws.normal() as f32).collect()
    }

    #[test]
    fn a_session_predicts_what_evaluation_does_for_any_number_of_images_and_threads() {
        for name in ["wrn22-2", "resnet18", "small-convnet", "mlp"] {
            let mut model = trained(name, IMAGE);
            let images = noise(37, IMAGE);
            let expected = model.forward(Mode::Evaluate, &images, STATE).unwrap();
            assert!(expected.iter().all(|x| x.is_finite()), "{name}: {expected:?}");
            for threads in [1, 3] {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                let mut session = pool.install(|| InferenceSession::new(&mut model, || body(name))).unwrap();
                for n in [0, 1, 5, 15, 16, 17, 37] {
                    let logits = pool.install(|| session.logits(&images[..n * 192])).unwrap();
                    assert_eq!(logits, expected[..5 * n], "{name}, {n} images, {threads} threads");
                }
            }
        }
    }

    // A batch of one has a layout of its own; batches of more do not.
    #[test]
    fn one_image_gets_the_bits_that_it_gets_among_others_on_every_instruction_set() {
        for (name, image) in [
            ("wrn22-2", [3, 32, 32]),
            ("wrn22-2", [3, 9, 13]),
            ("resnet18", IMAGE),
            ("resnet18", [3, 7, 11]),
            ("resnet50", [3, 15, 10]),
            ("resnet18-imagenet", [3, 45, 38]),
            ("vgg16-bn", [3, 32, 35]),
            ("small-convnet", [1, 28, 28]),
            ("small-convnet", [2, 5, 1]),
            ("mlp", [3, 4, 5]),
        ] {
            for level in Level::available() {
                let model = Model::new(body(name).unwrap(), image, 5, Box::new(Cpu::with_level(level))).unwrap();
                let mut model = altered(model);
                let images = noise(3, image);
                let among_others = model.forward(Mode::Evaluate, &images, STATE).unwrap();
                assert!(among_others.iter().all(|x| x.is_finite()), "{name}: {among_others:?}");
                for (image, logits) in images.chunks(images.len() / 3).zip(among_others.chunks(5)) {
                    let alone = model.forward(Mode::Evaluate, image, STATE).unwrap();
                    assert_eq!(alone, logits, "{name}, {level:?}");
                }
            }
        }
    }

    #[test]
    fn a_session_refuses_another_network_and_parts_of_images() {
        let mut model = trained("mlp", IMAGE);
        let other = InferenceSession::new(&mut model, || body("resnet18")).err().unwrap().to_string();
        assert!(other.contains("another network"), "{other}");
        let mut session = InferenceSession::new(&mut model, || body("mlp")).unwrap();
        let part = session.logits(&[0.0; 200]).unwrap_err().to_string();
        assert!(part.contains("200 values, expected a multiple of 192"), "{part}");
    }
}
