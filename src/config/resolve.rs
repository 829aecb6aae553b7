//! From defaults, preset, file and command line to one checked [`Config`].

use crate::config::preset::{self, Preset};
use crate::config::{Config, MaskUpdates, MaskedMomentum, Method, NetworkName, Optimizer, Recipe, Semantics, key};
use crate::{Error, Result};
use serde::Deserialize;
use std::path::Path;
use toml::{Table, Value};

/// A key and its value, as `--set` takes them.
#[derive(Clone, Debug, PartialEq)]
pub struct Assignment {
    /// Section and name; a layer's name follows `random_mask.keep`.
    path: Vec<String>,
    value: Value,
}

impl Assignment {
    /// Sets `key` to `value`, where the caller has both.
    ///
    /// # Errors
    /// An unknown key, and a value that it does not take.
    pub fn new(key: &str, value: impl Into<Value>) -> Result<Self> {
        let value = value.into();
        key::find(key)?.check(&value)?;
        Ok(Assignment { path: key.split('.').map(Into::into).collect(), value })
    }

    /// Reads `KEY=VALUE`: the value is TOML, texts need no quotes, and `random_mask.keep.LAYER=P` sets one layer.
    ///
    /// # Errors
    /// No `=`, an unknown key, a value that the key does not take.
    pub fn parse(text: &str) -> Result<Self> {
        let (name, value) =
            text.split_once('=').ok_or_else(|| Error::Usage(format!("{text:?}: expected KEY=VALUE")))?;
        let (name, value) = (name.trim(), value.trim());
        let keep = "random_mask.keep";
        if let Some(layer) = name.strip_prefix(keep).and_then(|rest| rest.strip_prefix('.')).filter(|l| !l.is_empty()) {
            let value = key::find(keep)?.parse(value)?;
            return Ok(Assignment { path: vec!["random_mask".into(), "keep".into(), layer.into()], value });
        }
        let value = key::find(name)?.parse(value)?;
        Ok(Assignment { path: name.split('.').map(Into::into).collect(), value })
    }

    /// Whether this sets `key`.
    pub fn is(&self, key: &str) -> bool {
        self.path.iter().map(String::as_str).eq(key.split('.'))
    }

    fn into_table(self) -> Table {
        let nest = |value, name: String| Value::Table(Table::from_iter([(name, value)]));
        match self.path.into_iter().rev().fold(self.value, nest) {
            Value::Table(table) => table,
            _ => unreachable!("a path is never empty"),
        }
    }
}

/// What a user asks for, before a preset and the defaults fill in the rest.
#[derive(Clone, Debug)]
pub struct Settings {
    preset: Option<Preset>,
    user: Table,
}

impl Settings {
    /// Gathers what is asked for: `preset`, or the one that the file or an assignment names, then the TOML file, then
    /// the assignments in order.
    ///
    /// # Errors
    /// An unreadable file, an unknown preset, unknown keys, and values out of range (named with what is allowed).
    pub fn new(preset: Option<&str>, file: Option<&Path>, assignments: &[Assignment]) -> Result<Self> {
        let mut user = match file {
            Some(path) => read(path)?,
            None => Table::new(),
        };
        for assignment in assignments {
            merge(&mut user, assignment.clone().into_table());
        }
        Settings::from_user(preset, user)
    }

    fn from_user(preset: Option<&str>, user: Table) -> Result<Self> {
        let named = preset.or(user.get("preset").and_then(Value::as_str));
        Ok(Settings { preset: named.map(preset::find).transpose()?, user })
    }

    /// Sets one more key.
    pub fn set(&mut self, assignment: Assignment) {
        merge(&mut self.user, assignment.into_table());
    }

    /// The methods to run: the one that is set, else the preset's, else CigL.
    pub fn methods(&self) -> Vec<Method> {
        let set = self.user.get("method").and_then(Value::as_str).and_then(|name| name.parse().ok());
        match (set, &self.preset) {
            (Some(method), _) => vec![method],
            (None, Some(preset)) => preset.methods.clone(),
            (None, None) => vec![Method::Cigl],
        }
    }

