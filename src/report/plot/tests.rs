//! Every plot with data as a run gives them: words in their places, nothing cut, nothing overlapping.

use resvg::usvg::{Group, Node, Rect, Tree};

use super::*;
use crate::calibration::{Evaluation, Options, Scheme, Scores, evaluate};
use crate::report::png;
use crate::rng::{Domain, Stream};

/// Predictions of ten classes that claim `excess` more than they hold.
fn evaluation(n: u64, excess: f64) -> Evaluation {
    evaluation_by(n, excess, Scheme::Width)
}

fn evaluation_by(n: u64, excess: f64, scheme: Scheme) -> Evaluation {
    let mut stream = Stream::new(1, Domain::Bootstrap, 0, 3);
    let (mut probs, mut labels) = (Vec::new(), Vec::new());
    for _ in 0..n {
        let top = 1.0 - 0.75 * stream.uniform().powi(4);
        let rest = (1.0 - top) / 9.0;
        probs.extend((0..10).map(|k| if k == 0 { top as f32 } else { rest as f32 }));
        let right = stream.uniform() < top - excess * (1.0 - (2.0 * top - 1.0).powi(4)) - excess / 4.0;
        labels.push(if right { 0 } else { 1 + stream.below(9) });
    }
    evaluate(
        Scores::Probs(&probs),
        &labels,
        10,
        &Options { scheme, intervals: true, seed: 1, bin_sweep: true, ..Options::default() },
    )
    .unwrap()
}

fn curves() -> Training {
    let mut stream = Stream::new(2, Domain::Bootstrap, 0, 4);
    let steps = 920;
    let loss = |step: f64| 0.25 + 2.0 * (-step / 150.0).exp();
    let noisy = (0..steps).map(f64::from).map(|step| (step, loss(step) * (1.0 + 0.15 * stream.normal()))).collect();
    let epochs = || (1..=40).map(|epoch| f64::from(23 * epoch));
    let line = |name: &str, points| Line { name: name.into(), points };
    Training {
        loss: vec![line("training batch", noisy), line("test", epochs().map(|s| (s, loss(s) + 0.3)).collect())],
        accuracy: vec![
            line("training batch", epochs().map(|s| (s, 0.93 - 0.5 * (-s / 200.0).exp())).collect()),
            line("test", epochs().map(|s| (s, 0.83 - 0.4 * (-s / 200.0).exp())).collect()),
        ],
        learning_rate: (0..steps).map(f64::from).map(|s| (s, 0.1 * 0.5f64.powf((s / 230.0).floor()))).collect(),
        marks: vec![
            Mark { step: 690.0, name: "last mask update".into() },
            Mark { step: 736.0, name: "averaging".into() },
        ],
    }
}

fn layers() -> Vec<(String, f64)> {
    let mut layers = vec![("conv1.weight".to_string(), 1.0)];
    for (stage, blocks) in [3, 4, 6, 3].into_iter().enumerate() {
        for block in 0..blocks {
            for (conv, density) in [(1, 0.43), (2, 0.084), (3, 0.33)] {
                layers.push((format!("layer{}.{block}.conv{conv}.weight", stage + 1), density / (stage + 1) as f64));
            }
            if block == 0 {
                layers.push((format!("layer{}.0.downsample.0.weight", stage + 1), 0.0014));
            }
        }
    }
    layers.push(("fc.weight".into(), 0.483));
    layers
}

/// The paper's Tables 2 and 3 for CIFAR-10 and ResNet-50 in percent, in the order of the sparsities 80, 90, 95 and 99 %.
const TABLE_2: [(&str, [f64; 4]); 3] = [
    ("RigL", [94.02, 93.84, 93.19, 91.31]),
    ("RigL + MC-DP", [93.39, 93.71, 92.87, 89.84]),
    ("CigL", [94.75, 94.56, 94.20, 92.42]),
];
const TABLE_3: [(&str, [f64; 4]); 3] =
    [("RigL", [4.23, 4.41, 5.04, 5.71]), ("RigL + MC-DP", [3.22, 2.0, 1.21, 5.27]), ("CigL", [3.55, 3.6, 3.84, 2.96])];

