//! Runs that differ in nothing but the seed.

use std::collections::{BTreeMap, BTreeSet};

use super::run::{Run, State};
use crate::config::Config;
use crate::report::summary::{percent, row_names};
use crate::train::summary::Summary;

/// Runs of one configuration with different seeds.
#[derive(Clone, Debug)]
pub struct Group<'a> {
    /// What tells it from the other groups, for a table's row: the method, with data set, network, sparsity and other keys where the
    /// groups differ in them.
    pub name: String,
    /// The method, with the keys that tell it from other groups of the same method and sparsity: for a legend, where all sparsities of
    /// a method are one line.
    pub method: String,
    /// The data set's name.
    pub dataset: String,
    /// The network's name.
    pub network: String,
    /// The sparsity asked for, as a fraction.
    pub sparsity: f64,
    /// The runs, by seed.
    pub runs: Vec<&'a Run>,
}

impl Group<'_> {
    /// The summaries of its finished runs.
    pub fn finished(&self) -> Vec<&Summary> {
        self.runs.iter().filter_map(|run| run.summary()).collect()
    }

    /// A quantity of each finished run.
    pub fn values(&self, quantity: impl Fn(&Summary) -> f64) -> Vec<f64> {
        self.finished().into_iter().map(quantity).collect()
    }

    /// Its seeds, with what became of those that have no result: `0, 1, 2 failed`.
    pub fn seeds(&self) -> String {
        let seed = |run: &&Run| match run.state {
            State::Finished(_) => run.config.seed.to_string(),
            State::Failed(_) => format!("{} failed", run.config.seed),
            State::Unfinished(_) => format!("{} unfinished", run.config.seed),
        };
        self.runs.iter().map(seed).collect::<Vec<_>>().join(", ")
    }
}

/// Groups runs by data set, network, method and sparsity, in that order. A second run of the same configuration and seed is a group of
/// its own, named after its folder, for it is no second sample.
pub fn groups(runs: &[Run]) -> Vec<Group<'_>> {
    let mut members: Vec<Vec<&Run>> = Vec::new();
    for run in runs {
        let fits = |group: &&mut Vec<&Run>| {
            let differs = |known: &&Run| known.config.seed != run.config.seed;
            alike(&group[0].config, &run.config) && group.iter().all(differs)
        };
        match members.iter_mut().find(fits) {
            Some(group) => group.push(run),
            None => members.push(vec![run]),
        }
    }
    let mut groups: Vec<(Group, BTreeMap<String, String>)> = members.into_iter().map(group).collect();
    groups.sort_by(|(a, _), (b, _)| {
        let order =
            |group: &Group| (group.dataset.clone(), group.network.clone(), group.runs[0].config.method as usize);
        order(a).cmp(&order(b)).then(a.sparsity.total_cmp(&b.sparsity))
    });
    name(&mut groups);
    groups.into_iter().map(|(group, _)| group).collect()
}

/// Whether two configurations differ in the seed at most. A lottery ticket's masks come from the run of its own seed.
fn alike(a: &Config, b: &Config) -> bool {
    let mut a = Config { seed: b.seed, ..a.clone() };
    a.sparse.mask_from.clone_from(&b.sparse.mask_from);
    a.first_difference(b).is_none()
}

fn group(mut runs: Vec<&Run>) -> (Group<'_>, BTreeMap<String, String>) {
    runs.sort_by_key(|run| run.config.seed);
    let config = &runs[0].config;
    let keys = keys(config);
    let value = |key: &str| keys.get(key).cloned().unwrap_or_default();
    let group = Group {
        name: String::new(),
        method: config.method.name().into(),
        dataset: value("data.dataset"),
        network: value("network.name"),
        sparsity: config.sparsity,
        runs,
    };
    (group, keys)
}