    /// Completes the settings. Later wins: the program's defaults, the preset, its recipe, what the method implies, what
    /// the user set. Of several methods the last is taken.
    ///
    /// `random_mask.keep` is .9 where nothing sets it, .99 under the official semantics. A dense method has sparsity 0.
    ///
    /// # Errors
    /// Keys that are missing or contradict each other.
    pub fn resolve(&self) -> Result<Config> {
        let mut config = preset::defaults();
        if let Some(preset) = &self.preset {
            merge(&mut config, preset.keys.clone());
        }
        let recipe = section(&self.user, "train").and_then(|train| train.get("recipe")).and_then(Value::as_str);
        if recipe == Some("rigl") {
            let preset = self.preset.as_ref().ok_or_else(|| {
                Error::Usage("train.recipe = \"rigl\": recipes are a preset's, and no preset is named".into())
            })?;
            merge(&mut config, preset.recipe(Recipe::Rigl)?);
        }
        let method = self.methods().last().copied().unwrap_or(Method::Cigl);
        config.insert("method".into(), method.name().into());
        merge(&mut config, implied(method));
        merge(&mut config, self.user.clone());
        config.insert("version".into(), env!("CARGO_PKG_VERSION").into());
        if let Some(preset) = &self.preset {
            config.insert("preset".into(), preset.name.into());
        }
        if method == Method::Dense {
            config.insert("sparsity".into(), 0.0.into());
        }
        complete_keep(&mut config);
        for (part, name) in [("data", "dataset"), ("network", "name")] {
            if section(&config, part).and_then(|part| part.get(name)).is_none() {
                let allowed = &key::find(&format!("{part}.{name}"))?.allowed;
                return Err(Error::Usage(format!("{part}.{name} is missing: expected {allowed}, or a preset")));
            }
        }
        let config = Config::deserialize(Value::Table(config)).map_err(|e| Error::Usage(one_line(&e.to_string())))?;
        config.check()?;
        Ok(config)
    }
}

impl Config {
    /// Puts a configuration together: [`Settings::new`], then [`Settings::resolve`].
    ///
    /// # Errors
    /// Those of both.
    pub fn resolve(preset: Option<&str>, file: Option<&Path>, assignments: &[Assignment]) -> Result<Config> {
        Settings::new(preset, file, assignments)?.resolve()
    }

    /// Reads a configuration from TOML, complete as [`Config::to_toml`] writes it or based on a preset that it names.
    ///
    /// # Errors
    /// As [`Config::resolve`].
    pub fn from_toml(text: &str) -> Result<Config> {
        Settings::from_user(None, parse(text).map_err(Error::Usage)?)?.resolve()
    }

    /// Reads a configuration file, such as a run's `config.toml`.
    ///
    /// # Errors
    /// As [`Config::resolve`].
    pub fn read(path: &Path) -> Result<Config> {
        Config::resolve(None, Some(path), &[])
    }

    /// What no key can check alone.
    fn check(&self) -> Result<()> {
        let (method, parts) = (self.method, self.ingredients());
        let error = |text: String| Err(Error::Usage(text));
        if let Some(limit) = self.data.train_limit {
            self.split(limit)?;
        }
        if parts.temperature && self.data.validation == 0 {
            return error(format!(
                "data.validation = 0: {method} fits its temperature on validation images, it needs some"
            ));
        }
        if parts.updates == MaskUpdates::Lottery && self.sparse.mask_from.is_none() {
            return error(format!("sparse.mask_from is missing: {method} takes its masks from a finished run"));
        }
        if parts.mixup.is_some() && self.train.mixup == 0.0 {
            return error(format!("train.mixup = 0: expected a number above 0 for {method}"));
        }
        if parts.label_smoothing.is_some() && self.train.label_smoothing == 0.0 {
            return error(format!("train.label_smoothing = 0: expected a number above 0 for {method}"));
        }
        if self.network.dropout > 0.0 && self.network.name != NetworkName::Wrn22_2 {
            return error(format!("network.dropout = {}: only wrn22-2 has dropout", self.network.dropout));
        }
        if self.train.nesterov && self.train.momentum == 0.0 && self.train.optimizer == Optimizer::Sgd {
            return error("train.nesterov = true: expected train.momentum above 0".into());
        }
        if parts.random_mask && self.random_mask.semantics == Semantics::Official {
            // What is aside while Z drops a weight is defined by the released code, which trains with SGD.
            if self.train.optimizer != Optimizer::Sgd {
                return error("random_mask.semantics = \"official\": expected train.optimizer = \"sgd\"".into());
            }
            if self.random_mask.momentum != MaskedMomentum::Frozen {
                return error(
                    "random_mask.momentum = \"decay\": an option of the paper's semantics, not of \"official\"".into(),
                );
            }
        }
        let (start, last) = (self.first_snapshot(), self.epochs());
        if parts.snapshots() && start > last {
            return error(format!("averaging.start = {}: the last epoch is {last}", self.averaging.start.0));
        }
        Ok(())
    }
}