/// A table's first `count` sparsities, and as if they had been measured again 1 above, but the last.
fn panel(name: &str, table: &[(&str, [f64; 4])], count: usize) -> Panel {
    let series = |shift: f64, count: usize, published: bool| {
        table.iter().map(move |(method, values)| {
            let point =
                |(&sparsity, &value): (&f64, &f64)| Point { sparsity, mean: value + shift, half_width: Some(0.2) };
            let points = [0.8, 0.9, 0.95, 0.99].iter().zip(values).map(point).take(count).collect();
            Series { name: method.to_string(), points, published }
        })
    };
    Panel { name: name.into(), series: series(0.0, count, true).chain(series(1.0, count - 1, false)).collect() }
}

fn tables(count: usize) -> [Panel; 2] {
    [panel("accuracy (%)", &TABLE_2, count), panel("ECE (%)", &TABLE_3, count)]
}

/// Fig. 1c: eleven sparsities.
fn eleven() -> [Panel; 2] {
    let ece = [8.9, 9.28, 9.1, 9.62, 10.83, 11.78, 12.51, 8.25, 3.31, 1.9, 5.26];
    let at = [0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 0.995, 0.997, 0.999];
    ["accuracy (%)", "ECE (%)"].map(|name| {
        let points = at.iter().zip(&ece).map(|(&sparsity, &mean)| Point { sparsity, mean, half_width: None }).collect();
        Panel { name: name.into(), series: vec![Series { name: "RigL".into(), points, published: true }] }
    })
}

/// Masks of these layers that change `updates` times in the first three quarters of 10,000 steps: densities drift to their
/// end from half of it, as many weights are lost as grow, and some channels die.
fn masks(layers: &[(String, f64)], updates: usize) -> Evolution {
    let steps: Vec<f64> = (0..=updates).map(|i| (7500 * i / updates) as f64).collect();
    let by_step =
        |share: &dyn Fn(f64) -> f64| steps.iter().map(|&step| (step, share(step / 7500.0))).collect::<Vec<_>>();
    let drift = |end: f64| by_step(&|t| end * (1.0 + t) / 2.0).into_iter().map(|point| point.1).collect();
    Evolution {
        layers: layers.iter().map(|(name, end)| (name.clone(), drift(*end))).collect(),
        density: by_step(&|_| 0.1),
        ever_active: by_step(&|t| 0.1 + 0.3 * (1.0 - (-3.0 * t).exp())),
        first_overlap: by_step(&|t| 0.2 + 0.8 * (-4.0 * t).exp()),
        previous_overlap: by_step(&|t| 0.85 + 0.15 * t).into_iter().skip(1).collect(),
        dead_channels: by_step(&|t| (40.0 * t).floor()),
        end: 10_000.0,
    }
}

