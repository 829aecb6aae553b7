//! A trained network as others use it: opened by its run folder or by its model file, which says by itself what it is.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::checkpoint::TensorFile;
use super::evaluate::{Measured, Outputs, Predictor, measure};
use super::run_folder::RunFolder;
use super::snapshot;
use super::start;
use crate::backend::Backend;
use crate::calibration::Evaluation;
use crate::config::{Config, Method};
use crate::data::{Dataset, ImageShape, Normalisation, Splits};
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
    /// Snapshots kept beside the model file.
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
    file: PathBuf,
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
        Ok(Trained { config, about, model, file })
    }

    /// Channels, height and width of its images.
    pub fn image(&self) -> ImageShape {
        let [channels, height, width] = self.about.image;
        ImageShape { channels, height, width }
    }

    /// Predicts the images of a set, the way the run's method does.
    pub fn predict(&mut self, set: &Dataset) -> Result<Outputs> {
        self.check(set)?;
        let ensemble = self.config.ingredients().ensemble;
        self.with_predictor(ensemble, |predictor, model| predictor.predict(model, set, &mut |_| {}))
    }

    /// Predicts the images of a set by the mean over the run's snapshots.
    ///
    /// # Errors
    /// [`Error::Usage`] for a run that kept none, [`Error::File`] where they are no longer beside the model file.
    pub fn predict_by_ensemble(&mut self, set: &Dataset) -> Result<Outputs> {
        self.check(set)?;
        self.check_snapshots()?;
        self.with_predictor(true, |predictor, model| predictor.predict(model, set, &mut |_| {}))
    }

    /// Predicts the images of a set by the mean over random masks, see [`Predictor::predict_by_sampling`].
    pub fn predict_by_sampling(&mut self, set: &Dataset, samples: usize) -> Result<Outputs> {
        self.check(set)?;
        self.with_predictor(false, |predictor, model| predictor.predict_by_sampling(model, set, samples, &mut |_| {}))
    }

    /// Measures the network as a run of `method` would have, whose training is this run's: see [`Method::trained_as`].
    ///
    /// # Errors
    /// [`Error::Usage`] for a method with another training, or one that needs snapshots or validation images where there are none.
    pub fn measure_as(&mut self, method: Method, splits: &Splits) -> Result<Measured> {
        self.check(&splits.test)?;
        let own = self.config.method;
        let unlike = |why: &str| Err(Error::Usage(format!("a run of {own} cannot be measured as {method}: {why}")));
        if method.trained_as() != own.trained_as() {
            return unlike("they are trained differently");
        }
        if method.ingredients().temperature && splits.validation.is_empty() {
            return unlike("there are no validation images to fit a temperature on");
        }
        if method.ingredients().ensemble {
            self.check_snapshots()?;
        }
        self.config.method = method;
        let measured = self.with_predictor(method.ingredients().ensemble, |predictor, model| {
            let untempered = Predictor { temperature: 1.0, ..predictor };
            untempered.measure(model, splits, &mut |_| {})
        });
        self.config.method = own;
        measured
    }

    /// Measures single passes over a set, each under a random mask of its own, whether or not the network was trained with one: what
    /// replacing W by Z W does (CigL, appendix C).
    pub fn measure_masked(&mut self, set: &Dataset, draws: usize) -> Result<Vec<Evaluation>> {
        self.check(set)?;
        let classes = self.about.classes;
        self.with_predictor(false, |predictor, model| {
            let measured = (0..draws).map(|draw| {
                let outputs = Outputs::Logits(predictor.logits_of_draw(model, set, draw, &mut |_| {})?);
                measure(&outputs, set, classes, predictor.config.seed)
            });
            let measured = measured.collect();
            model.use_deterministic_weights()?;
            measured
        })
    }

    fn check_snapshots(&self) -> Result<()> {
        if self.about.snapshots > 0 {
            return Ok(());
        }
        let detail = "kept no snapshots to take the mean of (cigl-no-wma does, and averaging.keep_snapshots)";
        Err(Error::Usage(format!("a run of {} {detail}", self.config.method)))
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

    /// Lends the network to `predict`, and to the run's snapshots where they are to be an `ensemble`.
    fn with_predictor<T>(
        &mut self,
        ensemble: bool,
        predict: impl FnOnce(Predictor<'_>, &mut Model) -> Result<T>,
    ) -> Result<T> {
        let beside = self.file.parent().unwrap_or(Path::new(""));
        let snapshots = match self.about.snapshots {
            kept if ensemble && kept > 0 => snapshot::files(beside, kept)?,
            _ => vec![],
        };
        let lent = !snapshots.is_empty();
        let temperature = self.about.temperature.unwrap_or(1.0);
        let result = predict(Predictor { config: &self.config, snapshots, temperature }, &mut self.model);
        if lent {
            start::load_model(&mut self.model, &self.file)?;
        }
        result
    }
}
