//! The keys of `--set` and of configuration files: one table says what each means and which values it takes.

use crate::config::{Device, Method, NetworkName, Recipe, Semantics};
use crate::{Error, Result};
use std::ops::Bound::{self, Excluded, Included, Unbounded};
use std::ops::RangeBounds;
use toml::{Table, Value};

/// A key, written `section.name`.
#[derive(Debug)]
pub struct Key {
    /// The whole name.
    pub name: &'static str,
    /// The values it takes.
    pub allowed: Allowed,
    /// One line for the help.
    pub meaning: &'static str,
}

/// The values that a key takes.
#[derive(Debug)]
pub enum Allowed {
    /// `true` or `false`.
    Flag,
    /// Any text.
    Text,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// An integer from this one on.
    Integer(i64),
    /// A number within bounds.
    Number(Bound<f64>, Bound<f64>),
    /// A list of numbers of 0 or more.
    Numbers,
    /// A list of integers from 1 on.
    Integers,
    /// A number above 0 and at most 1, or a table of such by layer name, `default` being the other layers'.
    Keep,
    /// A [`Device`].
    Device,
}

const ANY: Allowed = Allowed::Number(Included(0.0), Unbounded);
const POSITIVE: Allowed = Allowed::Number(Excluded(0.0), Unbounded);
const BELOW_ONE: Allowed = Allowed::Number(Included(0.0), Excluded(1.0));

const DATASETS: [&str; 6] = ["fashion-mnist", "mnist", "digits", "cifar10", "cifar100", "imagenet"];

macro_rules! keys {
    ($($name:literal $allowed:expr, $meaning:literal;)*) => {
        &[$(Key { name: $name, allowed: $allowed, meaning: $meaning }),*]
    };
}

