//! The layers of the small convnet in f64, each forward beside its derivative, written for reading, not for speed.

/// A batch of feature maps in (N, H, W, C) order, so that a kernel's elements meet it in their (O, kH, kW, I) order.
#[derive(Clone)]
pub(crate) struct Maps {
    pub(crate) n: usize,
    pub(crate) h: usize,
    pub(crate) w: usize,
    pub(crate) c: usize,
    pub(crate) data: Vec<f64>,
}

impl Maps {
    fn zeros(n: usize, h: usize, w: usize, c: usize) -> Self {
        Maps { n, h, w, c, data: vec![0.0; n * h * w * c] }
    }

    /// Maps of the same shape over other values.
    fn with(&self, data: Vec<f64>) -> Self {
        assert_eq!(data.len(), self.data.len());
        Maps { data, ..*self }
    }

    /// The `c` values of each pixel.
    fn pixels(&self) -> impl Iterator<Item = &[f64]> {
        self.data.chunks_exact(self.c)
    }
}

/// A convolution with an odd square kernel and a zero border of kernel / 2; weights in (O, kH, kW, I) order.
///
/// `y[n, p, q, o] = sum over r, s, i of w[o, r, s, i] x[n, p stride + r - kernel / 2, q stride + s - kernel / 2, i]`.
/// A linear layer is the 1x1 case on 1x1 maps.
#[derive(Clone, Copy)]
pub(crate) struct Conv {
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
    pub(crate) kernel: usize,
    pub(crate) stride: usize,
}

impl Conv {
    pub(crate) fn forward(self, x: &Maps, w: &[f64]) -> Maps {
        let mut y = Maps::zeros(x.n, self.output_side(x.h), self.output_side(x.w), self.outputs);
        self.for_each_tap(x, |from, to, tap| {
            for o in 0..self.outputs {
                for i in 0..self.inputs {
                    y.data[to + o] += w[self.weight(o, tap) + i] * x.data[from + i];
                }
            }
        });
        y
    }

    /// (dL/dx, dL/dw), given dy = dL/dy. Every element of dw is there: it is the gradient of the dense kernel.
    pub(crate) fn backward(self, x: &Maps, w: &[f64], dy: &Maps) -> (Maps, Vec<f64>) {
        let (mut dx, mut dw) = (x.with(vec![0.0; x.data.len()]), vec![0.0; w.len()]);
        self.for_each_tap(x, |from, to, tap| {
            for o in 0..self.outputs {
                for i in 0..self.inputs {
                    dx.data[from + i] += w[self.weight(o, tap) + i] * dy.data[to + o];
                    dw[self.weight(o, tap) + i] += x.data[from + i] * dy.data[to + o];
                }
            }
        });
        (dx, dw)
    }

    fn output_side(self, side: usize) -> usize {
        (side - 1) / self.stride + 1
    }

    /// The index of w[o, tap, 0].
    fn weight(self, o: usize, tap: usize) -> usize {
        (o * self.kernel * self.kernel + tap) * self.inputs
    }

    /// Calls `visit(index of x[n, row, column, 0], index of y[n, p, q, 0], tap)` for every tap that falls on the image.
    fn for_each_tap(self, x: &Maps, mut visit: impl FnMut(usize, usize, usize)) {
        assert_eq!(x.c, self.inputs);
        let border = self.kernel / 2;
        let (rows, columns) = (self.output_side(x.h), self.output_side(x.w));
        for n in 0..x.n {
            for (p, q) in grid(rows, columns) {
                for (r, s) in grid(self.kernel, self.kernel) {
                    let (row, column) = (p * self.stride + r, q * self.stride + s);
                    if (border..x.h + border).contains(&row) && (border..x.w + border).contains(&column) {
                        let from = (n * x.h + row - border) * x.w + column - border;
                        let to = (n * rows + p) * columns + q;
                        visit(from * self.inputs, to * self.outputs, r * self.kernel + s);
                    }
                }
            }
        }
    }
}

fn grid(rows: usize, columns: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..rows).flat_map(move |row| (0..columns).map(move |column| (row, column)))
}

