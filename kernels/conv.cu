// Convolutions with masked weights, as implicit products: no im2col buffer. A linear layer is one over single pixels.
//
//   x, y         tensors (tensor.cuh): images (n, h, w) of `groups` pieces of 8 channels
//   w            effective weights (O, kH, kW, I), I padded with zeros to whole pieces: both masks are in them already,
//                applied by the kernel that updates the weights, so that no product looks at a bit
//   dw           f32 (O, kH, kW, I), not padded, as the optimiser has it; written where `mask` (packed bits, 32 elements a word)
//                is set, everywhere when there is none
//   names        _bf16: mma.sync on tensor cores, 64x64 or 128x128 tiles; _f32: fused multiply-adds. Sums are f32.
//
//   pass         rows m of C            columns n       k
//   forward      pixels of y            O               (tap, I)
//   grad_input   pixels of x            I               (tap, O); one part for each residue of (row, column) modulo the stride,
//                                                       which meets only its own taps
//   grad_weight  O                      (tap, I)        pixels of y, in `splits` parts that a second kernel adds in order
//
//   Work         one block a tile of C
//   Determinism  every sum runs over k upwards; parts are added in order
//   Equals       backend/cpu/conv
//   Launch       128 or 256 threads; (row tiles, column tiles, 1 | residues | splits) blocks
#include "product.cuh"

// The same in both directions but for the kernel's size.
struct Filter {
    u32 rows, columns, stride, padding;
};

// Division by a constant of a number below 2^31: multiply, take the high word, shift.
struct Divisor {
    u32 by, multiplier, shift;
};

__device__ __forceinline__ u32 quotient(u32 x, const Divisor& d) { return d.by == 1 ? x : __umulhi(x, d.multiplier) >> d.shift; }

// A place along k = (tap row, tap column, piece of channels).
struct Tap {
    u32 row, column, piece;

    __device__ __forceinline__ void start(u32 k_piece, u32 pieces, u32 columns) {
        u32 tap = k_piece / pieces;
        piece = k_piece % pieces;
        row = tap / columns;
        column = tap % columns;
    }
    __device__ __forceinline__ void advance(u32 pieces, u32 columns) {
        for (piece += K_STEP / 8; piece >= pieces; piece -= pieces)
            if (++column == columns) {
                column = 0;
                row++;
            }
    }
};

// Rows of a product that are pixels, gathered from `t` around an origin: tap (r, c) reads pixel origin + sign (r, c).
template <class S> struct PixelRows {
    static constexpr u32 PIECES = K_STEP / 8, LOADS = S::BM * PIECES / S::THREADS, STRIDE = S::THREADS / PIECES;
    const typename S::T* values;
    u32 h, w, groups, tap_rows, tap_columns;
    int sign;
    u32 image[LOADS];
    int y[LOADS], x[LOADS];
    Tap tap;

    __device__ __forceinline__ void start(const Tensor& t, u32 tap_rows_, u32 tap_columns_, int sign_) {
        values = static_cast<const typename S::T*>(t.at);
        h = t.h, w = t.w, groups = t.groups, tap_rows = tap_rows_, tap_columns = tap_columns_, sign = sign_;
        tap.start(threadIdx.x % PIECES, groups, tap_columns);
    }
    __device__ __forceinline__ void load(typename S::T* tile) {
#pragma unroll
        for (u32 l = 0; l < LOADS; l++) {
            int py = y[l] + sign * (int)tap.row, px = x[l] + sign * (int)tap.column;
            bool valid = tap.row < tap_rows && py >= 0 && py < (int)h && px >= 0 && px < (int)w;
            size_t at = valid ? ((size_t)image[l] + (u32)py * w + (u32)px) * groups + tap.piece : 0;
            bring(tile + place<PIECES>(threadIdx.x / PIECES + l * STRIDE, threadIdx.x % PIECES), values + at * 8, valid);
        }
        tap.advance(groups, tap_columns);
    }
};

// Rows of the weights, k contiguous.
template <class S> struct WeightRows {
    static constexpr u32 PIECES = K_STEP / 8, LOADS = S::BN * PIECES / S::THREADS, STRIDE = S::THREADS / PIECES;
    const typename S::T* values;
    u32 first, count, length, piece;

    __device__ __forceinline__ void load(typename S::T* tile) {
#pragma unroll
        for (u32 l = 0; l < LOADS; l++) {
            u32 r = threadIdx.x / PIECES + l * STRIDE;
            bool valid = first + r < count && piece < length;
            size_t at = valid ? (size_t)(first + r) * length + piece : 0;
            bring(tile + place<PIECES>(r, threadIdx.x % PIECES), values + at * 8, valid);
        }
        piece += PIECES;
    }
};

