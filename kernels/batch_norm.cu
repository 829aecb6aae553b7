// Batch normalisation, with the residual addition and the ReLU that may follow: forward, by running statistics, and backward.
//
//   in, out      x, residual, y and their gradients: tensors (tensor.cuh) of one shape, one that is not wanted has address 0;
//                scale, shift, running statistics and gradients of parameters f32 (channels); batch f32 (2, channels): the batch's
//                mean and 1 / sqrt(variance + epsilon), written forward, read backward
//   between      partial f32 (tiles, 2, 8 groups); coefficients f32 (3, 8 groups), those of dx as a function of dy and x
//   Passes       forward reads x twice and the residual once and writes y; backward reads x, dy and, under ReLU, the residual twice
//                and writes dx and dresidual. Three launches each: sums of tiles, their end, the map
//   Work         one tile (channels.cuh) a block
//   Precision    sums are of x less the channel's first value, which keeps the variance exact where the mean is far larger than
//                the spread; up to 16 additions in f32, the rest in f64
//   Determinism  the tree of additions follows from the shape
//   Equals       backend/cpu/batch_norm.rs, within rounding
//   Launch       256 threads; the grid of channels.cuh, for what finishes sums `groups` blocks; up to 16 KB of shared memory
#include "channels.cuh"
#include "step.cuh"

// y = a x + b for eight channels; 0 for those that pad, which makes their y and all their gradients 0.
struct Affine {
    Vector a, b;
    __device__ __forceinline__ float operator()(u32 k, float x) const { return fmaf(x, a.v[k], b.v[k]); }
};

// Normalising by these statistics, then gamma and beta. Forward and backward call the same, so that ReLU's gate agrees with
// its result on every value.
__device__ __forceinline__ void normalise(Affine& f, u32 k, float mean, float inverse, float scale, float shift) {
    f.a.v[k] = scale * inverse;
    f.b.v[k] = fmaf(-mean, f.a.v[k], shift);
}

__device__ __forceinline__ Affine by_batch(const Tensor& x, u32 group, const float* batch, const float* scale, const float* shift) {
    Affine f = {zeros(), zeros()};
    for (u32 k = 0; k < 8; k++) {
        u32 c = group * 8 + k;
        if (c < x.c) normalise(f, k, batch[c], batch[x.c + c], scale[c], shift[c]);
    }
    return f;
}

__device__ __forceinline__ void apply(
    const Affine& f, const Tensor& residual, u32 relu, const Tensor& x, const Tensor& y, const Tile& tile) {
    for (u32 p = tile.first; p < tile.end; p += tile.lanes) {
        u32 i = p * x.groups + tile.group;
        Vector a = load(x, i), r = residual.at ? load(residual, i) : zeros();
        for (u32 k = 0; k < 8; k++) {
            float out = f(k, a.v[k]) + r.v[k];
            // NaN passes, so that divergence shows.
            a.v[k] = relu && out < 0.0f ? 0.0f : out;
        }
        store(y, i, a);
    }
}

// Sums of x - s and of its square, s being the channel's value in the first pixel.
extern "C" __global__ void __launch_bounds__(256) batch_norm_tiles(Tensor x, float* partial) {
    SHARED(space, TileRow[16]);
    Tile tile = tile_of(x);
    Vector first = tile.group < x.groups ? load(x, tile.group) : zeros();
    Vector sum[2] = {zeros(), zeros()};
    for (u32 p = tile.first; p < tile.end; p += tile.lanes) {
        Vector a = load(x, p * x.groups + tile.group);
        for (u32 k = 0; k < 8; k++) {
            float d = a.v[k] - first.v[k];
            sum[0].v[k] += d;
            sum[1].v[k] = fmaf(d, d, sum[1].v[k]);
        }
    }
    add_tile(space, sum, x, tile, partial);
}

// Mean and 1 / sqrt(variance + epsilon) of the batch; moves the running statistics, the variance unbiased.
extern "C" __global__ void __launch_bounds__(256) batch_norm_statistics(
    Tensor x, const float* partial, u32 tiles, float epsilon, const Step* state, float* running_mean, float* running_variance,
    float* batch) {
    SHARED(space, TileTotals[2]);
    double total[2];
    add_tiles(space, partial, tiles, x, total);
    u32 c = blockIdx.x * 8 + threadIdx.x;
    if (threadIdx.x >= 8 || c >= x.c) return;
    double n = pixels(x), shifted = total[0] / n;
    double variance = total[1] / n - shifted * shifted;
    variance = variance < 0.0 ? 0.0 : variance;
    float mean = float(value(x, 0, c) + shifted), momentum = state->statistics_momentum;
    batch[c] = mean;
    batch[x.c + c] = float(1.0 / sqrt(variance + epsilon));
    running_mean[c] += momentum * (mean - running_mean[c]);
    running_variance[c] += momentum * (float(variance * n / (n - 1.0)) - running_variance[c]);
}

extern "C" __global__ void __launch_bounds__(256) batch_norm(
    Tensor x, const float* batch, const float* scale, const float* shift, Tensor residual, u32 relu, Tensor y) {
    Tile tile = tile_of(x);
    apply(by_batch(x, tile.group, batch, scale, shift), residual, relu, x, y, tile);
}

