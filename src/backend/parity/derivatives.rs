//! The derivatives of the reference against central differences of its forward passes, in f64.

use super::{Reference, values};
use crate::backend::{Backend, BatchNorm, Conv, Effective, Map, Precision, Sink, Span, Weight};
use crate::shape::Shape;

/// Half the distance of a central difference: its square, and 1e-16 over it, stay below the tolerance.
const STEP: f64 = 1e-5;
const TOLERANCE: f64 = 1e-8;

/// A reference with its memory handed out from the start.
struct Bench {
    on: Reference,
    end: usize,
}

impl Bench {
    fn new() -> Self {
        Bench { on: Reference::new(), end: 0 }
    }

    fn span(&mut self, values: &[f32]) -> Span {
        let span = Span { at: self.end, len: values.len() };
        self.end += values.len();
        self.on.reserve(self.end).unwrap();
        self.on.write(span, values).unwrap();
        span
    }

    fn map(&mut self, shape: Shape) -> Map {
        let seed = self.end as u64;
        Map {
            at: self.span(&values(shape.len(), seed)).at,
            shape,
            halo: 0,
            precision: Precision::F32,
            inference: false,
        }
    }

    fn weight(&mut self, dims: [usize; 4]) -> Weight {
        let [out_channels, in_channels, rows, cols] = dims;
        let all = values(dims.iter().product(), 5);
        let (value, grad) = (self.span(&all), self.span(&all));
        let weight = Weight { layer: 0, value, grad, out_channels, in_channels, kernel: [rows, cols] };
        self.on.register(&[weight]).unwrap();
        weight
    }

    /// Checks that `backward` leaves in each pair's second span the derivative of <out, dout> with respect to its first.
    fn check(
        &mut self,
        name: &str,
        pairs: &[(Span, Span)],
        (out, dout): (Span, Span),
        forward: &dyn Fn(&mut Reference),
        backward: &dyn Fn(&mut Reference),
    ) {
        let read = |on: &Reference, span| on.bounded(span).iter().map(|x| x.value).collect::<Vec<f64>>();
        forward(&mut self.on);
        backward(&mut self.on);
        for &(value, grad) in pairs {
            let (at, derivative) = (read(&self.on, value), read(&self.on, grad));
            for i in 0..value.len {
                let mut product = |by: f64| {
                    let mut moved = at.clone();
                    moved[i] += by;
                    self.on.write_exact(value, &moved);
                    forward(&mut self.on);
                    let pairs = read(&self.on, out).into_iter().zip(read(&self.on, dout));
                    pairs.map(|(y, dy)| y * dy).sum::<f64>()
                };
                let difference = (product(STEP) - product(-STEP)) / (2.0 * STEP);
                assert!(
                    (difference - derivative[i]).abs() <= TOLERANCE * (1.0 + difference.abs()),
                    "{name}, element {i}: {} is not {difference}",
                    derivative[i]
                );
            }
            self.on.write_exact(value, &at);
        }
    }
}

fn span(map: Map) -> Span {
    Span { at: map.at, len: map.shape.len() }
}

fn set<T>(to: T) -> Sink<T> {
    Sink { to, add: false }
}

#[test]
fn convolution_derivatives_are_those_of_the_forward_pass() {
    for (kernel, stride, padding) in
        [(1, 1, 0), (1, 2, 0), (3, 1, 1), (3, 2, 1), (3, 3, 2), (5, 2, 0), (5, 3, 4), (7, 2, 3)]
    {
        let (s, conv) = (Shape::images(2, 2, 6, 5), Conv { stride, padding });
        let size = |size: usize| (size + 2 * padding - kernel) / stride + 1;
        let mut bench = Bench::new();
        let w = bench.weight([3, 2, kernel, kernel]);
        let out = Shape::images(2, 3, size(6), size(5));
        let [x, dx, y, dy] = [s, s, out, out].map(|shape| bench.map(shape));
        bench.check(
            &format!("conv2d {kernel}, {conv:?}"),
            &[(span(x), span(dx)), (w.value, w.grad)],
            (span(y), span(dy)),
            &|on| {
                on.effective_weights(Effective::Deterministic, &[]).unwrap();
                on.conv2d(x, w, conv, y).unwrap();
            },
            &|on| {
                on.conv2d_grad_input(dy, w, conv, set(dx)).unwrap();
                on.conv2d_grad_weight(x, dy, w, conv, false).unwrap();
            },
        );
    }
}

