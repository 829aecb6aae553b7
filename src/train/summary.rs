//! The final numbers of a run: `summary.json`.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::run_folder::RunFolder;
use super::schedule::Timetable;
use super::start;
use crate::calibration::{Evaluation, Metrics};
use crate::config::{Config, MaskUpdates, Method};
use crate::error::{Error, Result};
use crate::graph::{Graph, Mode, Parameters};
use crate::model::Model;
use crate::nn::{self, NetworkOptions};
use crate::shape::Shape;
use crate::sparse::flops::{LayerCost, TrainingCost, inference_ratio, macs};
use crate::sparse::schedule::PruningSchedule;

/// What can be said of a run without training it: `cigl info --preset P --json` prints it, `summary.json` begins with it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Costs {
    /// All trainable elements.
    pub params: usize,
    /// Those without masked zeros.
    pub params_active: usize,
    /// Ones of M over elements, by tensor name.
    pub density_by_layer: Map<String, Value>,
    /// Operations of training over those of training the dense network.
    pub train_flops_ratio: f64,
    /// Operations of a prediction over those of the dense network.
    pub inference_flops_ratio: f64,
}

/// Counts of one network whose masked tensors have `ones` active elements each.
pub fn costs(config: &Config, timetable: &Timetable, model: &Model, ones: &[usize]) -> Result<Costs> {
    let weights: Vec<_> = model.parameters().weights().map(|(_, p)| p.clone()).collect();
    let density = |l: usize| ones[l] as f64 / weights[l].len() as f64;
    let maskable: usize = weights.iter().map(|p| p.len()).sum();
    let active: usize = ones.iter().sum();
    let layers: Vec<LayerCost> = weights
        .iter()
        .zip(model.positions())
        .enumerate()
        .map(|(l, (p, &positions))| LayerCost { macs: macs(&p.dims, positions), density: density(l) })
        .collect();
    let own: u64 = layers.iter().map(|layer| layer.macs).sum();
    // A narrower network is compared with the one of full width.
    let shrunk =
        if config.method == Method::SmallDense { own as f64 / full_width_macs(config, model)? as f64 } else { 1.0 };
    let inference = inference_ratio(&layers) * shrunk;
    let cost = match config.ingredients().updates {
        MaskUpdates::Dense | MaskUpdates::Static | MaskUpdates::Lottery | MaskUpdates::Set => TrainingCost::Static,
        MaskUpdates::Rigl => TrainingCost::RigL { delta_t: config.sparse.delta_t },
        MaskUpdates::Snfs => TrainingCost::Snfs,
        MaskUpdates::Gmp => {
            let pruning = PruningSchedule { target: config.sparsity, updates: timetable.updates };
            TrainingCost::Gmp { mean_density: pruning.mean_density(timetable.steps) }
        }
    };
    Ok(Costs {
        params: model.parameters().trainable_len(),
        params_active: model.parameters().trainable_len() - (maskable - active),
        density_by_layer: weights.iter().enumerate().map(|(l, p)| (p.name.clone(), density(l).into())).collect(),
        train_flops_ratio: cost.ratio(inference),
        inference_flops_ratio: inference,
    })
}

/// Operations of a whole training, forward and backward: 6 a multiply-add of the dense network, an image and the share of them that
/// `config` leaves.
pub fn training_operations(config: &Config, timetable: &Timetable, model: &Model) -> Result<f64> {
    let costs = costs(config, timetable, model, &planned_ones(config, model)?)?;
    let images = timetable.images(timetable.steps) as f64;
    Ok(6.0 * full_width_macs(config, model)? as f64 * costs.train_flops_ratio * images)
}

fn full_width_macs(config: &Config, model: &Model) -> Result<u64> {
    let options = NetworkOptions { width: 1.0, dropout: config.network.dropout, hidden: config.network.hidden.clone() };
    let network = nn::network(model.network(), options)?;
    let (shape, ..) = config.data.dataset.published();
    let mut graph = Graph::new(Mode::Train, Parameters::default());
    let images = graph.input("images", Shape::images(2, shape.channels, shape.height, shape.width));
    network.record(&mut graph, images, model.classes())?;
    let weights = graph.parameters().weights().map(|(_, p)| p.dims.clone()).collect::<Vec<_>>();
    Ok(weights.iter().zip(crate::model::positions(&graph)).map(|(dims, positions)| macs(dims, positions)).sum())
}

/// The active elements that a configuration plans for each masked tensor.
pub fn planned_ones(config: &Config, model: &Model) -> Result<Vec<usize>> {
    Ok(start::densities(config, model)?.into_iter().map(|d| d.n_active).collect())
}

/// `summary.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// The method's name.
    pub method: Method,
    /// The data set's name.
    pub dataset: String,
    /// The network's name.
    pub network: String,
    /// The sparsity asked for.
    pub sparsity_target: f64,
    /// 1 - ones in M over maskable elements.
    pub sparsity: f64,
    /// Counts and costs.
    #[serde(flatten)]
    pub costs: Costs,
    /// Epochs trained, the last one maybe in part.
    pub epochs: u64,
    /// Steps trained.
    pub steps: u64,
    /// Mask updates made.
    pub mask_updates: u64,
    /// Of the weights active at the end, the share that was active at the beginning; 1 without mask updates.
    pub first_mask_overlap: f64,
    /// The share of the maskable weights that has ever been active, the in-time over-parameterisation rate of Liu et al.
    /// ("Do we actually need dense over-parameterization?", 2021); pruning from dense begins and ends with 1.
    pub ever_active: f64,
    /// Output channels, over all masked tensors, none of whose weights is active at the end.
    pub dead_channels: usize,
    /// Snapshots averaged or kept.
    pub snapshots: u64,
    /// The seed.
    pub seed: u64,
    /// The device.
    pub device: String,
    /// The program's version.
    pub version: String,
    /// Seconds of training, over all sittings.
    pub seconds: f64,
    /// Training images a second, over all sittings.
    pub images_per_second: f64,
    /// The temperature that was fitted, for a method that does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// On the test images before the temperature, for a method that fits one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test_uncalibrated: Option<Metrics>,
    /// On the test images.
    pub test: Metrics,
    /// On the validation images, where there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub val: Option<Metrics>,
}

impl Summary {
    /// Reads the summary of a finished run.
    ///
    /// # Errors
    /// A file that is not there or is not a summary.
    pub fn read(folder: &RunFolder) -> Result<Self> {
        let path = folder.summary();
        let text = std::fs::read_to_string(&path).map_err(|e| Error::file_because(&path, "could not be read", e))?;
        serde_json::from_str(&text).map_err(|e| Error::file_because(&path, "is not a run's summary", e))
    }
}

/// A finished run in memory: its summary and the evaluations behind it.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The numbers.
    pub summary: Summary,
    /// The test images' evaluation, with the bins.
    pub test: Evaluation,
}
