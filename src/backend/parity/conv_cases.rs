//! Convolutions of all shapes, densities and sinks.

use super::arena::{Arena, Output};
use super::batch_norm_cases::describe;
use super::{on_every_device, values};
use crate::backend::{Conv, Draw, Effective, Extent, Growth, PruneAndGrow, StepState, Weight};
use crate::bitmask::BitMask;
use crate::rng::{Domain, Stream};
use crate::shape::Shape;

#[derive(Clone, Debug)]
struct Case {
    x: Shape,
    outputs: usize,
    kernel: usize,
    conv: Conv,
    density: f64,
    add: bool,
    /// Zeros that the maps have beyond what the convolution asks for.
    spare: usize,
    extent: Extent,
    /// No weight of the first output and the first input channel is in M.
    empty_row: bool,
}

impl Case {
    fn y(&self) -> Shape {
        let size = |size: usize| (size + 2 * self.conv.padding - self.kernel) / self.conv.stride + 1;
        Shape::images(self.x.n, self.outputs, size(self.x.h), size(self.x.w))
    }

    fn products(&self) -> usize {
        self.y().len() * self.x.c * self.kernel * self.kernel
    }

    fn dims(&self) -> [usize; 4] {
        [self.outputs, self.x.c, self.kernel, self.kernel]
    }

    fn mask(&self) -> BitMask {
        let len = self.dims().iter().product();
        let mut stream = Stream::new(5, Domain::InitialMask, 0, 0);
        let per_output = len / self.outputs;
        BitMask::from_fn(len, |i| {
            let emptied = self.empty_row && (i < per_output || i % self.x.c == 0);
            stream.uniform() < self.density && !emptied
        })
    }

    /// The zeros that dx wants around dy: the farthest that a tap of any pixel of x lies outside.
    fn gradient_halo(&self) -> usize {
        let Conv { stride, padding } = self.conv;
        let outside = |x: usize, y: usize| {
            let seen = |(i, k): (usize, usize)| {
                let d = (i + padding) as isize - k as isize;
                (d % stride as isize == 0).then_some(d / stride as isize)
            };
            let all = (0..x).flat_map(|i| (0..self.kernel).map(move |k| (i, k))).filter_map(seen);
            all.map(|at| (-at).max(at - y as isize + 1)).max().unwrap_or(0).max(0) as usize
        };
        outside(self.x.h, self.y().h).max(outside(self.x.w, self.y().w))
    }

    fn run(&self) {
        let (name, mask, len) = (format!("{self:?}"), self.mask(), self.dims().iter().product());
        let (x, y, w) = (values(self.x.len(), 1), values(self.y().len(), 2), values(len, 3));
        on_every_device(&name, |arena: &mut Arena| {
            let weight = arena.weight(self.dims(), &w, &values(len, 4));
            arena.register(std::slice::from_ref(&mask));
            let step = StepState { seed: 0, step: 0, statistics_momentum: 0.1, extent: self.extent };
            arena.prepare(|on| on.begin_step(step));
            arena.prepare(|on| on.effective_weights(Effective::Deterministic, &[]));
            let input = arena.convolved(self.x, self.conv.padding + self.spare, &x);
            let dy = arena.gradient(self.y(), self.gradient_halo() + self.spare, &y);
            let out = arena.result(self.y(), 2 * self.spare);
            arena.run(&[Output::Value(out)], |on| on.conv2d(input, weight, self.conv, out));
            // The choices of other things decide here too.
            if self.empty_row {
                let residual = arena.value(self.y(), self.spare, &values(self.y().len(), 6));
                let sum = arena.result(self.y(), self.spare);
                arena.run(&[Output::Value(sum)], |on| on.conv2d_add(input, weight, self.conv, residual, sum));
                let (normalised, relu) = (arena.result(self.y(), 2 * self.spare), self.density < 0.4);
                let bn = describe(arena, self.y(), &y, self.spare, self.add, relu);
                arena.prepare(|on| on.begin_step(step));
                arena.run(&[Output::Value(normalised)], |on| {
                    on.conv2d_batch_norm(input, weight, self.conv, &bn, normalised)
                });
            }
            let dx = arena.sink(self.x, self.spare, self.add);
            arena.run(&[Output::Gradient(dx.to)], |on| on.conv2d_grad_input(dy, weight, self.conv, dx));
            let dw = match self.extent {
                Extent::Dense => Output::Span(weight.grad),
                Extent::Active => Output::Inside(weight.grad, mask.clone()),
            };
            arena.run(&[dw], |on| on.conv2d_grad_weight(input, dy, weight, self.conv, self.add));
        });
    }
}

fn pick<T: Copy>(stream: &mut Stream, from: &[T]) -> T {
    from[stream.below(from.len() as u32) as usize]
}

/// Draws a case; every choice is independent of the others, as far as the kernel fits.
fn drawn(stream: &mut Stream, most: usize) -> Case {
    loop {
        let kernel = pick(stream, &[1, 1, 3, 3, 5, 7]);
        let conv = Conv { stride: pick(stream, &[1, 1, 2, 3]), padding: stream.below(kernel as u32) as usize };
        let channels = [1, 3, 5, 8, 33, 65];
        let (n, c) = (pick(stream, &[1, 15, 16, 17, 31, 33]), pick(stream, &channels));
        let (h, w) = (1 + stream.below(9) as usize, 1 + stream.below(19) as usize);
        let case = Case {
            x: Shape::images(n, c, h, w),
            outputs: pick(stream, &channels),
            kernel,
            conv,
            density: pick(stream, &[1.0, 0.5, 0.3, 0.1, 0.01]),
            add: pick(stream, &[false, true]),
            spare: pick(stream, &[0, 0, 1, 2]),
            extent: pick(stream, &[Extent::Dense, Extent::Active]),
            empty_row: pick(stream, &[false, true]),
        };
        let fits = h.min(w) + 2 * conv.padding >= kernel;
        if fits && case.products() <= most {
            return case;
        }
    }
}

