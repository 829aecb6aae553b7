//! One image that is only predicted on, in the layout that a device may have for it: what comes out is equal to the bit to what comes
//! out among other images.

use super::arena::{Arena, Output};
use super::batch_norm_cases::describe;
use super::{devices, values};
use crate::backend::{Backend, Conv, Effective, Extent, Map, StepState};
use crate::bitmask::BitMask;
use crate::rng::{Domain, Stream};
use crate::shape::Shape;

/// Runs a case in both layouts on every device that computes in plain Rust.
fn in_both_layouts(name: &str, case: impl Fn(&mut Arena) + Sync) {
    for device in devices().into_iter().filter(|device| device.class.starts_with("cpu")) {
        let [among_others, alone] = [false, true].map(|inference| {
            let who = format!("{name}, inference {inference}, {}", device.name);
            device.run(|on: &mut dyn Backend| {
                let predicting = |arena: &mut Arena| {
                    arena.inference = inference;
                    case(arena);
                };
                let outputs = Arena::play(on, 1, &predicting);
                outputs.iter().map(|output| output.observed(on, &who)).collect::<Vec<_>>()
            })
        });
        assert_eq!(among_others, alone, "{name}, {}", device.name);
    }
}

/// Runs a call; around the pixels of a single image there must be zeros.
fn run(arena: &mut Arena, y: Map, call: impl FnOnce(&mut dyn Backend) -> crate::Result<()>) {
    let output = if y.inference { Output::Gradient(y) } else { Output::Value(y) };
    arena.run(&[output], call);
}

#[test]
fn convolutions_of_a_single_image_have_the_bits_that_it_gets_among_others() {
    let mut draws = Stream::new(1, Domain::Bootstrap, 2, 0);
    let mut pick = |from: &[usize]| from[draws.below(from.len() as u32) as usize];
    for case in 0..120 {
        let (kernel, stride) = (pick(&[1, 3, 3, 5, 7]), pick(&[1, 1, 2, 3]));
        let conv = Conv { stride, padding: pick(&[0, 1, 2, 3]).min(kernel - 1) };
        let [h, w] = [pick(&[1, 2, 5, 8]), pick(&[1, 3, 7, 16, 33])].map(|size| size.max(kernel));
        let (x, outputs) = (Shape::images(1, pick(&[1, 3, 8, 33]), h, w), pick(&[1, 5, 8, 18]));
        let size = |size: usize| (size + 2 * conv.padding - kernel) / stride + 1;
        let (y, dims) = (Shape::images(1, outputs, size(h), size(w)), [outputs, x.c, kernel, kernel]);
        let mask = BitMask::from_fn(dims.iter().product(), |_| pick(&[0, 0, 1]) == 1 || case % 3 == 0);
        let [weights, images, summands] = [mask.len(), x.len(), y.len()].map(|len| values(len, case));
        in_both_layouts(&format!("{x} to {y}, kernel {kernel}, {conv:?}"), |arena| {
            let weight = arena.weight(dims, &weights, &weights);
            arena.register(std::slice::from_ref(&mask));
            let bn = describe(arena, y, &summands, 0, case % 2 == 0, case % 4 < 2);
            let step = StepState { seed: 0, step: 0, statistics_momentum: 0.0, extent: Extent::Active };
            arena.prepare(|on| on.begin_step(step));
            arena.prepare(|on| on.effective_weights(Effective::Deterministic, &[]));
            let input = arena.convolved(x, conv.padding, &images);
            let residual = arena.value(y, 1, &summands);
            let [product, sum, normalised] = [0, 1, 2].map(|halo| arena.result(y, halo));
            run(arena, product, |on| on.conv2d(input, weight, conv, product));
            run(arena, sum, |on| on.conv2d_add(input, weight, conv, residual, sum));
            run(arena, normalised, |on| on.conv2d_batch_norm(input, weight, conv, &bn, normalised));
        });
    }
}

#[test]
fn whatever_else_a_single_image_goes_through_leaves_the_bits_that_it_gets_among_others() {
    for (c, h, w) in [(1, 1, 1), (3, 1, 9), (5, 9, 1), (33, 4, 4), (2, 17, 30), (8, 32, 32)] {
        let (s, conv) = (Shape::images(1, c, h, w), Conv { stride: 2, padding: 1 });
        let mut image = values(s.len(), 1);
        image[s.len() / 2] = f32::MIN;
        in_both_layouts(&s.to_string(), |arena| {
            let bn = describe(arena, s, &image, 1, w == 9, h == 9);
            let (bias, x, other) = (arena.span(&image[..c]), arena.value(s, 1, &image), arena.value(s, 0, &image));
            let [biased, rectified, sum, doubled, normalised] = [(); 5].map(|()| arena.result(s, 1));
            run(arena, biased, |on| on.add_bias(x, bias, biased));
            run(arena, rectified, |on| on.relu(x, rectified));
            run(arena, sum, |on| on.add(x, other, sum));
            run(arena, doubled, |on| on.add(x, x, doubled));
            run(arena, normalised, |on| on.batch_norm_inference(&bn, normalised));
            let pooled = arena.result(Shape::images(1, c, (h - 1) / 2 + 1, (w - 1) / 2 + 1), 1);
            run(arena, pooled, |on| on.max_pool(x, 3, conv, pooled));
            let (mean, flat) = (arena.result(Shape::features(1, c), 0), arena.result(Shape::features(1, s.len()), 0));
            run(arena, mean, |on| on.average_pool(x, mean));
            run(arena, flat, |on| on.flatten(x, flat));
        });
    }
}
