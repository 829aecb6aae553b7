//! The methods of training, and what each one consists of.

use crate::config::key::did_you_mean;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};

/// A method: how the network is made sparse, and what is done for its calibration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "&'static str")]
pub enum Method {
    /// No sparsity.
    Dense,
    /// A dense network with as many weights as the sparse one has: widths times sqrt(density).
    SmallDense,
    /// A random mask, never updated.
    Static,
    /// Sparse evolutionary training: drops by magnitude, grows at random (Mocanu et al. 2018).
    Set,
    /// Sparse networks from scratch: grows by momentum and redistributes between layers (Dettmers & Zettlemoyer 2019).
    Snfs,
    /// The rigged lottery: drops by magnitude, grows by gradient (Evci et al. 2020).
    Rigl,
    /// Gradual magnitude pruning from dense (Zhu & Gupta 2017).
    Gmp,
    /// Lottery ticket: the masks of a finished run, the weights rewound to the start (Frankle & Carbin 2019).
    Lottery,
    /// RigL with a random mask and weight and mask averaging (Lei et al. 2023).
    Cigl,
    /// CigL without its random mask.
    CiglNoRm,
    /// CigL without averaging: the snapshots predict as an ensemble.
    CiglNoWma,
    /// RigL with the random mask in training only (W-DP).
    RiglWdp,
    /// RigL with the random mask in training and, sampled, at test time (MC-DP).
    RiglMcdp,
    /// RigL with mixup.
    RiglMixup,
    /// RigL with label smoothing.
    RiglLs,
    /// RigL with temperature scaling.
    RiglTs,
}

/// How the deterministic mask changes in training.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MaskUpdates {
    /// Nothing is masked.
    Dense,
    /// The first mask, drawn at random, stays.
    Static,
    /// The first mask, taken from a finished run, stays.
    Lottery,
    /// Grown at random.
    Set,
    /// Grown by momentum and redistributed between layers.
    Snfs,
    /// Grown by gradient.
    Rigl,
    /// Dropped only, from a dense start.
    Gmp,
}

/// What a method consists of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ingredients {
    /// How the deterministic mask changes.
    pub updates: MaskUpdates,
    /// Whether the random mask Z is drawn in training.
    pub random_mask: bool,
    /// Whether the result is the average of the snapshots (WMA).
    pub averaging: bool,
    /// Whether the snapshots are kept and predict as an ensemble.
    pub ensemble: bool,
    /// Predictions averaged over this many draws of Z at test time; 0 is the one deterministic pass.
    pub mc_samples: usize,
    /// The coefficient of mixup that goes with the method, if it is mixup.
    pub mixup: Option<f64>,
    /// The label smoothing that goes with the method, if it is label smoothing.
    pub label_smoothing: Option<f64>,
    /// Whether a temperature is fitted on the validation images.
    pub temperature: bool,
}

impl Ingredients {
    /// Whether snapshots are taken, to be averaged or kept.
    pub fn snapshots(&self) -> bool {
        self.averaging || self.ensemble
    }
}

impl Method {
    /// Every method, in the order of [`Method::NAMES`].
    pub const ALL: [Method; 16] = [
        Method::Dense,
        Method::SmallDense,
        Method::Static,
        Method::Set,
        Method::Snfs,
        Method::Rigl,
        Method::Gmp,
        Method::Lottery,
        Method::Cigl,
        Method::CiglNoRm,
        Method::CiglNoWma,
        Method::RiglWdp,
        Method::RiglMcdp,
        Method::RiglMixup,
        Method::RiglLs,
        Method::RiglTs,
    ];

    /// The names on the command line and in files.
    pub const NAMES: [&str; 16] = [
        "dense",
        "small-dense",
        "static",
        "set",
        "snfs",
        "rigl",
        "gmp",
        "lottery",
        "cigl",
        "cigl-no-rm",
        "cigl-no-wma",
        "rigl+wdp",
        "rigl+mcdp",
        "rigl+mixup",
        "rigl+ls",
        "rigl+ts",
    ];

