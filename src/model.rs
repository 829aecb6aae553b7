//! A network on a device: its parameters, masks and plans, and the passes that training and evaluation are made of.

use crate::backend::{Backend, Effective, Map, Span, StepState, Weight, on_pool};
use crate::bitmask::BitMask;
use crate::data::Pixels;
use crate::error::{Error, Result};
use crate::graph::{Graph, Mode, NodeId, Parameter, ParameterId, Parameters, Role};
use crate::nn::{Network, initial_values};
use crate::op::Slot;
use crate::plan::{ALIGNMENT, Plan};
use crate::shape::Shape;

/// Images of one batch of the recording that only finds the parameters; any number gives the same ones.
const PROBE_BATCH: usize = 2;

/// A network with its parameters in a backend's memory.
///
/// Parameters and whatever else outlives a step come first in memory; [`Model::allocate`] must have given out all of it before the first
/// plan, whose arena lies behind.
pub struct Model {
    network: Box<dyn Network>,
    backend: Box<dyn Backend>,
    image: [usize; 3],
    classes: usize,
    parameters: Parameters,
    slots: Vec<Slot>,
    /// Output pixels of each masked layer, for counting operations.
    positions: Vec<usize>,
    state_end: usize,
    /// The backend knows of the masked weights.
    registered: bool,
    recordings: Vec<Recording>,
}

struct Recording {
    mode: Mode,
    batch: usize,
    plan: Plan,
    images: Map,
    logits: Map,
    targets: Option<Map>,
    loss: Option<Span>,
}

/// A batch of images for training.
#[derive(Clone, Copy, Debug)]
pub enum Images<'a> {
    /// As the network takes them, (N, C, H, W).
    Values(&'a [f32]),
    /// Still to be cut and normalised.
    Pixels(&'a Pixels<'a>),
}

impl Images<'_> {
    fn write(self, backend: &mut dyn Backend, to: Map) -> Result<()> {
        match self {
            Images::Values(values) => backend.write_map(to, values),
            Images::Pixels(pixels) => backend.write_images(to, pixels),
        }
    }
}

/// What a training pass saw of its batch before the update.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BatchLoss {
    /// Mean loss.
    pub loss: f32,
    /// Images whose largest logit is at the largest target.
    pub correct: u32,
}

impl Model {
    /// Puts a network for images of (channels, height, width) on a backend; weights are 0 and masks 1 until set.
    pub fn new(
        network: Box<dyn Network>,
        image: [usize; 3],
        classes: usize,
        backend: Box<dyn Backend>,
    ) -> Result<Model> {
        let mut graph = Graph::new(Mode::Train, Parameters::default());
        let images = graph.input("images", batch_shape(image, PROBE_BATCH));
        network.record(&mut graph, images, classes)?;
        let parameters = graph.parameters().clone();
        let mut model = Model {
            network,
            backend,
            image,
            classes,
            positions: positions(&graph),
            parameters,
            slots: vec![],
            state_end: 0,
            registered: false,
            recordings: vec![],
        };
        model.place_parameters();
        Ok(model)
    }

    fn place_parameters(&mut self) {
        let parameters = self.parameters.clone();
        let mut layers = 0;
        for (_, p) in parameters.iter() {
            let value = self.allocate(p.len());
            let grad = if p.role.trainable() { self.allocate(p.len()) } else { Span::default() };
            let weight = (p.role == Role::Weight).then(|| {
                let [out_channels, in_channels, rows, columns] = p.kernel_dims();
                layers += 1;
                Weight { layer: layers - 1, value, grad, out_channels, in_channels, kernel: [rows, columns] }
            });
            self.slots.push(Slot { value, grad, weight });
        }
    }

    /// Memory that outlives steps, zero at first: momentum, averages.
    ///
    /// # Panics
    /// After the first plan was made.
    pub fn allocate(&mut self, len: usize) -> Span {
        assert!(self.recordings.is_empty(), "state is allocated before the first plan");
        let span = Span { at: self.state_end, len };
        self.state_end = (self.state_end + len).next_multiple_of(ALIGNMENT);
        span
    }

    /// Takes the memory of all that was allocated and planned. Until then a model is only sizes.
    pub fn reserve(&mut self) -> Result<()> {
        self.backend.reserve(self.bytes() / 4)?;
        if !std::mem::replace(&mut self.registered, true) {
            self.backend.register(&self.weights())?;
        }
        Ok(())
    }

    /// Gives the parameters their initial values, keyed by seed.
    pub fn initialise(&mut self, seed: u64) -> Result<()> {
        self.reserve()?;
        for (id, p) in self.parameters.iter() {
            self.backend.write(self.slots[id.0].value, &initial_values(p, seed, id.0))?;
        }
        Ok(())
    }

    /// The parameters.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// The masked weights by ordinal.
    pub fn weights(&self) -> Vec<Weight> {
        self.slots.iter().filter_map(|slot| slot.weight).collect()
    }