#[test]
fn batch_norm_derivatives_are_those_of_the_forward_pass() {
    let shapes =
        [(Shape::images(3, 2, 2, 3), false), (Shape::images(5, 3, 1, 1), true), (Shape::images(2, 1, 4, 3), true)];
    for ((s, relu), residual) in shapes.into_iter().flat_map(|case| [false, true].map(|residual| (case, residual))) {
        let mut bench = Bench::new();
        let [x, dx, y, dy, r, dr] = [s; 6].map(|shape| bench.map(shape));
        let [scale, dscale, shift, dshift, mean] = [1, 2, 3, 4, 5].map(|seed| bench.span(&values(s.c, seed)));
        let (running_variance, batch) = (bench.span(&vec![1.0; s.c]), bench.span(&vec![0.0; 2 * s.c]));
        let (shortcut, dshortcut) = (residual.then_some(r), residual.then_some(set(dr)));
        let bn = BatchNorm {
            x,
            scale,
            shift,
            running_mean: mean,
            running_variance,
            batch,
            epsilon: 1e-2,
            residual: shortcut,
            relu,
        };
        let mut pairs = vec![(span(x), span(dx)), (scale, dscale), (shift, dshift)];
        if residual {
            pairs.push((span(r), span(dr)));
        }
        bench.check(
            &format!("batch_norm of {s}, relu {relu}, residual {residual}"),
            &pairs,
            (span(y), span(dy)),
            &|on| on.batch_norm(&bn, y).unwrap(),
            &|on| on.batch_norm_grad(&bn, dy, Some(set(dx)), dshortcut, set(dscale), set(dshift)).unwrap(),
        );
    }
}

type Pass = Box<dyn Fn(&mut Reference, Map, Map) -> crate::Result<()>>;

/// The ops of one map without parameters: (name, shape of the result, forward (x, y), backward (dy, dx)).
#[test]
fn derivatives_of_the_other_ops_are_those_of_their_forward_passes() {
    let s = Shape::images(3, 4, 5, 4);
    let pool = Conv { stride: 2, padding: 1 };
    let cases: [(&str, Shape, Pass, Pass); 5] = [
        (
            "dropout",
            s,
            Box::new(|on, x, y| on.dropout(x, 0.4, 1, set(y))),
            Box::new(|on, dy, dx| on.dropout(dy, 0.4, 1, set(dx))),
        ),
        (
            "average_pool",
            Shape::features(3, 4),
            Box::new(|on, x, y| on.average_pool(x, y)),
            Box::new(|on, dy, dx| on.average_pool_grad(dy, set(dx))),
        ),
        (
            "flatten",
            Shape::features(3, 80),
            Box::new(|on, x, y| on.flatten(x, y)),
            Box::new(|on, dy, dx| on.flatten_grad(dy, set(dx))),
        ),
        (
            "add",
            s,
            Box::new(|on, x, y| on.add(x, x, y)),
            Box::new(|on, dy, dx| on.copy(dy, set(dx)).and_then(|()| on.copy(dy, Sink { to: dx, add: true }))),
        ),
        ("copy", s, Box::new(|on, x, y| on.copy(x, set(y))), Box::new(|on, dy, dx| on.copy(dy, set(dx)))),
    ];
    for (name, out, forward, backward) in cases {
        let mut bench = Bench::new();
        let [x, dx, y, dy] = [s, s, out, out].map(|shape| bench.map(shape));
        bench.check(name, &[(span(x), span(dx))], (span(y), span(dy)), &|on| forward(on, x, y).unwrap(), &|on| {
            backward(on, dy, dx).unwrap();
        });
    }
    // Those whose derivative looks at a value.
    let mut bench = Bench::new();
    let [x, dx, y, dy] = [s; 4].map(|shape| bench.map(shape));
    bench.check("relu", &[(span(x), span(dx))], (span(y), span(dy)), &|on| on.relu(x, y).unwrap(), &|on| {
        on.relu_grad(y, dy, set(dx)).unwrap();
    });
    let [y, dy] = [Shape::images(3, 4, 3, 2); 2].map(|shape| bench.map(shape));
    bench.check(
        "max_pool",
        &[(span(x), span(dx))],
        (span(y), span(dy)),
        &|on| on.max_pool(x, 3, pool, y).unwrap(),
        &|on| {
            on.max_pool_grad(x, dy, 3, pool, set(dx)).unwrap();
        },
    );
    let [y, dy] = [s; 2].map(|shape| bench.map(shape));
    let [bias, dbias] = [1, 2].map(|seed| bench.span(&values(s.c, seed)));
    bench.check("bias", &[(bias, dbias)], (span(y), span(dy)), &|on| on.add_bias(x, bias, y).unwrap(), &|on| {
        on.bias_grad(dy, set(dbias)).unwrap();
    });
}

#[test]
fn the_derivative_of_cross_entropy_is_that_of_the_loss() {
    let s = Shape::features(4, 5);
    let mut bench = Bench::new();
    let [x, dx, t] = [s; 3].map(|shape| bench.map(shape));
    let mut targets: Vec<f64> = values(s.len(), 9).iter().map(|x| f64::from(x.abs())).collect();
    for row in targets.chunks_mut(s.c) {
        let sum: f64 = row.iter().sum();
        row.iter_mut().for_each(|t| *t /= sum);
    }
    bench.on.write_exact(span(t), &targets);
    let (loss, one) = (bench.span(&[0.0; 2]), bench.span(&[1.0, 0.0]));
    bench.check(
        "cross-entropy",
        &[(span(x), span(dx))],
        (loss, one),
        &|on| on.softmax_cross_entropy(x, t, loss).unwrap(),
        &|on| on.softmax_cross_entropy_grad(x, t, set(dx)).unwrap(),
    );
}