#[test]
fn convolutions_of_any_shape_equal_the_sum_of_their_products() {
    let mut stream = Stream::new(1, Domain::Bootstrap, 1, 0);
    (0..160).for_each(|_| drawn(&mut stream, 400_000).run());
}

#[test]
fn convolutions_of_the_networks_equal_the_sum_of_their_products() {
    let base = Case {
        x: Shape::images(16, 8, 8, 8),
        outputs: 12,
        kernel: 3,
        conv: Conv { stride: 1, padding: 1 },
        density: 1.0,
        add: false,
        spare: 0,
        extent: Extent::Dense,
        empty_row: false,
    };
    let shapes = [
        // The stem on two whole blocks of 32x32 images, strides of 2, shortcuts, the classifier, ImageNet's stem.
        Case { x: Shape::images(33, 1, 32, 32), outputs: 5, ..base.clone() },
        Case { conv: Conv { stride: 2, padding: 1 }, x: Shape::images(17, 5, 32, 32), ..base.clone() },
        Case { conv: Conv { stride: 2, padding: 1 }, x: Shape::images(15, 8, 9, 7), ..base.clone() },
        Case { kernel: 1, conv: Conv { stride: 2, padding: 0 }, ..base.clone() },
        Case { kernel: 1, conv: Conv { stride: 1, padding: 0 }, x: Shape::features(31, 65), ..base.clone() },
        Case { kernel: 7, conv: Conv { stride: 2, padding: 3 }, x: Shape::images(1, 3, 32, 32), ..base.clone() },
        base.clone(),
    ];
    for shape in shapes {
        for density in [1.0, 0.5, 0.3, 0.1, 0.01, 0.0] {
            let add = density == 0.5 || density == 0.1;
            let extent = if density < 0.2 { Extent::Active } else { Extent::Dense };
            Case { density, add, extent, ..shape.clone() }.run();
        }
    }
}

/// One layer, used on two shapes, under one mask after another: what a device keeps of a mask must follow every change.
#[test]
fn a_new_mask_takes_effect_at_once() {
    let (conv, dims) = (Conv { stride: 2, padding: 1 }, [6, 5, 3, 3]);
    let (len, base) = (270, values(270, 3));
    let shapes = [
        (Shape::images(3, 5, 7, 5), Shape::images(3, 6, 4, 3)),
        (Shape::images(17, 5, 6, 8), Shape::images(17, 6, 3, 4)),
    ];
    on_every_device("changes of mask", |arena| {
        let weight = arena.weight(dims, &base, &values(len, 4));
        arena.register(&[]);
        let velocity = arena.span(&vec![0.0; len]);
        for round in 0..4 {
            match round {
                0 => arena.prepare(|on| on.write_mask(0, &BitMask::from_fn(len, |i| i % 5 == 0))),
                1 => arena.prepare(|on| on.write_mask(0, &BitMask::from_fn(len, |i| i % 4 == 1))),
                2 => arena.prepare(|on| {
                    let (growth, leak) = (Growth::Gradient, None);
                    on.prune_and_grow(&[PruneAndGrow {
                        weight,
                        drop: 30,
                        grow: 30,
                        growth,
                        velocity,
                        dense_momentum: false,
                        leak,
                    }])?;
                    on.write(weight.value, &base)
                }),
                _ => arena.prepare(|on| {
                    on.prune_globally(&[(weight, velocity)], 20)?;
                    on.random_mask(&Draw {
                        seed: 1,
                        domain: Domain::RandomMask,
                        step: 2,
                        keep: &[0.7],
                        inverted: false,
                    })
                }),
            }
            let which = if round == 3 { Effective::Random } else { Effective::Deterministic };
            arena.prepare(|on| on.effective_weights(which, &[]));
            for (number, (xs, ys)) in shapes.into_iter().enumerate() {
                let x = arena.convolved(xs, 1 + number, &values(xs.len(), 1));
                let dy = arena.gradient(ys, 1 + number, &values(ys.len(), 2));
                let (y, dx) = (arena.result(ys, 0), arena.sink(xs, 0, false));
                arena.run(&[Output::Value(y)], |on| on.conv2d(x, weight, conv, y));
                arena.run(&[Output::Gradient(dx.to)], |on| on.conv2d_grad_input(dy, weight, conv, dx));
                let mut mask = BitMask::zeros(len);
                arena.prepare(|on| on.read_mask(0).map(|read| mask = read));
                for extent in [Extent::Dense, Extent::Active] {
                    let step = StepState { seed: 0, step: 0, statistics_momentum: 0.1, extent };
                    arena.prepare(|on| on.begin_step(step));
                    let weight = Weight { grad: arena.span(&values(len, 4)), ..weight };
                    let dw = if extent == Extent::Dense {
                        Output::Span(weight.grad)
                    } else {
                        Output::Inside(weight.grad, mask.clone())
                    };
                    arena.run(&[dw], |on| on.conv2d_grad_weight(x, dy, weight, conv, false));
                }
            }
        }
    });
}