__device__ __forceinline__ void write_pair(const Tensor& t, size_t at, float low, float high, u32 add) {
    if (t.bf16) {
        u32* to = static_cast<u32*>(t.at) + at / 2;
        if (add) {
            float l, h;
            unpack_bf16(*to, l, h);
            low = l + low, high = h + high;
        }
        *to = pack_bf16(low, high);
    } else {
        float* to = static_cast<float*>(t.at) + at;
        if (add) low = to[0] + low, high = to[1] + high;
        to[0] = low, to[1] = high;
    }
}

template <class S> __device__ __forceinline__ void forward(const Tensor& x, const void* w, const Tensor& y, const Filter& filter) {
    u32 rows = pixels(y), row0 = blockIdx.x * S::BM, column0 = blockIdx.y * S::BN;
    PixelRows<S> a;
    a.start(x, filter.rows, filter.columns, 1);
#pragma unroll
    for (u32 l = 0; l < a.LOADS; l++) {
        u32 row = row0 + threadIdx.x / a.PIECES + l * a.STRIDE, pixel = row % (y.h * y.w);
        // Rows behind the last get a place that no tap brings back into an image.
        a.image[l] = row / (y.h * y.w) * (x.h * x.w);
        a.y[l] = row < rows ? (int)(pixel / y.w * filter.stride) - (int)filter.padding : -(1 << 30);
        a.x[l] = (int)(pixel % y.w * filter.stride) - (int)filter.padding;
    }
    u32 length = filter.rows * filter.columns * x.groups;
    WeightRows<S> b = {static_cast<const typename S::T*>(w), column0, y.c, length, threadIdx.x % (K_STEP / 8)};
    Sums<S> sums;
    product<S, false, false>(div_up(length * 8, K_STEP), a, b, sums);
    u32 width = y.groups * 8;
    sums.each_pair([&](u32 r, u32 c, float low, float high) {
        if (row0 + r < rows && column0 + c < width) write_pair(y, (size_t)(row0 + r) * width + column0 + c, low, high, 0);
    });
}

// The weights of one residue's taps, by k: row (tap, o) holds the input channels.
template <class S> struct WeightsByOutput {
    static constexpr u32 PIECES = S::BN / 8, LOADS = K_STEP * PIECES / S::THREADS, STRIDE = S::THREADS / PIECES;
    const typename S::T* values;
    u32 outputs, out_groups, in_groups, first_row, first_column, stride, rows, columns, tap_columns, group;
    Tap tap[LOADS];

    __device__ __forceinline__ void load(typename S::T* tile) {
#pragma unroll
        for (u32 l = 0; l < LOADS; l++) {
            u32 k = threadIdx.x / PIECES + l * STRIDE, o = tap[l].piece * 8 + k % 8;
            u32 r = first_row + tap[l].row * stride, c = first_column + tap[l].column * stride;
            bool valid = r < rows && o < outputs && group < in_groups;
            size_t at = valid ? ((size_t)(o * rows + r) * columns + c) * in_groups + group : 0;
            bring(tile + place<PIECES>(k, threadIdx.x % PIECES), values + at * 8, valid);
            tap[l].advance(out_groups, tap_columns);
        }
    }
};