fn plots() -> Vec<(&'static str, String)> {
    let (rigl, cigl) = (evaluation(2000, 0.1), evaluation(2000, -0.02));
    let by_mass = evaluation_by(2000, 0.1, Scheme::Mass);
    let small: Vec<(String, f64)> = layers()[..6].to_vec();
    vec![
        ("reliability", reliability("fashion-mini, RigL 90 %, test", &rigl)),
        ("comparison", comparison(&[("RigL, 90 % sparse", &rigl), ("CigL, 90 % sparse", &cigl)])),
        ("confidence", confidence("fashion-mini, RigL 90 %, test", &rigl)),
        ("bins", bin_sweep("fashion-mini, RigL 90 %, test", &rigl.bin_sweep, 2000)),
        ("equal mass", reliability("fashion-mini, RigL 90 %, test", &by_mass)),
        ("training", training("fashion-mini, CigL 90 %", &curves())),
        ("density", density("ResNet-50 for CIFAR-100, 90 % sparse", &layers(), 0.1)),
        ("density of few", density("small convnet, 90 % sparse", &small, 0.1)),
        ("against sparsity", against_sparsity("CIFAR-10, ResNet-50", &tables(4))),
        ("eleven sparsities", against_sparsity("RigL, CIFAR-100, ResNet-50", &eleven())),
        ("bars", bars("CIFAR-10, ResNet-50", &tables(3))),
        ("radar", radar("CIFAR-10, ResNet-50", &tables(4)[1])),
        ("radar of eleven", radar("RigL, CIFAR-100, ResNet-50", &eleven()[1])),
        ("radar of three", radar("CIFAR-10, ResNet-50", &tables(3)[1])),
        ("radar of two", radar("CIFAR-10, ResNet-50", &tables(2)[1])),
        ("masks of 54 layers", evolution("ResNet-50 for CIFAR-100, SNFS 90 %", &masks(&layers(), 600))),
        ("masks of 23 layers", evolution("WRN-22-2, SNFS 90 %", &masks(&layers()[..23], 73))),
        ("masks of few layers", evolution("small convnet, RigL 90 %", &masks(&small, 8))),
        ("masks of one update", evolution("small convnet, RigL 90 %", &masks(&small, 1))),
        ("long title", reliability(&"a very long name of a run ".repeat(4), &rigl)),
        ("one sample", confidence("one sample", &evaluation(1, 0.1))),
        (
            "one step",
            training(
                "one step",
                &Training { loss: vec![Line { name: "training batch".into(), points: vec![(0.0, 2.3)] }], ..curves() },
            ),
        ),
    ]
}

fn words(group: &Group, found: &mut Vec<(String, Rect)>) {
    for node in group.children() {
        match node {
            Node::Group(group) => words(group, found),
            Node::Text(text) => {
                let content: String = text.chunks().iter().map(|chunk| chunk.text()).collect();
                found.push((content, text.abs_bounding_box()));
            }
            _ => {}
        }
    }
}

fn laid_out(svg: &str) -> (Tree, Vec<(String, Rect)>) {
    let tree = png::parse(svg).unwrap();
    let mut found = Vec::new();
    words(tree.root(), &mut found);
    (tree, found)
}

#[test]
fn no_word_is_cut_and_no_two_overlap() {
    for (name, svg) in plots() {
        let (tree, words) = laid_out(&svg);
        assert!(words.len() > 8, "{name} has {} texts", words.len());
        let inside = |r: &Rect| {
            r.left() >= 0.0 && r.top() >= 0.0 && r.right() <= tree.size().width() && r.bottom() <= tree.size().height()
        };
        for (i, (text, at)) in words.iter().enumerate() {
            assert!(inside(at), "{name}: {text:?} at {at:?} leaves the page");
            for (other, there) in &words[..i] {
                let apart = at.left() >= there.right()
                    || there.left() >= at.right()
                    || at.top() >= there.bottom()
                    || there.top() >= at.bottom();
                assert!(apart, "{name}: {text:?} overlaps {other:?}");
            }
        }
    }
}

#[test]
fn bars_are_as_high_as_the_bins_are_accurate() {
    // Four samples at .5, three of them right; two at .9, both wrong. The axes are 436 pixels high.
    let probs = [0.5, 0.5].repeat(4).into_iter().chain([0.9, 0.1].repeat(2)).collect::<Vec<f32>>();
    let evaluation = evaluate(Scores::Probs(&probs), &[0, 0, 1, 0, 1, 1], 2, &Options::default()).unwrap();
    let svg = reliability("bars", &evaluation);
    let heights: Vec<f64> = (svg.lines())
        .filter(|line| line.starts_with("<rect") && line.contains("#9BC8E4"))
        .map(|line| line.split("height=\"").nth(1).unwrap().split('"').next().unwrap().parse().unwrap())
        .collect();
    // The legend's sample, the two bars (the second has no height), the histogram's bars: 2 to 1.
    assert_eq!(heights.len(), 5, "{heights:?}");
    assert!((heights[1] - 0.75 * 436.0).abs() <= 1.5 && heights[2] <= 1.0, "{heights:?}");
    assert!((heights[3] - 2.0 * heights[4]).abs() <= 3.0, "{heights:?}");
}