/// Every key, by section.
pub const KEYS: &[Key] = keys! {
    "version" Allowed::Text, "the program that wrote the file; not read back";
    "preset" Allowed::Text, "the preset that gives what is not set here";
    "method" Allowed::Choice(&Method::NAMES), "the method of training";
    "sparsity" BELOW_ONE, "fraction of the masked tensors' weights that are 0";
    "seed" Allowed::Integer(0), "every random number follows from it";
    "device" Allowed::Device, "where the work is done";
    "precision" Allowed::Choice(&["f32", "bf16"]), "how activations are stored; default: the device's own";
    "train.epochs" Allowed::Integer(1), "length of training; rescales every schedule given as a fraction";
    "train.steps" Allowed::Integer(0), "stop after so many steps, schedules unscaled; 0 evaluates the initial model";
    "train.multiplier" POSITIVE, "stretches epochs and every schedule";
    "train.batch_size" Allowed::Integer(1), "images per step";
    "train.optimizer" Allowed::Choice(&["sgd", "adam"]), "SGD or Adam";
    "train.lr" POSITIVE, "peak learning rate";
    "train.lr_schedule" Allowed::Choice(&["step", "cosine"]), "decay after the warm-up";
    "train.warmup_steps" ANY, "linear warm-up from 0; up to 1 a fraction of training";
    "train.lr_milestones" Allowed::Numbers, "where the step schedule decays; up to 1 fractions of training";
    "train.lr_factor" Allowed::Number(Excluded(0.0), Included(1.0)), "factor of each decay";
    "train.momentum" BELOW_ONE, "momentum of SGD, first beta of Adam";
    "train.nesterov" Allowed::Flag, "Nesterov's form of momentum";
    "train.adam_beta2" BELOW_ONE, "second beta of Adam";
    "train.adam_epsilon" POSITIVE, "epsilon of Adam";
    "train.weight_decay" ANY, "L2 decay of tensors of rank above 1";
    "train.decay_biases" Allowed::Flag, "decay biases and batch-norm parameters too";
    "train.label_smoothing" BELOW_ONE, "label smoothing";
    "train.mixup" ANY, "alpha of mixup; 0 is none";
    "train.recipe" Allowed::Choice(&Recipe::NAMES), "the preset's hyper-parameters: CigL's or plain RigL's";
    "train.init" Allowed::Text, "start from the weights and masks of this safetensors file";
    "train.log_every" Allowed::Integer(1), "log every Nth step";
    "data.dataset" Allowed::Choice(&DATASETS), "the data set";
    "data.dir" Allowed::Text, "the folder with the files, or a parent of it";
    "data.train_limit" Allowed::Integer(1), "use the first N training images";
    "data.test_limit" Allowed::Integer(1), "use the first N test images";
    "data.validation" Allowed::Integer(0), "set apart the last N of what the limit leaves";
    "data.shuffle" Allowed::Flag, "shuffle every epoch; else file order";
    "data.augment" Allowed::Flag, "augment the training images as the data set's recipe says";
    "data.drop_last" Allowed::Flag, "drop the last, partial batch of an epoch";
    "network.name" Allowed::Choice(&NetworkName::NAMES), "the network";
    "network.classes" Allowed::Integer(2), "number of logits; default: the data's classes";
    "network.hidden" Allowed::Integers, "widths of the MLP's hidden layers";
    "network.dropout" BELOW_ONE, "dropout inside the blocks of wrn22-2";
    "sparse.distribution" Allowed::Choice(&["uniform", "er", "erk"]), "how the density is spread over the layers";
    "sparse.dense_first" Allowed::Flag, "leave the first convolution dense";
    "sparse.alpha" Allowed::Number(Included(0.0), Included(1.0)), "initial drop fraction";
    "sparse.delta_t" Allowed::Integer(1), "steps from one mask update to the next";
    "sparse.t_end" ANY, "where the mask is frozen; up to 1 a fraction of training, above a step";
    "sparse.schedule" Allowed::Choice(&["constant", "linear", "cosine", "cubic"]), "fall of the drop fraction";
    "sparse.mask_from" Allowed::Text, "the finished run that `lottery` takes its masks from";
    "random_mask.keep" Allowed::Keep, "probability that a weight is kept at a step; also a table by layer name";
    "random_mask.semantics" Allowed::Choice(&Semantics::NAMES), "as published, or as the released code executes";
    "random_mask.momentum" Allowed::Choice(&["frozen", "decay"]), "momentum of the weights masked at a step";
    "random_mask.rescale" Allowed::Choice(&["none", "inverted"]), "inverted: kept weights are divided by keep";
    "averaging.start" POSITIVE, "first averaged epoch; below 1 a fraction of training, rounded up";
    "averaging.reprune" Allowed::Flag, "start before the last mask update, and prune the average to the target";
    "averaging.keep_snapshots" Allowed::Flag, "keep the averaged snapshots too, for eval --ensemble";
};

/// The key of this name.
///
/// # Errors
/// An unknown name, with the nearest known one.
pub fn find(name: &str) -> Result<&'static Key> {
    KEYS.iter().find(|key| key.name == name).ok_or_else(|| {
        Error::Usage(format!("unknown key {name}{}", did_you_mean(name, KEYS.iter().map(|key| key.name))))
    })
}

/// Checks every key and value of a configuration.
///
/// # Errors
/// One [`Error::Usage`] that says of every bad key its name, its value and what is allowed.
pub fn check(config: &Table) -> Result<()> {
    let mut wrong = Vec::new();
    walk("", config, &mut wrong);
    if wrong.is_empty() { Ok(()) } else { Err(Error::Usage(wrong.join("; "))) }
}

fn walk(prefix: &str, table: &Table, wrong: &mut Vec<String>) {
    for (name, value) in table {
        let path = format!("{prefix}{name}");
        let section = format!("{path}.");
        match (find(&path), value) {
            (Ok(key), value) => wrong.extend(key.check(value).err().map(|e| e.to_string())),
            (Err(_), value) if KEYS.iter().any(|key| key.name.starts_with(&section)) => match value {
                Value::Table(inner) => walk(&section, inner, wrong),
                _ => wrong.push(format!("{path} = {value}: expected a section, [{path}]")),
            },
            (Err(error), _) => wrong.push(error.to_string()),
        }
    }
}