/// Batch norm in training mode: `y = gamma (x - mean) / sqrt(variance + 1e-5) + beta` per channel.
pub(crate) struct BatchNorm {
    /// (x - mean) / sqrt(variance + eps), kept for the derivative.
    normalised: Maps,
    inverse_deviation: Vec<f64>,
    /// The batch's mean of each channel.
    pub(crate) mean: Vec<f64>,
    /// The batch's variance of each channel with divisor count - 1, as running statistics take it.
    pub(crate) unbiased_variance: Vec<f64>,
}

impl BatchNorm {
    const EPS: f64 = 1e-5;

    pub(crate) fn forward(x: &Maps, gamma: &[f64], beta: &[f64]) -> (Maps, BatchNorm) {
        let count = (x.n * x.h * x.w) as f64;
        let (mut mean, mut squares) = (vec![0.0; x.c], vec![0.0; x.c]);
        for pixel in x.pixels() {
            mean.iter_mut().zip(pixel).for_each(|(mean, v)| *mean += v / count);
        }
        for pixel in x.pixels() {
            for c in 0..x.c {
                squares[c] += (pixel[c] - mean[c]).powi(2);
            }
        }
        let inverse_deviation: Vec<f64> = squares.iter().map(|s| 1.0 / (s / count + Self::EPS).sqrt()).collect();
        let unbiased_variance = squares.iter().map(|s| s / (count - 1.0)).collect();
        let channelwise = |x: &Maps, f: &dyn Fn(usize, f64) -> f64| {
            x.with(x.data.iter().enumerate().map(|(at, &v)| f(at % x.c, v)).collect())
        };
        let normalised = channelwise(x, &|c, v| (v - mean[c]) * inverse_deviation[c]);
        let y = channelwise(&normalised, &|c, v| gamma[c] * v + beta[c]);
        (y, BatchNorm { normalised, inverse_deviation, mean, unbiased_variance })
    }

    /// (dx, dgamma, dbeta). With z the normalised values, `dbeta = sum dy`, `dgamma = sum dy z` and
    /// `dx = gamma / deviation (dy - dbeta / count - z dgamma / count)` (Ioffe and Szegedy 2015, section 3).
    pub(crate) fn backward(&self, gamma: &[f64], dy: &Maps) -> (Maps, Vec<f64>, Vec<f64>) {
        let z = &self.normalised;
        let (count, channels) = ((z.n * z.h * z.w) as f64, z.c);
        let (mut dgamma, mut dbeta) = (vec![0.0; channels], vec![0.0; channels]);
        for (z, dy) in z.pixels().zip(dy.pixels()) {
            for c in 0..channels {
                dgamma[c] += dy[c] * z[c];
                dbeta[c] += dy[c];
            }
        }
        let dx = z.data.iter().zip(&dy.data).enumerate().map(|(at, (z, dy))| {
            let c = at % channels;
            gamma[c] * self.inverse_deviation[c] * (dy - dbeta[c] / count - z * dgamma[c] / count)
        });
        (z.with(dx.collect()), dgamma, dbeta)
    }
}

pub(crate) fn relu(x: &Maps) -> Maps {
    x.with(x.data.iter().map(|&v| v.max(0.0)).collect())
}

/// dx, from the output y; 0 where y is 0.
pub(crate) fn relu_backward(y: &Maps, dy: &Maps) -> Maps {
    y.with(y.data.iter().zip(&dy.data).map(|(&y, &dy)| if y > 0.0 { dy } else { 0.0 }).collect())
}

/// The mean of each channel over the whole map, as (N, 1, 1, C).
pub(crate) fn global_average_pool(x: &Maps) -> Maps {
    let mut y = Maps::zeros(x.n, 1, 1, x.c);
    for (at, pixel) in x.pixels().enumerate() {
        let image = at / (x.h * x.w);
        let means = &mut y.data[image * x.c..][..x.c];
        means.iter_mut().zip(pixel).for_each(|(mean, v)| *mean += v / (x.h * x.w) as f64);
    }
    y
}

/// dx of maps shaped like `x`.
pub(crate) fn global_average_pool_backward(x: &Maps, dy: &Maps) -> Maps {
    let area = x.h * x.w;
    x.with((0..x.data.len()).map(|at| dy.data[at / (area * x.c) * x.c + at % x.c] / area as f64).collect())
}