    /// The network's name.
    pub fn network(&self) -> &str {
        self.network.name()
    }

    /// Channels, rows and columns of an image.
    pub fn image(&self) -> [usize; 3] {
        self.image
    }

    /// Logits an image.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// The device.
    pub fn backend(&mut self) -> &mut dyn Backend {
        self.backend.as_mut()
    }

    /// The place of a parameter's values.
    pub fn value(&self, id: ParameterId) -> Span {
        self.slots[id.0].value
    }

    /// The place of a parameter's gradient; empty for statistics.
    pub fn gradient(&self, id: ParameterId) -> Span {
        self.slots[id.0].grad
    }

    /// The masked weight of a parameter, if it is one.
    pub fn weight(&self, id: ParameterId) -> Option<Weight> {
        self.slots[id.0].weight
    }

    /// Output pixels of each masked layer.
    pub fn positions(&self) -> &[usize] {
        &self.positions
    }

    /// Values at `span` of parameter `id`, in the order of files: (O, I, kH, kW).
    pub fn read(&mut self, id: ParameterId, span: Span) -> Result<Vec<f32>> {
        let values = self.backend.read(span)?;
        Ok(file_order(&self.parameters[id]).map(|element| values[element]).collect())
    }

    /// Writes values in the order of files to `span` of parameter `id`.
    pub fn write(&mut self, id: ParameterId, span: Span, values: &[f32]) -> Result<()> {
        let mut elements = vec![0.0; values.len()];
        file_order(&self.parameters[id]).zip(values).for_each(|(element, &value)| elements[element] = value);
        self.backend.write(span, &elements)
    }

    /// M of a layer.
    pub fn mask(&mut self, layer: usize) -> Result<BitMask> {
        self.backend.read_mask(layer)
    }

    /// M of parameter `id` in the order of files, one byte an element.
    pub fn read_mask(&mut self, id: ParameterId, weight: Weight) -> Result<Vec<u8>> {
        let mask = self.backend.read_mask(weight.layer)?;
        Ok(file_order(&self.parameters[id]).map(|element| u8::from(mask.get(element))).collect())
    }

    /// Sets M of parameter `id` from bytes in the order of files.
    pub fn write_mask(&mut self, id: ParameterId, weight: Weight, bytes: &[u8]) -> Result<()> {
        let mut mask = BitMask::zeros(weight.len());
        file_order(&self.parameters[id]).zip(bytes).for_each(|(element, &byte)| mask.set(element, byte != 0));
        self.backend.write_mask(weight.layer, &mask)
    }

    /// A mask over parameter `id`, in the order of files.
    pub fn mask_to_file(&self, id: ParameterId, mask: &BitMask) -> BitMask {
        let mut filed = BitMask::zeros(mask.len());
        file_order(&self.parameters[id]).enumerate().for_each(|(at, element)| filed.set(at, mask.get(element)));
        filed
    }

    /// A mask over parameter `id` from one in the order of files.
    pub fn mask_from_file(&self, id: ParameterId, filed: &BitMask) -> BitMask {
        let mut mask = BitMask::zeros(filed.len());
        file_order(&self.parameters[id]).enumerate().for_each(|(at, element)| mask.set(element, filed.get(at)));
        mask
    }

    /// Ones in all masks over maskable elements.
    pub fn density(&mut self) -> Result<f64> {
        let (mut ones, mut all) = (0, 0);
        for weight in self.weights() {
            ones += self.mask(weight.layer)?.count();
            all += weight.len();
        }
        Ok(ones as f64 / all.max(1) as f64)
    }

    /// The plan of a mode and batch size, made at first use; its memory is taken by [`Model::reserve`] or the first pass.
    pub fn plan(&mut self, mode: Mode, batch: usize) -> Result<&Plan> {
        self.recording(mode, batch).map(|r| &r.plan)
    }

    /// Bytes of memory for parameters, state and the plans made so far.
    pub fn bytes(&self) -> usize {
        4 * self.recordings.iter().map(|r| r.plan.end()).fold(self.state_end, usize::max)
    }

    /// The network from images to logits, for a mode and batch size.
    pub(crate) fn record(&self, mode: Mode, batch: usize) -> Result<(Graph, NodeId, NodeId)> {
        let mut graph = Graph::new(mode, self.parameters.clone());
        let images = graph.input("images", batch_shape(self.image, batch));
        let logits = self.network.record(&mut graph, images, self.classes)?;
        if graph.parameters() != &self.parameters {
            return Err(Error::shape("network", format!("{} records other parameters each time", self.network.name())));
        }
        Ok((graph, images, logits))
    }