template <class S>
__device__ __forceinline__ void grad_input(const Tensor& dy, const void* w, const Tensor& dx, const Filter& filter, u32 add) {
    // Pixel i of x meets the taps r for which i + padding - r is a multiple of the stride: those of one residue.
    u32 stride = filter.stride, residue_y = blockIdx.z / stride, residue_x = blockIdx.z % stride;
    u32 first_y = (residue_y + stride - filter.padding % stride) % stride, first_x = (residue_x + stride - filter.padding % stride) % stride;
    u32 count_y = first_y < dx.h ? div_up(dx.h - first_y, stride) : 0, count_x = first_x < dx.w ? div_up(dx.w - first_x, stride) : 0;
    u32 tap_rows = residue_y < filter.rows ? div_up(filter.rows - residue_y, stride) : 0;
    u32 tap_columns = residue_x < filter.columns ? div_up(filter.columns - residue_x, stride) : 0;
    u32 rows = dx.n * count_y * count_x, row0 = blockIdx.x * S::BM, column0 = blockIdx.y * S::BN;
    if (row0 >= rows) return;
    u32 taps = tap_rows * tap_columns;
    PixelRows<S> a;
    a.start(dy, tap_rows, max(tap_columns, 1u), -1);
#pragma unroll
    for (u32 l = 0; l < a.LOADS; l++) {
        u32 row = row0 + threadIdx.x / a.PIECES + l * a.STRIDE, pixel = row % (count_y * count_x);
        u32 i = first_y + pixel / count_x * stride, j = first_x + pixel % count_x * stride;
        a.image[l] = row / (count_y * count_x) * (dy.h * dy.w);
        a.y[l] = row < rows ? (int)((i + filter.padding - residue_y) / stride) : -1;
        a.x[l] = (int)((j + filter.padding - residue_x) / stride);
    }
    WeightsByOutput<S> b;
    b.values = static_cast<const typename S::T*>(w);
    b.outputs = dy.c, b.out_groups = dy.groups, b.in_groups = dx.groups;
    b.first_row = residue_y, b.first_column = residue_x, b.stride = stride;
    b.rows = filter.rows, b.columns = filter.columns, b.tap_columns = max(tap_columns, 1u);
    b.group = column0 / 8 + threadIdx.x % b.PIECES;
#pragma unroll
    for (u32 l = 0; l < b.LOADS; l++) b.tap[l].start((threadIdx.x / b.PIECES + l * b.STRIDE) / 8, dy.groups, b.tap_columns);
    Sums<S> sums;
    product<S, false, true>(div_up(taps * dy.groups * 8, K_STEP), a, b, sums);
    u32 width = dx.groups * 8;
    sums.each_pair([&](u32 r, u32 c, float low, float high) {
        u32 row = row0 + r;
        if (row >= rows || column0 + c >= width) return;
        u32 pixel = row % (count_y * count_x), i = first_y + pixel / count_x * stride, j = first_x + pixel % count_x * stride;
        size_t at = ((size_t)(row / (count_y * count_x) * dx.h + i) * dx.w + j) * width + column0 + c;
        write_pair(dx, at, low, high, add);
    });
}

// dy by k: row k is a pixel and holds the output channels.
template <class S> struct OutputsByPixel {
    static constexpr u32 PIECES = S::BM / 8, LOADS = K_STEP * PIECES / S::THREADS, STRIDE = S::THREADS / PIECES;
    const typename S::T* values;
    u32 groups, group, pixel, end;

    __device__ __forceinline__ void load(typename S::T* tile) {
#pragma unroll
        for (u32 l = 0; l < LOADS; l++) {
            u32 k = threadIdx.x / PIECES + l * STRIDE;
            bool valid = pixel + k < end && group < groups;
            size_t at = valid ? (size_t)(pixel + k) * groups + group : 0;
            bring(tile + place<PIECES>(k, threadIdx.x % PIECES), values + at * 8, valid);
        }
        pixel += K_STEP;
    }
};

// x by k: row k is a pixel of y, and holds for each column (tap, channels) what that tap reads there.
template <class S> struct InputsByPixel {
    static constexpr u32 PIECES = S::BN / 8, LOADS = K_STEP * PIECES / S::THREADS, STRIDE = S::THREADS / PIECES;
    const typename S::T* values;
    u32 h, w, groups, piece, stride, pixel, end;
    int dy, dx;
    bool live;
    Divisor per_image, per_row;

    __device__ __forceinline__ void load(typename S::T* tile) {
#pragma unroll
        for (u32 l = 0; l < LOADS; l++) {
            u32 k = threadIdx.x / PIECES + l * STRIDE, at = pixel + k;
            u32 n = quotient(at, per_image), rest = at - n * per_image.by, row = quotient(rest, per_row);
            int y = (int)(row * stride) + dy, x = (int)((rest - row * per_row.by) * stride) + dx;
            bool valid = live && at < end && y >= 0 && y < (int)h && x >= 0 && x < (int)w;
            size_t from = valid ? ((size_t)(n * h + (u32)y) * w + (u32)x) * groups + piece : 0;
            bring(tile + place<PIECES>(k, threadIdx.x % PIECES), values + from * 8, valid);
        }
        pixel += K_STEP;
    }
};