extern "C" __global__ void __launch_bounds__(256) batch_norm_inference(
    Tensor x, const float* mean, const float* variance, float epsilon, const float* scale, const float* shift, Tensor residual,
    u32 relu, Tensor y) {
    Tile tile = tile_of(x);
    Affine f = {zeros(), zeros()};
    for (u32 k = 0; k < 8; k++) {
        u32 c = tile.group * 8 + k;
        if (c < x.c) normalise(f, k, mean[c], 1.0f / sqrtf(variance[c] + epsilon), scale[c], shift[c]);
    }
    apply(f, residual, relu, x, y, tile);
}

// dy where ReLU let the value pass.
__device__ __forceinline__ float gated(const Affine& f, u32 relu, u32 k, float x, float r, float dy) {
    return relu && !(f(k, x) + r > 0.0f) ? 0.0f : dy;
}

// Sums of dy' and of dy' (x - mean), dy' being dy behind ReLU.
extern "C" __global__ void __launch_bounds__(256) batch_norm_grad_tiles(
    Tensor x, Tensor dy, const float* batch, const float* scale, const float* shift, Tensor residual, u32 relu,
    float* partial) {
    SHARED(space, TileRow[16]);
    Tile tile = tile_of(x);
    Affine f = by_batch(x, tile.group, batch, scale, shift);
    Vector mean = zeros();
    for (u32 k = 0; k < 8; k++) {
        u32 c = tile.group * 8 + k;
        if (c < x.c) mean.v[k] = batch[c];
    }
    Vector sum[2] = {zeros(), zeros()};
    for (u32 p = tile.first; p < tile.end; p += tile.lanes) {
        u32 i = p * x.groups + tile.group;
        Vector a = load(x, i), g = load(dy, i), r = relu && residual.at ? load(residual, i) : zeros();
        for (u32 k = 0; k < 8; k++) {
            float passed = gated(f, relu, k, a.v[k], r.v[k], g.v[k]);
            sum[0].v[k] += passed;
            sum[1].v[k] = fmaf(passed, a.v[k] - mean.v[k], sum[1].v[k]);
        }
    }
    add_tile(space, sum, x, tile, partial);
}

// dbeta = sum dy', dgamma = sum dy' x^, and dx = a (dy' - dbeta / m - x^ dgamma / m), a = gamma / sqrt(variance + epsilon), as a
// linear function of dy' and x: coefficients (slope, curve, level).
extern "C" __global__ void __launch_bounds__(256) batch_norm_grad_parameters(
    Tensor x, const float* partial, u32 tiles, const float* batch, const float* scale, float* dscale, u32 add_scale, float* dshift,
    u32 add_shift, float* coefficients) {
    SHARED(space, TileTotals[2]);
    double total[2];
    add_tiles(space, partial, tiles, x, total);
    u32 c = blockIdx.x * 8 + threadIdx.x;
    if (threadIdx.x >= 8) return;
    double slope = 0, curve = 0, level = 0;
    if (c < x.c) {
        double m = pixels(x), inverse = batch[x.c + c], product = total[1] * inverse;
        dscale[c] = (add_scale ? dscale[c] : 0.0f) + float(product);
        dshift[c] = (add_shift ? dshift[c] : 0.0f) + float(total[0]);
        slope = scale[c] * inverse;
        curve = -slope * inverse * product / m;
        level = -slope * total[0] / m - curve * batch[c];
    }
    u32 padded = x.groups * 8;
    coefficients[c] = float(slope);
    coefficients[padded + c] = float(curve);
    coefficients[2 * padded + c] = float(level);
}

extern "C" __global__ void __launch_bounds__(256) batch_norm_grad(
    Tensor x, Tensor dy, const float* batch, const float* scale, const float* shift, Tensor residual, u32 relu,
    const float* coefficients, Tensor dx, u32 add_x, Tensor dresidual, u32 add_residual) {
    Tile tile = tile_of(x);
    if (tile.first >= tile.end) return;
    Affine f = by_batch(x, tile.group, batch, scale, shift);
    u32 padded = x.groups * 8;
    const float* own = coefficients + tile.group * 8;
    Vector slope, curve, level;
    for (u32 k = 0; k < 8; k++) slope.v[k] = own[k], curve.v[k] = own[padded + k], level.v[k] = own[2 * padded + k];
    for (u32 p = tile.first; p < tile.end; p += tile.lanes) {
        u32 i = p * x.groups + tile.group;
        Vector a = load(x, i), g = load(dy, i), r = relu && residual.at ? load(residual, i) : zeros();
        for (u32 k = 0; k < 8; k++) {
            g.v[k] = gated(f, relu, k, a.v[k], r.v[k], g.v[k]);
            a.v[k] = fmaf(g.v[k], slope.v[k], fmaf(a.v[k], curve.v[k], level.v[k]));
        }
        if (dx.at) put(dx, i, a, add_x);
        if (dresidual.at) put(dresidual, i, g, add_residual);
    }
}