/// What a method sets by its nature, where the user does not say otherwise.
fn implied(method: Method) -> Table {
    let parts = method.ingredients();
    let train = [("mixup", parts.mixup), ("label_smoothing", parts.label_smoothing)];
    let train = train.into_iter().filter_map(|(key, value)| Some((key.to_string(), Value::Float(value?))));
    Table::from_iter([("train".to_string(), Value::Table(train.collect()))])
}

fn complete_keep(config: &mut Table) {
    let Some(Value::Table(mask)) = config.get_mut("random_mask") else { return };
    let official = mask.get("semantics").and_then(Value::as_str) == Some("official");
    let default = Value::Float(if official { 0.99 } else { 0.9 });
    match mask.get_mut("keep") {
        None => _ = mask.insert("keep".into(), default),
        Some(Value::Table(layers)) => _ = layers.entry("default").or_insert(default),
        Some(_) => {}
    }
}

fn section<'a>(config: &'a Table, name: &str) -> Option<&'a Table> {
    config.get(name).and_then(Value::as_table)
}

/// Lays `over` onto `base`. A number under a table becomes that table's `default`: only a keep probability has both
/// forms.
fn merge(base: &mut Table, over: Table) {
    for (name, value) in over {
        match (base.get_mut(&name), value) {
            (Some(Value::Table(base)), Value::Table(over)) => merge(base, over),
            (Some(base), Value::Table(mut over)) => {
                over.entry("default").or_insert_with(|| base.clone());
                *base = Value::Table(over);
            }
            (_, value) => _ = base.insert(name, value),
        }
    }
}

fn read(path: &Path) -> Result<Table> {
    let text = std::fs::read_to_string(path).map_err(|e| Error::file_because(path, "cannot be read", e))?;
    parse(&text).map_err(|detail| Error::file(path, detail))
}