    fn recording(&mut self, mode: Mode, batch: usize) -> Result<&Recording> {
        if let Some(at) = self.recordings.iter().position(|r| r.mode == mode && r.batch == batch) {
            return Ok(&self.recordings[at]);
        }
        let (mut graph, images, logits) = self.record(mode, batch)?;
        let loss = if mode == Mode::Train {
            let targets = graph.input("targets", Shape::features(batch, self.classes));
            Some((targets, graph.softmax_cross_entropy("loss", logits, targets)?))
        } else {
            None
        };
        let plan =
            Plan::new(graph, &self.slots, loss.map(|(_, l)| l), &[logits], self.backend.as_ref(), self.state_end);
        self.recordings.push(Recording {
            mode,
            batch,
            images: plan.map(images),
            logits: plan.map(logits),
            targets: loss.map(|(targets, _)| plan.map(targets)),
            loss: loss.map(|(_, loss)| plan.loss(loss)),
            plan,
        });
        Ok(self.recordings.last().expect("one was just pushed"))
    }

    /// Forward and backward on one batch of `images`, with `targets` (N, classes). Leaves the gradients in place.
    ///
    /// Uses the effective weights in force. A loss that is not finite is an [`Error::Diverged`] naming step and layer.
    pub fn train_pass(&mut self, images: Images, targets: &[f32], state: StepState) -> Result<BatchLoss> {
        let batch = targets.len() / self.classes;
        self.recording(Mode::Train, batch)?;
        self.reserve()?;
        let Model { recordings, backend, .. } = self;
        let backend = backend.as_mut();
        let recording = recordings
            .iter()
            .find(|r| r.mode == Mode::Train && r.batch == batch)
            .expect("it was recorded two lines ago");
        let (Some(target_map), Some(loss)) = (recording.targets, recording.loss) else {
            unreachable!("a training recording has targets and a loss")
        };
        backend.begin_step(state)?;
        images.write(backend, recording.images)?;
        backend.write_map(target_map, targets)?;
        recording.plan.run(backend)?;
        let seen = backend.read(loss)?;
        if !seen[0].is_finite() {
            images.write(backend, recording.images)?;
            backend.write_map(target_map, targets)?;
            let layer = recording.plan.first_non_finite(backend)?.unwrap_or_else(|| "the loss".into());
            return Err(Error::Diverged { loss: seen[0], step: u64::from(state.step), layer });
        }
        Ok(BatchLoss { loss: seen[0], correct: seen[1] as u32 })
    }

    /// A training pass on `batch` images of zeros: the seconds that the products of each masked weight took, by its ordinal.
    pub(crate) fn time_products(&mut self, batch: usize, state: StepState) -> Result<Vec<f64>> {
        self.recording(Mode::Train, batch)?;
        self.reserve()?;
        let Model { recordings, backend, classes, image, .. } = self;
        let recording = recordings
            .iter()
            .find(|r| r.mode == Mode::Train && r.batch == batch)
            .expect("it was recorded a few lines ago");
        backend.begin_step(state)?;
        backend.write_map(recording.images, &vec![0.0; batch * image.iter().product::<usize>()])?;
        if let Some(targets) = recording.targets {
            backend.write_map(targets, &vec![0.0; batch * *classes])?;
        }
        recording.plan.time_products(backend.as_mut())
    }

    /// A forward pass on one batch; returns the logits (N, classes).
    pub fn forward(&mut self, mode: Mode, images: &[f32], state: StepState) -> Result<Vec<f32>> {
        let batch = images.len() / self.image.iter().product::<usize>();
        self.recording(mode, batch)?;
        self.reserve()?;
        let Model { recordings, backend, .. } = self;
        let backend = backend.as_mut();
        let recording =
            recordings.iter().find(|r| r.mode == mode && r.batch == batch).expect("it was recorded two lines ago");
        on_pool(backend.works_on_pool(), || {
            backend.begin_step(state)?;
            backend.write_map(recording.images, images)?;
            recording.plan.forward(backend)?;
            backend.read_map(recording.logits)
        })
    }

    /// Puts M W in force for the passes that follow.
    pub fn use_deterministic_weights(&mut self) -> Result<()> {
        self.backend.effective_weights(Effective::Deterministic, &[])
    }
}

fn batch_shape([c, h, w]: [usize; 3], n: usize) -> Shape {
    Shape::images(n, c, h, w)
}

/// Output pixels of each masked layer of a recording.
pub(crate) fn positions(graph: &Graph) -> Vec<usize> {
    let masked = |p: &&ParameterId| graph.parameters[**p].role == Role::Weight;
    graph.nodes.iter().filter(|n| n.parameters.iter().any(|p| masked(&p))).map(|n| n.shape.pixels()).collect()
}

/// For each value in the order of files, (O, I, kH, kW), its element in (O, kH, kW, I) order.
fn file_order(parameter: &Parameter) -> impl Iterator<Item = usize> + use<> {
    let [_, i, rows, columns] = parameter.kernel_dims();
    let (weight, positions) = (parameter.role == Role::Weight, rows * columns);
    (0..parameter.len()).map(move |at| {
        if !weight {
            return at;
        }
        let (output, input, position) = (at / (i * positions), at / positions % i, at % positions);
        (output * positions + position) * i + input
    })
}
