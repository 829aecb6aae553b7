//! The presets: published experiments as TOML files in `presets/`, embedded in the program.

use crate::config::{Method, Recipe, key};
use crate::{Error, Result};
use toml::{Table, Value};

/// A preset's file: the keys of a configuration, and how it is offered.
#[derive(Clone, Debug)]
pub struct Preset {
    /// The name to give after `--preset`.
    pub name: &'static str,
    /// One line for the help.
    pub description: String,
    /// What is run if no method is asked for, in this order.
    pub methods: Vec<Method>,
    /// The keys it sets.
    pub(super) keys: Table,
    /// What plain RigL's recipe sets differently, where the preset has one.
    pub(super) rigl: Option<Table>,
}

const FILES: [(&str, &str); 7] = [
    ("fashion-mini", include_str!("../../presets/fashion-mini.toml")),
    ("digits", include_str!("../../presets/digits.toml")),
    ("fashion-mnist", include_str!("../../presets/fashion-mnist.toml")),
    ("cifar10-wrn22-2", include_str!("../../presets/cifar10-wrn22-2.toml")),
    ("cifar10-resnet50", include_str!("../../presets/cifar10-resnet50.toml")),
    ("cifar100-resnet50", include_str!("../../presets/cifar100-resnet50.toml")),
    ("imagenet-resnet50", include_str!("../../presets/imagenet-resnet50.toml")),
];

/// What holds where neither a preset nor the user says otherwise.
const DEFAULTS: &str = include_str!("../../presets/defaults.toml");

/// The preset of the bare command.
pub const DEMO: &str = "fashion-mini";

/// The names of the presets, in the order of the help.
pub fn names() -> impl Iterator<Item = &'static str> {
    FILES.iter().map(|(name, _)| *name)
}

/// Every preset, in the order of the help.
pub fn all() -> Vec<Preset> {
    FILES.iter().map(|&(name, text)| Preset::parse(name, text)).collect()
}

/// The preset of this name.
///
/// # Errors
/// An unknown name, with the nearest known one.
pub fn find(name: &str) -> Result<Preset> {
    let file = FILES.iter().find(|(known, _)| *known == name);
    file.map(|&(name, text)| Preset::parse(name, text)).ok_or_else(|| {
        let hint = key::did_you_mean(name, names());
        Error::Usage(format!(
            "unknown preset {name:?}, expected one of {}{hint}",
            names().collect::<Vec<_>>().join(", ")
        ))
    })
}

/// The keys of `presets/defaults.toml`.
pub(super) fn defaults() -> Table {
    DEFAULTS.parse().expect("a test reads the embedded defaults")
}

impl Preset {
    fn parse(name: &'static str, text: &str) -> Preset {
        let mut keys: Table = text.parse().expect("a test reads every embedded preset");
        let description = match keys.remove("description") {
            Some(Value::String(text)) => text,
            _ => String::new(),
        };
        let methods = match keys.remove("methods") {
            Some(Value::Array(names)) => names.iter().filter_map(|name| name.as_str()?.parse().ok()).collect(),
            _ => vec![Method::Cigl],
        };
        let rigl = match keys.remove("recipe") {
            Some(Value::Table(mut recipes)) => match recipes.remove("rigl") {
                Some(Value::Table(rigl)) => Some(rigl),
                _ => None,
            },
            _ => None,
        };
        Preset { name, description, methods, keys, rigl }
    }

    /// What `recipe` sets differently from the preset.
    ///
    /// # Errors
    /// The preset has no such recipe.
    pub(super) fn recipe(&self, recipe: Recipe) -> Result<Table> {
        match (recipe, &self.rigl) {
            (Recipe::Cigl, _) => Ok(Table::new()),
            (Recipe::Rigl, Some(rigl)) => Ok(rigl.clone()),
            (Recipe::Rigl, None) => {
                Err(Error::Usage(format!("train.recipe = \"rigl\": preset {} has only recipe cigl", self.name)))
            }
        }
    }
}