template <class S>
__device__ __forceinline__ void grad_weight(const Tensor& x, const Tensor& dy, float* parts, const Filter& filter,
                                            const Divisor& per_image, const Divisor& per_row, u32 pixels_a_split) {
    u32 all = pixels(dy), begin = blockIdx.z * pixels_a_split, end = min(all, begin + pixels_a_split);
    u32 row0 = blockIdx.x * S::BM, column0 = blockIdx.y * S::BN;
    u32 width = filter.rows * filter.columns * x.groups * 8;
    OutputsByPixel<S> a = {static_cast<const typename S::T*>(dy.at), dy.groups, row0 / 8 + threadIdx.x % (S::BM / 8), begin, end};
    InputsByPixel<S> b;
    b.values = static_cast<const typename S::T*>(x.at);
    b.h = x.h, b.w = x.w, b.groups = x.groups, b.stride = filter.stride, b.pixel = begin, b.end = end;
    b.per_image = per_image, b.per_row = per_row;
    u32 piece = column0 / 8 + threadIdx.x % b.PIECES, tap = piece / x.groups;
    b.live = piece * 8 < width;
    b.piece = piece % x.groups;
    b.dy = (int)(tap / filter.columns) - (int)filter.padding;
    b.dx = (int)(tap % filter.columns) - (int)filter.padding;
    Sums<S> sums;
    product<S, true, true>(div_up(end - begin, K_STEP), a, b, sums);
    float* part = parts + (size_t)blockIdx.z * dy.c * width;
    sums.each_pair([&](u32 r, u32 c, float low, float high) {
        if (row0 + r >= dy.c || column0 + c >= width) return;
        float* to = part + (size_t)(row0 + r) * width + column0 + c;
        to[0] = low, to[1] = high;
    });
}

extern "C" __global__ void __launch_bounds__(128) conv2d_f32(Tensor x, const void* w, Tensor y, Filter filter) {
    forward<Exact>(x, w, y, filter);
}

extern "C" __global__ void __launch_bounds__(128) conv2d_bf16_64(Tensor x, const void* w, Tensor y, Filter filter) {
    forward<Small>(x, w, y, filter);
}

extern "C" __global__ void __launch_bounds__(256) conv2d_bf16_128(Tensor x, const void* w, Tensor y, Filter filter) {
    forward<Large>(x, w, y, filter);
}

extern "C" __global__ void __launch_bounds__(128) conv2d_grad_input_f32(Tensor dy, const void* w, Tensor dx, Filter filter, u32 add) {
    grad_input<Exact>(dy, w, dx, filter, add);
}

extern "C" __global__ void __launch_bounds__(128) conv2d_grad_input_bf16_64(Tensor dy, const void* w, Tensor dx, Filter filter, u32 add) {
    grad_input<Small>(dy, w, dx, filter, add);
}

extern "C" __global__ void __launch_bounds__(256) conv2d_grad_input_bf16_128(Tensor dy, const void* w, Tensor dx, Filter filter, u32 add) {
    grad_input<Large>(dy, w, dx, filter, add);
}

extern "C" __global__ void __launch_bounds__(128)
    conv2d_grad_weight_f32(Tensor x, Tensor dy, float* parts, Filter filter, Divisor per_image, Divisor per_row, u32 pixels_a_split) {
    grad_weight<Exact>(x, dy, parts, filter, per_image, per_row, pixels_a_split);
}

extern "C" __global__ void __launch_bounds__(128)
    conv2d_grad_weight_bf16_64(Tensor x, Tensor dy, float* parts, Filter filter, Divisor per_image, Divisor per_row, u32 pixels_a_split) {
    grad_weight<Small>(x, dy, parts, filter, per_image, per_row, pixels_a_split);
}

extern "C" __global__ void __launch_bounds__(256)
    conv2d_grad_weight_bf16_128(Tensor x, Tensor dy, float* parts, Filter filter, Divisor per_image, Divisor per_row, u32 pixels_a_split) {
    grad_weight<Large>(x, dy, parts, filter, per_image, per_row, pixels_a_split);
}

// dw = the sum of the parts, in order, without their padding; one thread an element.
extern "C" __global__ void __launch_bounds__(256)
    sum_parts(const float* parts, u32 splits, float* dw, const u32* mask, u32 elements, u32 inputs, u32 padded, u32 add) {
    u32 i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= elements || (mask && !(mask[i / 32] >> i % 32 & 1))) return;
    size_t from = (size_t)(i / inputs) * padded + i % inputs, part = (size_t)(elements / inputs) * padded;
    float sum = 0.0f;
    for (u32 s = 0; s < splits; s++) sum += parts[s * part + from];
    dw[i] = add ? dw[i] + sum : sum;
}