    /// The method's name.
    pub fn name(self) -> &'static str {
        Method::NAMES[self as usize]
    }

    /// The method whose training is this one's: some differ from another only in how they predict.
    pub fn trained_as(self) -> Method {
        match self {
            Method::RiglMcdp => Method::RiglWdp,
            Method::RiglTs => Method::Rigl,
            Method::CiglNoWma => Method::Cigl,
            other => other,
        }
    }

    /// What the method consists of. The coefficients of mixup (alpha .2) and label smoothing (.1) and the 10 samples of
    /// MC-DP are the usual ones: the paper states none.
    pub fn ingredients(self) -> Ingredients {
        let plain = |updates| Ingredients {
            updates,
            random_mask: false,
            averaging: false,
            ensemble: false,
            mc_samples: 0,
            mixup: None,
            label_smoothing: None,
            temperature: false,
        };
        let rigl = plain(MaskUpdates::Rigl);
        match self {
            Method::Dense | Method::SmallDense => plain(MaskUpdates::Dense),
            Method::Static => plain(MaskUpdates::Static),
            Method::Set => plain(MaskUpdates::Set),
            Method::Snfs => plain(MaskUpdates::Snfs),
            Method::Rigl => rigl,
            Method::Gmp => plain(MaskUpdates::Gmp),
            Method::Lottery => plain(MaskUpdates::Lottery),
            Method::Cigl => Ingredients { random_mask: true, averaging: true, ..rigl },
            Method::CiglNoRm => Ingredients { averaging: true, ..rigl },
            Method::CiglNoWma => Ingredients { random_mask: true, ensemble: true, ..rigl },
            Method::RiglWdp => Ingredients { random_mask: true, ..rigl },
            Method::RiglMcdp => Ingredients { random_mask: true, mc_samples: 10, ..rigl },
            Method::RiglMixup => Ingredients { mixup: Some(0.2), ..rigl },
            Method::RiglLs => Ingredients { label_smoothing: Some(0.1), ..rigl },
            Method::RiglTs => Ingredients { temperature: true, ..rigl },
        }
    }
}

impl std::fmt::Display for Method {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

impl std::str::FromStr for Method {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let at = Method::NAMES.iter().position(|known| *known == name);
        at.map(|at| Method::ALL[at])
            .ok_or_else(|| Error::Usage(format!("unknown method {name:?}{}", did_you_mean(name, Method::NAMES))))
    }
}

impl TryFrom<String> for Method {
    type Error = Error;

    fn try_from(name: String) -> Result<Self> {
        name.parse()
    }
}

impl From<Method> for &'static str {
    fn from(method: Method) -> Self {
        method.name()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_methods_are_in_the_same_order() {
        for (method, name) in Method::ALL.into_iter().zip(Method::NAMES) {
            assert_eq!(name.parse::<Method>().unwrap(), method);
            assert_eq!(method.name(), name);
        }
        assert_eq!(Method::RiglMcdp.name(), "rigl+mcdp");
    }

    #[test]
    fn an_unknown_method_is_answered_with_the_nearest_one() {
        let error = "cigl-no-mr".parse::<Method>().unwrap_err().to_string();
        assert_eq!(error, "unknown method \"cigl-no-mr\"; did you mean cigl-no-rm?");
    }

    // The paper's section 4: CigL minus a part is an ablation, RigL plus a part a baseline.
    #[test]
    fn cigl_is_rigl_with_a_random_mask_and_averaging() {
        let (rigl, cigl) = (Method::Rigl.ingredients(), Method::Cigl.ingredients());
        assert_eq!(cigl, Ingredients { random_mask: true, averaging: true, ..rigl });
        assert_eq!(Method::CiglNoRm.ingredients(), Ingredients { random_mask: false, ..cigl });
        assert_eq!(Method::RiglWdp.ingredients(), Ingredients { averaging: false, ..cigl });
        assert!(Method::CiglNoWma.ingredients().snapshots() && !Method::CiglNoWma.ingredients().averaging);
    }
}