/// Gives the groups names that no two of them share.
fn name(groups: &mut [(Group, BTreeMap<String, String>)]) {
    let line = |group: &Group| (group.dataset.clone(), group.network.clone(), group.method.clone());
    let lines: Vec<_> = groups.iter().map(|(group, _)| line(group)).collect();
    let mut details = vec![String::new(); groups.len()];
    for at in 0..groups.len() {
        let same_line: Vec<usize> = (0..groups.len()).filter(|&other| lines[other] == lines[at]).collect();
        // Keys by which groups of one line and sparsity differ. All sparsities of the line name them, so that they stay a line.
        let mut differing = BTreeSet::new();
        let mut repeats = false;
        for (i, &a) in same_line.iter().enumerate() {
            for &b in &same_line[i + 1..] {
                if groups[a].0.sparsity == groups[b].0.sparsity {
                    let found = differences(&groups[a].1, &groups[b].1);
                    repeats |= found.is_empty() && b == at;
                    differing.extend(found);
                }
            }
        }
        let value = |key: &String| format!(" {key}={}", groups[at].1.get(key).map_or("-", String::as_str));
        details[at] = differing.iter().map(value).collect();
        if repeats {
            details[at] += &format!(" ({})", groups[at].0.runs[0].name());
        }
    }
    let parts = |(group, _): &(Group, _)| {
        let sparsity = format!("{} %", percent(group.sparsity));
        [group.dataset.clone(), group.network.clone(), group.method.clone(), sparsity]
    };
    let names = row_names(&groups.iter().map(parts).collect::<Vec<_>>());
    for (((group, _), name), detail) in groups.iter_mut().zip(names).zip(details) {
        group.method += &detail;
        group.name = name + &detail;
    }
}

/// The keys whose values differ, but for those that make no other experiment.
fn differences(a: &BTreeMap<String, String>, b: &BTreeMap<String, String>) -> Vec<String> {
    const NO_MATTER: [&str; 6] = ["version", "preset", "seed", "device", "data.dir", "sparse.mask_from"];
    let keys: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    let differs = |key: &&String| !NO_MATTER.contains(&key.as_str()) && a.get(*key) != b.get(*key);
    keys.into_iter().filter(differs).cloned().collect()
}

/// Every key of a configuration with its value as text.
fn keys(config: &Config) -> BTreeMap<String, String> {
    fn flatten(prefix: &str, table: &toml::Table, all: &mut BTreeMap<String, String>) {
        for (name, value) in table {
            match value {
                toml::Value::Table(table) => flatten(&format!("{prefix}{name}."), table, all),
                toml::Value::String(text) => drop(all.insert(format!("{prefix}{name}"), text.clone())),
                value => drop(all.insert(format!("{prefix}{name}"), value.to_string())),
            }
        }
    }
    let mut all = BTreeMap::new();
    flatten("", &config.to_toml().parse().expect("a configuration is written as TOML"), &mut all);
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Assignment;
    use crate::train::run_folder::RunFolder;

    fn run(folder: &str, settings: &[&str]) -> Run {
        let set: Vec<Assignment> = settings.iter().map(|text| Assignment::parse(text).unwrap()).collect();
        let config = Config::resolve(Some("digits"), None, &set).unwrap();
        Run { folder: RunFolder::new(folder), config, state: State::Unfinished(0) }
    }

    fn named(runs: &[Run]) -> Vec<(String, String)> {
        groups(runs).into_iter().map(|group| (group.seeds().replace(" unfinished", ""), group.name)).collect()
    }

    fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        expected.iter().map(|(seeds, name)| (seeds.to_string(), name.to_string())).collect()
    }

    #[test]
    fn seeds_of_one_configuration_are_one_group() {
        let runs = [
            run("a", &["method=cigl", "seed=1"]),
            run("b", &["method=rigl", "seed=0"]),
            run("c", &["method=cigl", "seed=0", "device=cpu"]),
        ];
        assert_eq!(named(&runs), pairs(&[("0", "rigl"), ("0, 1", "cigl")]));
    }

    #[test]
    fn groups_are_named_by_what_tells_them_apart() {
        let runs = [
            run("a", &["method=cigl", "sparsity=0.9"]),
            run("b", &["method=cigl", "sparsity=0.95"]),
            run("c", &["method=cigl", "sparsity=0.9", "train.epochs=3"]),
        ];
        let expected =
            [("0", "cigl 90 % train.epochs=20"), ("0", "cigl 90 % train.epochs=3"), ("0", "cigl 95 % train.epochs=20")];
        assert_eq!(named(&runs), pairs(&expected));
        let methods: Vec<String> = groups(&runs).into_iter().map(|group| group.method).collect();
        assert_eq!(methods, ["cigl train.epochs=20", "cigl train.epochs=3", "cigl train.epochs=20"]);
    }

    // Twice the same run would halve a standard deviation that it says nothing of.
    #[test]
    fn a_repeated_run_is_no_second_seed() {
        let runs = [run("runs/a", &["seed=0"]), run("runs/a-2", &["seed=0"]), run("runs/b", &["seed=1"])];
        assert_eq!(named(&runs), pairs(&[("0, 1", "cigl"), ("0", "cigl (runs/a-2)")]));
    }
}
