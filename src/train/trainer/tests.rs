//! What a step leaves for the next one, seen from outside it.

use super::*;
use crate::backend::cpu::Cpu;
use crate::config::Assignment;
use crate::nn::Mlp;

/// Eight steps an epoch, three epochs, mask updates among the first; snapshots after the last two.
const SETTINGS: [&str; 8] = [
    "data.train_limit=512",
    "train.epochs=3",
    "train.lr=0.05",
    "sparsity=0.7",
    "sparse.delta_t=5",
    "sparse.t_end=15",
    "random_mask.keep=0.8",
    "averaging.start=2",
];

/// Trains; before each step `between` may do what a user may. Returns each step's report and the values at the end.
fn train(settings: &[&str], mut between: impl FnMut(&mut Trainer)) -> (Vec<StepReport>, Vec<u32>) {
    let settings = [&SETTINGS[..], settings].concat();
    let settings: Vec<Assignment> = settings.into_iter().map(|text| Assignment::parse(text).unwrap()).collect();
    let config = Config::resolve(Some("digits"), None, &settings).unwrap();
    let digits = config.data.dataset.load(None, config.limits()).unwrap();
    let network = Box::new(Mlp { hidden: vec![21] });
    let mut trainer = Trainer::start(&config, network, &digits.train, Box::new(Cpu::new())).unwrap();
    let mut reports = vec![];
    while !trainer.is_done() {
        between(&mut trainer);
        let report = trainer.step().unwrap();
        // An average takes in Z of its own step, and leaks are those of the last update.
        let early = trainer.formed.is_some();
        let may = report.update.is_none() && report.snapshot.is_none() && !trainer.is_done() && !leaks(&config);
        assert_eq!(early, may, "after step {}", report.step);
        reports.push(report);
    }
    let spans: Vec<Span> = trainer
        .moments
        .iter()
        .flat_map(|m| [Some(trainer.model.value(m.id)), Some(m.velocity), m.second, m.average])
        .flatten()
        .collect();
    let values = spans.into_iter().flat_map(|span| trainer.model.backend().read(span).unwrap());
    let values = values.map(f32::to_bits).collect();
    (reports, values)
}

const METHODS: [&[&str]; 8] = [
    &["method=cigl"],
    &["method=cigl", "random_mask.momentum=decay", "random_mask.rescale=inverted"],
    &["method=cigl", "train.optimizer=adam", "train.lr=0.001"],
    &["method=cigl", "random_mask.semantics=official"],
    &["method=cigl-no-wma"],
    &["method=cigl-no-rm"],
    &["method=snfs"],
    &["method=gmp"],
];

#[test]
fn weights_formed_by_the_optimisers_step_are_those_the_next_step_would_form() {
    for method in METHODS {
        let early = train(method, |_| {});
        let anew = train(method, |trainer| {
            trainer.model();
        });
        assert!(early == anew, "{method:?}");
    }
}

#[test]
fn a_look_at_the_network_between_steps_changes_nothing() {
    for method in [METHODS[0], METHODS[3], METHODS[5]] {
        let undisturbed = train(method, |_| {});
        let mut images = vec![];
        let disturbed = train(method, |trainer| {
            images.resize(10 * 64, 0.5);
            let model = trainer.model();
            model.use_deterministic_weights().unwrap();
            let state = StepState { seed: 0, step: 0, statistics_momentum: 0.0, extent: Extent::Active };
            model.forward(Mode::Evaluate, &images, state).unwrap();
            let keep = vec![0.5; model.weights().len()];
            let domain = Domain::MonteCarlo;
            let draw = Draw { seed: 1, domain, step: 1, keep: &keep, inverted: false };
            model.backend().random_mask(&draw).unwrap();
            model.backend().effective_weights(Effective::Random, &[]).unwrap();
        });
        assert!(undisturbed == disturbed, "{method:?}");
    }
}