impl Key {
    /// Whether the key takes `value`.
    ///
    /// # Errors
    /// Key, value and what is allowed.
    pub fn check(&self, value: &Value) -> Result<()> {
        if self.allowed.takes(value) {
            return Ok(());
        }
        let hint = match (&self.allowed, value) {
            (Allowed::Choice(words), Value::String(word)) => did_you_mean(word, words.iter().copied()),
            _ => String::new(),
        };
        Err(Error::Usage(format!("{} = {value}: expected {}{hint}", self.name, self.allowed)))
    }

    /// Reads a value as it stands after `KEY=`: TOML, where texts need no quotes and flags may be `on` and `off`.
    ///
    /// # Errors
    /// Key, value and what is allowed.
    pub fn parse(&self, text: &str) -> Result<Value> {
        let parsed = text.parse::<Value>();
        let value = match (&self.allowed, parsed) {
            (Allowed::Flag, _) if matches!(text, "on" | "off") => Value::Boolean(text == "on"),
            (_, Ok(value @ Value::String(_))) => value,
            (Allowed::Text | Allowed::Choice(_) | Allowed::Device, _) | (_, Err(_)) => Value::String(text.into()),
            (_, Ok(value)) => value,
        };
        self.check(&value)?;
        Ok(value)
    }
}

impl Allowed {
    fn takes(&self, value: &Value) -> bool {
        match self {
            Allowed::Flag => value.is_bool(),
            Allowed::Text => value.as_str().is_some_and(|text| !text.is_empty()),
            Allowed::Choice(words) => value.as_str().is_some_and(|word| words.contains(&word)),
            Allowed::Integer(least) => value.as_integer().is_some_and(|n| n >= *least),
            Allowed::Number(low, high) => within(value, (*low, *high)),
            Allowed::Numbers => all(value, |x| within(x, (Included(0.0), Unbounded))),
            Allowed::Integers => all(value, |x| x.as_integer().is_some_and(|n| n >= 1)),
            Allowed::Device => value.as_str().is_some_and(|text| text.parse::<Device>().is_ok()),
            Allowed::Keep => match value {
                Value::Table(layers) => layers.values().all(keeps),
                value => keeps(value),
            },
        }
    }
}

fn keeps(value: &Value) -> bool {
    within(value, (Excluded(0.0), Included(1.0)))
}

fn within(value: &Value, bounds: (Bound<f64>, Bound<f64>)) -> bool {
    let number = value.as_float().or(value.as_integer().map(|n| n as f64));
    number.is_some_and(|x| x.is_finite() && bounds.contains(&x))
}

fn all(value: &Value, test: impl Fn(&Value) -> bool) -> bool {
    value.as_array().is_some_and(|list| list.iter().all(test))
}

impl std::fmt::Display for Allowed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Allowed::Flag => f.write_str("true or false"),
            Allowed::Text => f.write_str("text"),
            Allowed::Choice(words) => write!(f, "one of {}", words.join(", ")),
            Allowed::Integer(least) => write!(f, "an integer of {least} or more"),
            Allowed::Number(low, high) => {
                f.write_str("a number")?;
                let low = match low {
                    Included(low) => format!(" of {low} or more"),
                    Excluded(low) => format!(" above {low}"),
                    Unbounded => String::new(),
                };
                f.write_str(&low)?;
                match high {
                    Included(high) => write!(f, " and at most {high}"),
                    Excluded(high) => write!(f, " and below {high}"),
                    Unbounded => Ok(()),
                }
            }
            Allowed::Numbers => f.write_str("a list of numbers of 0 or more"),
            Allowed::Integers => f.write_str("a list of integers of 1 or more"),
            Allowed::Device => f.write_str(Device::EXPECTED),
            Allowed::Keep => f.write_str("a number above 0 and at most 1, or a table of them by layer name"),
        }
    }
}