/// Softmax cross-entropy: (mean loss over the batch, dL/dlogits = (softmax - one-hot) / N).
pub(crate) fn cross_entropy(logits: &Maps, labels: &[u8]) -> (f64, Maps) {
    assert_eq!(logits.data.len(), labels.len() * logits.c, "one row of logits for each label");
    let (mut loss, mut gradient) = (0.0, Vec::with_capacity(logits.data.len()));
    for (row, &label) in logits.pixels().zip(labels) {
        let largest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let log_sum = largest + row.iter().map(|v| (v - largest).exp()).sum::<f64>().ln();
        loss += (log_sum - row[usize::from(label)]) / labels.len() as f64;
        gradient.extend(row.iter().enumerate().map(|(class, v)| {
            let one_hot = if class == usize::from(label) { 1.0 } else { 0.0 };
            ((v - log_sum).exp() - one_hot) / labels.len() as f64
        }));
    }
    (loss, logits.with(gradient))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: &[f64], b: &[f64]) {
        assert_eq!(a.len(), b.len());
        assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-12), "{a:?} is not {b:?}");
    }

    // By hand: a kernel with a single one in its upper left corner moves the image down and right by one.
    #[test]
    fn a_corner_tap_shifts_the_image() {
        let x = Maps { n: 1, h: 3, w: 3, c: 1, data: (1..=9).map(f64::from).collect() };
        let w = [1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0];
        let conv = Conv { inputs: 1, outputs: 1, kernel: 3, stride: 1 };
        close(&conv.forward(&x, &w).data, &[0.0, 0.0, 0.0, 0.0, 1.0, 2.0, 0.0, 4.0, 5.0]);
    }

    // By hand: with stride 2 on 4x4 the centres are rows and columns 0 and 2; a kernel of ones adds what it covers.
    #[test]
    fn a_strided_convolution_is_centred_on_even_pixels() {
        let x = Maps { n: 1, h: 4, w: 4, c: 1, data: (0..16).map(f64::from).collect() };
        let y = Conv { inputs: 1, outputs: 1, kernel: 3, stride: 2 }.forward(&x, &[1.0; 9]);
        assert_eq!((y.h, y.w), (2, 2));
        let corners = [0.0 + 1.0 + 4.0 + 5.0, 1.0 + 2.0 + 3.0 + 5.0 + 6.0 + 7.0, 4.0 + 5.0 + 8.0 + 9.0 + 12.0 + 13.0];
        close(&y.data, &[corners[0], corners[1], corners[2], 90.0]);
    }

    #[test]
    fn a_linear_layer_is_a_one_by_one_convolution() {
        let x = Maps { n: 2, h: 1, w: 1, c: 2, data: vec![1.0, 2.0, 3.0, 4.0] };
        let y = Conv { inputs: 2, outputs: 3, kernel: 1, stride: 1 }.forward(&x, &[1.0, 0.0, 0.0, 1.0, 10.0, 1.0]);
        close(&y.data, &[1.0, 2.0, 12.0, 3.0, 4.0, 34.0]);
    }

    // Values 1 and 3 of one channel: mean 2, biased variance 1, unbiased 2.
    #[test]
    fn batch_norm_divides_by_the_biased_variance_and_reports_the_unbiased() {
        let x = Maps { n: 2, h: 1, w: 1, c: 1, data: vec![1.0, 3.0] };
        let (y, norm) = BatchNorm::forward(&x, &[5.0], &[0.5]);
        let z = 1.0 / (1.0f64 + 1e-5).sqrt();
        close(&y.data, &[0.5 - 5.0 * z, 0.5 + 5.0 * z]);
        close(&norm.mean, &[2.0]);
        close(&norm.unbiased_variance, &[2.0]);
    }

    #[test]
    fn equal_logits_lose_the_logarithm_of_the_number_of_classes() {
        let logits = Maps { n: 2, h: 1, w: 1, c: 4, data: vec![700.0; 8] };
        let (loss, gradient) = cross_entropy(&logits, &[0, 3]);
        close(&[loss], &[4.0f64.ln()]);
        close(&gradient.data, &[-0.375, 0.125, 0.125, 0.125, 0.125, 0.125, 0.125, -0.375]);
    }
}