#[test]
fn the_caption_holds_the_figures_that_belong_together() {
    let evaluation = evaluation(2000, 0.1);
    let metrics = &evaluation.metrics;
    let [low, high] = metrics.intervals.ece_ci95.unwrap();
    let words: Vec<String> =
        laid_out(&reliability("caption", &evaluation)).1.into_iter().map(|(text, _)| text).collect();
    let accuracy = format!("accuracy {:.1} % · NLL {:.3}", 100.0 * metrics.accuracy, metrics.nll);
    let error = format!("ECE {:.4} [{low:.4}, {high:.4}] · n = 2,000", metrics.ece);
    assert!(words.contains(&accuracy) && words.contains(&error), "{words:?}");
}

#[test]
fn the_curves_of_a_bin_sweep_are_told_apart_without_colour() {
    let evaluation = evaluation(2000, 0.1);
    let svg = bin_sweep("bins", &evaluation.bin_sweep, 2000);
    let words: Vec<String> = laid_out(&svg).1.into_iter().map(|(text, _)| text).collect();
    let ten = evaluation.bin_sweep[9].ece;
    let caption = format!("ECE {ten:.4} with 10 bins, {:.4} with 15 · n = 2,000", evaluation.metrics.ece);
    assert!(words.contains(&caption), "{words:?}");
    // One unbroken line through all points; dashes and dots are many short ones.
    let points = |line: &str| line.matches(',').count();
    let unbroken = svg.lines().filter(|line| line.starts_with("<polyline") && points(line) == 50).count();
    assert_eq!(unbroken, 1);
    assert!(svg.matches("#C44E00").count() > 20 && svg.matches("#222222").count() > 20);
}

#[test]
fn a_strip_is_as_dark_as_its_layer_is_dense_and_changes_where_the_mask_does() {
    let data = Evolution {
        layers: vec![("dense".into(), vec![1.0, 1.0, 1.0]), ("sparse".into(), vec![0.1, 0.1, 0.01])],
        density: vec![(0.0, 0.5), (10.0, 0.5), (50.0, 0.5)],
        end: 100.0,
        ..Evolution::default()
    };
    let svg = evolution("strips", &data);
    // Strips are drawn to the right end of the plotting region, 560 pixels wide, a later one over an earlier one. The colour scale
    // is 120 pixels long.
    let widths = |color: &str| -> Vec<f64> {
        let strips = svg.lines().filter(|line| line.starts_with("<rect") && line.contains(color));
        let widths = strips.map(|line| line.split("width=\"").nth(1).unwrap().split('"').next().unwrap());
        widths.map(|width| width.parse().unwrap()).filter(|width| *width > 120.0).collect()
    };
    // 100 %, half of the scale from 1 to 100 %, and its lower end.
    let [dense, middle, least] = [widths("#00345C"), widths("#7191AA"), widths("#E2EEF7")];
    assert!(dense.len() == 1 && (dense[0] - 560.0).abs() < 2.0, "{dense:?}");
    assert!(middle.len() == 1 && (middle[0] - 560.0).abs() < 2.0, "{middle:?}");
    assert!(least.len() == 1 && (least[0] - 280.0).abs() < 2.0, "{least:?}");
}

