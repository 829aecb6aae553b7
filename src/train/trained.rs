//! A trained network as others use it: opened by its run folder or by its model file, which says by itself what it is.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::checkpoint::TensorFile;
use super::evaluate::{Outputs, Predictor};
use super::run_folder::RunFolder;
use super::snapshot;
use super::start;
use crate::backend::Backend;
use crate::config::Config;
use crate::data::{Dataset, ImageShape, Normalisation};
use crate::error::{Error, Result};
use crate::model::Model;

/// What a model file says of itself, in its metadata.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct About {
    /// The run's configuration, as TOML.
    pub config: String,
    /// The classes' names, by logit; logits beyond them have none.
    pub class_names: Vec<String>,
    /// Channels, height and width of its images.
    pub image: [usize; 3],
    /// Logits.
    pub classes: usize,
    /// How pixels become its input.
    pub normalisation: Normalisation,
    /// Divides the logits, where one was fitted.
    pub temperature: Option<f64>,
    /// Snapshots beside the model file that predict in its place; 0 for a network that predicts by itself.
    pub snapshots: u64,
}

impl About {
    /// Describes a network of `config` trained on `set`.
    pub fn new(config: &Config, set: &Dataset, classes: usize) -> Self {
        let shape = set.shape();
        About {
            config: config.to_toml(),
            class_names: set.class_names().to_vec(),
            image: [shape.channels, shape.height, shape.width],
            classes,
            normalisation: set.normalisation().clone(),
            temperature: None,
            snapshots: 0,
        }
    }
}

/// A trained network, ready to predict.
pub struct Trained {
    /// How it was trained.
    pub config: Config,
    /// What it is.
    pub about: About,
    model: Model,
    snapshots: Vec<PathBuf>,
}

impl Trained {
    /// Opens the result of a run: `path` is its folder or a model file. `backend` makes the device for the run's configuration.
    pub fn open(path: &Path, backend: impl FnOnce(&Config) -> Result<Box<dyn Backend>>) -> Result<Self> {
        let file = if path.is_dir() { RunFolder::new(path).model() } else { path.to_path_buf() };
        if path.is_dir() && !file.is_file() {
            return Err(Error::file(
                path,
                "holds no checkpoint/model.safetensors: not a run, or one that is not finished",
            ));
        }
        let about = TensorFile::read(&file)?.state().and_then(|text| serde_json::from_str::<About>(text).ok());
        let about = about.ok_or_else(|| {
            Error::file(&file, "does not say what network it is, expected the model.safetensors of a run")
        })?;
        let config = Config::from_toml(&about.config)
            .map_err(|e| Error::file_because(&file, "describes a run that this program does not know", e))?;
        if about.image.contains(&0) || about.classes == 0 {
            let detail = format!("describes images of {:?} and {} classes", about.image, about.classes);
            return Err(Error::file(&file, detail));
        }
        let mut model = Model::new(start::network(&config)?, about.image, about.classes, backend(&config)?)?;
        start::load_model(&mut model, &file)?;
        let beside = file.parent().unwrap_or(Path::new(""));
        let snapshots = if about.snapshots > 0 { snapshot::files(beside, about.snapshots)? } else { vec![] };
        Ok(Trained { config, about, model, snapshots })
    }

    /// Channels, height and width of its images.
    pub fn image(&self) -> ImageShape {
        let [channels, height, width] = self.about.image;
        ImageShape { channels, height, width }
    }

    /// Snapshots that predict in the model's place; 0 for a network that predicts by itself.
    pub fn snapshots(&self) -> usize {
        self.snapshots.len()
    }

    /// Predicts the images of a set, the way the run's method does.
    pub fn predict(&mut self, set: &Dataset) -> Result<Outputs> {
        self.check(set)?;
        let (predictor, model) = self.predictor();
        predictor.predict(model, set, &mut |_| {})
    }

    /// Predicts the images of a set by the mean over random masks, see [`Predictor::predict_by_sampling`].
    pub fn predict_by_sampling(&mut self, set: &Dataset, samples: usize) -> Result<Outputs> {
        self.check(set)?;
        let (predictor, model) = self.predictor();
        predictor.predict_by_sampling(model, set, samples, &mut |_| {})
    }

    /// The network with its masks.
    pub(crate) fn model(&mut self) -> &mut Model {
        &mut self.model
    }

    fn check(&self, set: &Dataset) -> Result<()> {
        let (shape, expected) = (set.shape(), self.image());
        if shape != expected {
            return Err(Error::shape("predict", format!("images of {shape:?}, the network takes {expected:?}")));
        }
        Ok(())
    }

    fn predictor(&mut self) -> (Predictor<'_>, &mut Model) {
        let temperature = self.about.temperature.unwrap_or(1.0);
        (Predictor { config: &self.config, snapshots: self.snapshots.clone(), temperature }, &mut self.model)
    }
}
