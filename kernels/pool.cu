// Pooling and its gradients.
//
//   in, out      tensors (tensor.cuh), each f32 or bf16
//   Work         max_pool: one thread a vector of 8 channels of y. max_pool_grad: one a vector of dx, which looks again for the first
//                maximum of every window that it lies in: nothing is stored forward and no two threads write one place
//                average_pool: a block takes up to 8 vectors of one image; average_pool_grad: one thread a vector of dx
//   Determinism  sums are added in the order of the windows, or in a tree that follows from the shape
//   Equals       backend/cpu/pool.rs: maxima and their gradients bit for bit, means within rounding
//   Launch       256 threads; one for each piece of work, average_pool (images, ceil(groups / width)) blocks and 8 KB of shared memory
#include "channels.cuh"

// The pixels of x that a window covers, as rows and columns [top, bottom) x [left, right).
struct Window {
    u32 top, bottom, left, right;
};

__device__ __forceinline__ Window window_of(const Tensor& x, u32 row, u32 column, u32 size, u32 stride, u32 padding) {
    u32 top = row * stride, left = column * stride;
    return {max(top, padding) - padding, min(top + size, x.h + padding) - padding, max(left, padding) - padding,
            min(left + size, x.w + padding) - padding};
}

// The largest value of each window; NaN wins over everything, so that a diverged value is not hidden.
extern "C" __global__ void __launch_bounds__(256) max_pool(Tensor x, u32 size, u32 stride, u32 padding, Tensor y) {
    u32 i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= vectors(y)) return;
    u32 pixel = i / y.groups, column = pixel % y.w, row = pixel / y.w % y.h, image = pixel / y.w / y.h;
    Window window = window_of(x, row, column, size, stride, padding);
    Vector best;
    for (u32 k = 0; k < 8; k++) best.v[k] = -INFINITY_F32;
    for (u32 r = window.top; r < window.bottom; r++)
        for (u32 c = window.left; c < window.right; c++) {
            Vector a = load(x, ((image * x.h + r) * x.w + c) * x.groups + i % y.groups);
            for (u32 k = 0; k < 8; k++)
                if (a.v[k] > best.v[k] || a.v[k] != a.v[k]) best.v[k] = a.v[k];
        }
    store(y, i, best);
}

// Which of 8 channels have their first maximum of a window at pixel `here`, whose values are `mine`, as bits: fewer registers than
// the maxima and their places would take.
__device__ __forceinline__ u32 first_in_window(
    const Tensor& x, u32 image, u32 group, const Window& window, u32 here, const Vector& mine) {
    u32 first = 0xff;
    for (u32 row = window.top; row < window.bottom; row++)
        for (u32 column = window.left; column < window.right; column++) {
            u32 pixel = row * x.w + column;
            if (pixel == here) continue;
            Vector a = load(x, (image * x.h * x.w + pixel) * x.groups + group);
            for (u32 k = 0; k < 8; k++) {
                float m = mine.v[k];
                // The last NaN of a window stays; a number must be larger than all before it and no smaller than those behind.
                bool beaten = a.v[k] != a.v[k] ? pixel > here || m == m : pixel < here ? a.v[k] >= m : a.v[k] > m;
                first &= ~(u32(beaten) << k);
            }
        }
    return first;
}

extern "C" __global__ void __launch_bounds__(256) max_pool_grad(
    Tensor x, Tensor dy, u32 size, u32 stride, u32 padding, Tensor dx, u32 add) {
    u32 i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= vectors(dx)) return;
    u32 group = i % dx.groups, pixel = i / dx.groups, column = pixel % dx.w, row = pixel / dx.w % dx.h, image = pixel / dx.w / dx.h;
    u32 here = row * dx.w + column;
    Vector sum = add ? load(dx, i) : zeros();
    // The windows that cover this pixel: out * stride <= pixel + padding < out * stride + size.
    u32 up = row + padding, across = column + padding;
    u32 row_from = up >= size ? (up - size) / stride + 1 : 0, row_to = min(up / stride + 1, dy.h);
    u32 column_from = across >= size ? (across - size) / stride + 1 : 0, column_to = min(across / stride + 1, dy.w);
    Vector mine = load(x, i);
    for (u32 r = row_from; r < row_to; r++)
        for (u32 c = column_from; c < column_to; c++) {
            u32 first = first_in_window(x, image, group, window_of(x, r, c, size, stride, padding), here, mine);
            Vector g = load(dy, ((image * dy.h + r) * dy.w + c) * dy.groups + group);
            for (u32 k = 0; k < 8; k++)
                if (first >> k & 1) sum.v[k] += g.v[k];
        }
    store(dx, i, sum);
}

// y = scale sum of x over each channel's pixels.
extern "C" __global__ void __launch_bounds__(256) average_pool(Tensor x, float scale, Tensor y) {
    SHARED(space, TileRow[8]);
    u32 area = x.h * x.w, width = tile_width(x), group = blockIdx.y * width + threadIdx.x % width;
    Vector sum[1] = {zeros()};
    if (group < x.groups)
        for (u32 p = threadIdx.x / width; p < area; p += TILE_THREADS / width) {
            Vector a = load(x, (blockIdx.x * area + p) * x.groups + group);
            for (u32 k = 0; k < 8; k++) sum[0].v[k] += a.v[k];
        }
    add_threads(space, sum, width);
    if (threadIdx.x >= width || group >= x.groups) return;
    Vector mean;
    for (u32 k = 0; k < 8; k++) mean.v[k] = space[k][threadIdx.x] * scale;
    store(y, blockIdx.x * y.groups + group, mean);
}

// dx = scale dy, the same for all pixels of an image.
extern "C" __global__ void __launch_bounds__(256) average_pool_grad(Tensor dy, float scale, Tensor dx, u32 add) {
    u32 i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= vectors(dx)) return;
    u32 image = i / dx.groups / (dx.h * dx.w);
    Vector g = load(dy, image * dy.groups + i % dx.groups);
    for (u32 k = 0; k < 8; k++) g.v[k] *= scale;
    put(dx, i, g, add);
}