/// "; did you mean X?", where one of the `known` names is near `name`, else nothing.
///
/// The last part of a known key counts as well, so that `lr` finds `train.lr`.
pub fn did_you_mean<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let last = |key: &'a str| key.rsplit('.').next().unwrap_or(key);
    let similarity = |key: &'a str| {
        let whole = strsim::normalized_damerau_levenshtein(name, key);
        whole.max(strsim::normalized_damerau_levenshtein(name, last(key)))
    };
    let nearest = known.into_iter().map(|key| (similarity(key), key)).max_by(|a, b| a.0.total_cmp(&b.0));
    match nearest {
        Some((similarity, key)) if similarity >= 0.6 => format!("; did you mean {key}?"),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(key: &str, text: &str) -> String {
        find(key).unwrap().parse(text).unwrap_err().to_string()
    }

    #[test]
    fn unknown_keys_are_answered_with_the_nearest_one() {
        for (wrong, near) in [
            ("train.epoch", "train.epochs"),
            ("train.warmup_step", "train.warmup_steps"),
            ("lr", "train.lr"),
            ("sparse.deltat", "sparse.delta_t"),
            ("averaging.strat", "averaging.start"),
        ] {
            let error = find(wrong).unwrap_err().to_string();
            assert_eq!(error, format!("unknown key {wrong}; did you mean {near}?"));
        }
        assert_eq!(find("zzz").unwrap_err().to_string(), "unknown key zzz");
    }

    #[test]
    fn a_bad_value_is_named_with_what_is_allowed() {
        for (key, text, expected) in [
            ("train.lr", "-1", "train.lr = -1: expected a number above 0"),
            ("train.lr", "nan", "train.lr = nan: expected a number above 0"),
            ("train.lr", "big", "train.lr = \"big\": expected a number above 0"),
            ("train.epochs", "1.5", "train.epochs = 1.5: expected an integer of 1 or more"),
            ("sparsity", "1", "sparsity = 1: expected a number of 0 or more and below 1"),
            ("data.shuffle", "maybe", "data.shuffle = \"maybe\": expected true or false"),
            ("train.optimizer", "sdg", "train.optimizer = \"sdg\": expected one of sgd, adam; did you mean sgd?"),
            (
                "train.lr_milestones",
                "[0.5,-1]",
                "train.lr_milestones = [0.5, -1]: expected a list of numbers of 0 or more",
            ),
        ] {
            assert_eq!(message(key, text), expected);
        }
        assert!(message("random_mask.keep", "0").contains("above 0 and at most 1"));
        assert!(message("random_mask.keep", "{fc = 2}").contains("above 0 and at most 1"));
    }

    #[test]
    fn values_are_toml_and_words_need_no_quotes() {
        let parse = |key: &str, text: &str| find(key).unwrap().parse(text).unwrap();
        assert_eq!(parse("train.lr", "0.1"), Value::Float(0.1));
        assert_eq!(parse("train.lr", "1"), Value::Integer(1));
        assert_eq!(parse("train.optimizer", "adam"), Value::String("adam".into()));
        assert_eq!(parse("train.optimizer", "\"adam\""), Value::String("adam".into()));
        assert_eq!(parse("data.dir", "2024"), Value::String("2024".into()));
        assert_eq!(parse("data.dir", "/a b/c"), Value::String("/a b/c".into()));
        assert_eq!(parse("data.shuffle", "off"), Value::Boolean(false));
        assert_eq!(parse("network.hidden", "[30, 20]"), Value::Array(vec![Value::Integer(30), Value::Integer(20)]));
    }

    #[test]
    fn every_bad_key_of_a_file_is_told_at_once() {
        let file: Table = "seed = -1\ndata = 3\n[train]\nlr = 0.1\nepoch = 3\n[tarin]\nlr = 1".parse().unwrap();
        let error = check(&file).unwrap_err().to_string();
        for part in ["seed = -1", "data = 3: expected a section", "train.epochs", "unknown key tarin"] {
            assert!(error.contains(part), "{error}");
        }
        assert!(!error.contains("train.lr ="), "{error}");
    }
}