fn parse(text: &str) -> Result<Table, String> {
    let table: Table = text.parse().map_err(|e: toml::de::Error| {
        let before = text.as_bytes().get(..e.span().map_or(0, |span| span.start)).unwrap_or_default();
        let line = 1 + before.iter().filter(|&&byte| byte == b'\n').count();
        format!("line {line} is not TOML: {}", one_line(e.message()))
    })?;
    key::check(&table).map_err(|e| e.to_string())?;
    Ok(table)
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Keep;
    use crate::data::Source;

    fn resolve(preset: &str, set: &[&str]) -> Result<Config> {
        let set = set.iter().map(|text| Assignment::parse(text)).collect::<Result<Vec<_>>>()?;
        Config::resolve(Some(preset), None, &set)
    }

    fn complaint(preset: &str, set: &[&str]) -> String {
        resolve(preset, set).unwrap_err().to_string()
    }

    #[test]
    fn what_is_written_reads_back_equal() {
        for preset in preset::names() {
            for set in [
                &[][..],
                &["method=rigl+ls", "train.steps=7", "seed=9223372036854775807", "data.validation=10"],
                &[
                    "random_mask.keep.fc.weight=0.5",
                    "data.dir=/a \"b\"",
                    "network.classes=100",
                    "train.lr=0.30000000000000004",
                ],
            ] {
                let config = resolve(preset, set).unwrap();
                let text = config.to_toml();
                assert_eq!(Config::from_toml(&text).unwrap(), config, "{text}");
            }
        }
        let rigl = resolve("cifar10-wrn22-2", &["train.recipe=rigl", "train.lr_factor=0.7"]).unwrap();
        assert_eq!(Config::from_toml(&rigl.to_toml()).unwrap(), rigl);
    }

    #[test]
    fn every_key_is_a_field_and_every_field_a_key() {
        let all = resolve(
            "digits",
            &[
                "train.steps=1",
                "precision=f32",
                "train.init=a",
                "data.dir=b",
                "data.train_limit=9",
                "data.test_limit=9",
                "network.classes=10",
                "sparse.mask_from=c",
            ],
        );
        let table: Table = all.unwrap().to_toml().parse().unwrap();
        let mut fields: Vec<String> = Vec::new();
        for (name, value) in &table {
            match value {
                Value::Table(section) => fields.extend(section.keys().map(|key| format!("{name}.{key}"))),
                _ => fields.push(name.clone()),
            }
        }
        let mut keys: Vec<&str> = key::KEYS.iter().map(|key| key.name).collect();
        fields.sort();
        keys.sort();
        assert_eq!(fields, keys);
    }

    #[test]
    fn every_choice_that_is_offered_is_taken() {
        for key in key::KEYS {
            let key::Allowed::Choice(words) = &key.allowed else { continue };
            for word in *words {
                let set = [format!("{}={word}", key.name), "sparse.mask_from=run".into(), "data.validation=9".into()];
                let set: Vec<&str> = set.iter().map(String::as_str).collect();
                let config = resolve("cifar10-wrn22-2", &set).unwrap();
                assert!(config.to_toml().contains(&format!("= \"{word}\"")), "{} = {word}", key.name);
            }
        }
    }

    #[test]
    fn later_sources_win() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("mine.toml");
        std::fs::write(&file, "preset = \"fashion-mini\"\nseed = 5\n[train]\nepochs = 7\nlr = 0.3\n").unwrap();
        let set = [Assignment::parse("train.lr=0.4").unwrap(), Assignment::parse("train.lr=0.5").unwrap()];
        let config = Config::resolve(None, Some(&file), &set).unwrap();
        assert_eq!((config.seed, config.train.epochs, config.train.lr), (5, 7, 0.5));
        assert_eq!((config.train.weight_decay, config.random_mask.keep.default), (5e-4, 0.95));
        assert_eq!((config.data.dataset, config.preset.as_deref()), (Source::FashionMnist, Some("fashion-mini")));
    }

    #[test]
    fn a_recipe_and_a_method_yield_to_what_the_user_sets() {
        // method.md section 5: plain RigL used decay .2, label smoothing .1 (R50/CIFAR-100), dropout .3 (WRN).
        let c100 = resolve("cifar100-resnet50", &["train.recipe=rigl"]).unwrap();
        assert_eq!((c100.train.lr_factor, c100.train.label_smoothing, c100.network.dropout), (0.2, 0.1, 0.0));
        let wrn = resolve("cifar10-wrn22-2", &["train.recipe=rigl"]).unwrap();
        assert_eq!((wrn.train.lr_factor, wrn.train.label_smoothing, wrn.network.dropout), (0.2, 0.0, 0.3));
        let own = resolve("cifar10-wrn22-2", &["train.recipe=rigl", "train.lr_factor=0.4"]).unwrap();
        assert_eq!(own.train.lr_factor, 0.4);
        assert!(complaint("fashion-mini", &["train.recipe=rigl"]).contains("only recipe cigl"));
        assert_eq!(resolve("fashion-mini", &["method=rigl+ls"]).unwrap().train.label_smoothing, 0.1);
        assert_eq!(resolve("fashion-mini", &["method=rigl+mixup"]).unwrap().train.mixup, 0.2);
        assert_eq!(resolve("fashion-mini", &["method=rigl+mixup", "train.mixup=0.4"]).unwrap().train.mixup, 0.4);
    }

    #[test]
    fn keep_follows_the_semantics_unless_it_is_set() {
        let keep = |preset, set: &[&str]| resolve(preset, set).unwrap().random_mask.keep;
        assert_eq!(keep("cifar10-resnet50", &[]).default, 0.9);
        assert_eq!(keep("cifar10-resnet50", &["random_mask.semantics=official"]).default, 0.99);
        assert_eq!(keep("fashion-mini", &["random_mask.semantics=official"]).default, 0.95);
        let one = Keep { default: 0.95, layers: [("fc.weight".to_string(), 1.0)].into() };
        assert_eq!(keep("fashion-mini", &["random_mask.keep.fc.weight=1"]), one);
        assert_eq!(keep("fashion-mini", &["random_mask.keep={\"fc.weight\" = 1}"]), one);
        let official = keep("digits", &["random_mask.keep=0.8", "random_mask.keep.fc.weight=0.7"]);
        assert_eq!((official.of("fc.weight"), official.of("conv1.weight")), (0.7, 0.8));
        let error = one.check_layers(&["conv1.weight", "fc1.weight"]).unwrap_err().to_string();
        assert!(error.contains("no masked tensor fc.weight; did you mean fc1.weight?"), "{error}");
        assert_eq!(resolve("digits", &[]).unwrap().random_mask.semantics, Semantics::Paper);
    }

    #[test]
    fn sparsity_becomes_an_exact_density_and_dense_methods_mask_nothing() {
        assert_eq!(resolve("digits", &["sparsity=0.9"]).unwrap().density(), 0.1);
        assert_eq!(resolve("digits", &["sparsity=0.95"]).unwrap().density(), 0.05);
        let dense = resolve("digits", &["method=dense", "sparsity=0.9"]).unwrap();
        assert_eq!((dense.sparsity, dense.mask_density(), dense.width_factor()), (0.0, 1.0, 1.0));
        let small = resolve("digits", &["method=small-dense", "sparsity=0.75"]).unwrap();
        assert_eq!((small.sparsity, small.mask_density(), small.width_factor()), (0.75, 1.0, 0.5));
        assert_eq!(resolve("digits", &["method=rigl"]).unwrap().keep("fc.weight"), 1.0);
        assert_eq!(resolve("digits", &["method=rigl+wdp"]).unwrap().keep("fc.weight"), 0.95);
    }

    #[test]
    fn contradictions_name_the_key() {
        for (set, parts) in [
            (&["data.validation=3000"][..], ["data.validation = 3000", "fewer than the 3000"]),
            (&["method=rigl+ts"], ["data.validation = 0", "rigl+ts"]),
            (&["method=lottery"], ["sparse.mask_from is missing", "lottery"]),
            (&["method=rigl+mixup", "train.mixup=0"], ["train.mixup = 0", "above 0"]),
            (&["network.dropout=0.3"], ["network.dropout = 0.3", "wrn22-2"]),
            (&["train.momentum=0"], ["train.nesterov = true", "train.momentum"]),
            (&["averaging.start=41"], ["averaging.start = 41", "the last epoch is 40"]),
        ] {
            let error = complaint("fashion-mini", set);
            assert!(parts.iter().all(|part| error.contains(part)), "{set:?}: {error}");
        }
        assert!(resolve("fashion-mini", &["method=rigl", "averaging.start=41"]).is_ok());
        assert!(resolve("fashion-mini", &["averaging.start=40"]).is_ok());
    }

    #[test]
    fn a_bad_file_is_named_with_the_line_or_the_key() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("mine.toml");
        let complain = |text: &str| {
            std::fs::write(&file, text).unwrap();
            Config::resolve(None, Some(&file), &[]).unwrap_err().to_string()
        };
        let error = complain("seed = 1\n[train\n");
        assert!(error.contains("mine.toml: line 2 is not TOML") && !error.contains('\n'), "{error}");
        let error = complain("[train]\nepoch = 3\n");
        assert!(error.ends_with("mine.toml: unknown key train.epoch; did you mean train.epochs?"), "{error}");
        assert!(complain("seed = 1\n").starts_with("data.dataset is missing: expected one of fashion-mnist"));
        assert!(complain("preset = \"fashion-min\"").ends_with("did you mean fashion-mini?"));
        assert!(Config::resolve(None, Some(&folder.path().join("none.toml")), &[]).is_err());
    }

    #[test]
    fn assignments_need_a_key_and_a_value() {
        assert_eq!(Assignment::parse("train.lr").unwrap_err().to_string(), "\"train.lr\": expected KEY=VALUE");
        assert!(Assignment::parse("train.lr=").unwrap_err().to_string().contains("expected a number above 0"));
        assert!(Assignment::parse("=3").unwrap_err().to_string().starts_with("unknown key"));
        assert!(Assignment::parse("train=3").unwrap_err().to_string().starts_with("unknown key train"));
        assert!(Assignment::new("sparsity", 1.5).is_err());
        assert_eq!(Assignment::new("seed", 3).unwrap(), Assignment::parse("seed = 3").unwrap());
    }

    #[test]
    fn every_preset_has_a_description_methods_and_known_keys() {
        for preset in preset::all() {
            assert!(!preset.description.is_empty() && !preset.methods.is_empty(), "{}", preset.name);
            key::check(&preset.keys).unwrap();
            key::check(&preset.rigl.unwrap_or_default()).unwrap();
        }
        let demo = preset::find(preset::DEMO).unwrap();
        assert_eq!(demo.methods, [Method::Rigl, Method::Cigl]);
        assert_eq!(preset::find("digits").unwrap().methods, [Method::Cigl]);
    }
}