#[test]
fn empty_training_curves_are_a_page_with_a_title() {
    let svg = training("nothing logged", &Training::default());
    assert_eq!(laid_out(&svg).1.len(), 1);
    let lost =
        Training { loss: vec![Line { name: "loss".into(), points: vec![(0.0, f64::NAN)] }], ..Default::default() };
    assert!(!training("diverged", &lost).contains("NaN"));
}

fn texts(svg: &str) -> Vec<String> {
    laid_out(svg).1.into_iter().map(|(text, _)| text).collect()
}

#[test]
fn comparisons_name_every_method_sparsity_and_axis() {
    let [accuracy, ece] = tables(4);
    for (svg, ticks) in [
        (against_sparsity("figure", &[accuracy.clone(), ece.clone()]), ["80", "90", "95", "99"]),
        (bars("figure", &[accuracy, ece.clone()]), ["80", "90", "95", "99"]),
        (radar("figure", &ece), ["80 %", "90 %", "95 %", "99 %"]),
    ] {
        let texts = texts(&svg);
        let named = |words: &str| texts.iter().any(|text| text == words);
        for words in ticks.into_iter().chain(["figure", "RigL", "CigL", "CigL, paper", "RigL + MC-DP, paper"]) {
            assert!(named(words), "{words:?} is not among {texts:?}");
        }
        assert!(texts.iter().any(|text| text.contains("ECE (%)")), "{texts:?}");
    }
}

#[test]
fn bars_say_what_was_not_run_once_for_each_gap() {
    // Nothing was measured at the last of three sparsities: three methods, two panels.
    let texts = texts(&bars("figure", &tables(3)));
    assert_eq!(texts.iter().filter(|text| *text == "not run").count(), 6);
}

#[test]
fn the_height_of_a_bar_is_its_value() {
    let values = [4.0, 2.0, 1.0];
    let series = |(i, &mean): (usize, &f64)| Series {
        name: format!("method {i}"),
        points: vec![Point { sparsity: 0.9, mean, half_width: None }],
        published: false,
    };
    let panel = Panel { name: "ECE (%)".into(), series: values.iter().enumerate().map(series).collect() };
    let svg = bars("heights", &[panel]);
    // White rectangles are the page and the inside of the two bars that are hatched; the first bar is filled.
    let number = |line: &str, key: &str| -> f64 {
        line.split(&format!("{key}=\"")).nth(1).unwrap().split('"').next().unwrap().parse().unwrap()
    };
    let heights: Vec<f64> = (svg.lines())
        .filter(|line| line.starts_with("<rect") && !line.contains("fill=\"none\"") && number(line, "height") > 20.0)
        .map(|line| number(line, "height"))
        .skip(1)
        .collect();
    assert_eq!(heights.len(), 3, "{heights:?}");
    assert!(
        (heights[0] - 2.0 * heights[1]).abs() <= 2.0 && (heights[1] - 2.0 * heights[2]).abs() <= 2.0,
        "{heights:?}"
    );
}

#[test]
fn comparisons_leave_out_what_is_not_finite() {
    let [accuracy, mut ece] = tables(4);
    let whole = texts(&against_sparsity("figure", &[accuracy.clone(), ece.clone()]));
    for (i, series) in ece.series.iter_mut().enumerate() {
        series.points[1].mean = [f64::NAN, f64::INFINITY][i % 2];
        series.points[0].half_width = Some(f64::NAN);
    }
    let panels = [accuracy, ece];
    for svg in [against_sparsity("figure", &panels), bars("figure", &panels), radar("figure", &panels[1])] {
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }
    // The axes are as they were: 4.41 and its like are inside the range of the others.
    assert_eq!(texts(&against_sparsity("figure", &panels)), whole);
}

#[test]
fn comparisons_of_nothing_are_a_page_with_a_title() {
    for svg in [against_sparsity("empty", &[]), bars("empty", &[]), radar("empty", &Panel::default())] {
        assert!(texts(&svg).iter().any(|text| text == "empty"));
    }
}
