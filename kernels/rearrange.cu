// What needs to know where a value stands in (N, C, H, W) order: flattening, and dropout, whose draws are numbered in it.
//
//   in, out      tensors (tensor.cuh), each f32 or bf16; rows of features are images of one pixel
//   Work         flatten: one thread a vector of 8 channels of what is written, whose values it gathers
//                dropout: one thread a vector of 8 channels of 4 neighbouring pixels: a draw's 4 words belong to 4 values that
//                follow each other in (N, C, H, W) order, which are mostly the pixels of one channel
//   Determinism  no value depends on another thread
//   Equals       backend/cpu/rearrange.rs, bit for bit
//   Launch       256 threads, one for each piece of work
#include "philox.cuh"
#include "step.cuh"
#include "tensor.cuh"

// Domain::Dropout of src/rng.rs.
constexpr u32 DROPOUT = 5;

// Pixels that a thread of `dropout` treats.
constexpr u32 RUN = 4;

// y = scale x where element i's word, i % 4 of counter (i / 4, step, site), is at least `limit`, else 0.
extern "C" __global__ void __launch_bounds__(256) dropout(
    Tensor x, u32 limit, float scale, u32 site, const Step* state, Tensor y, u32 add) {
    u32 area = x.h * x.w, runs = div_up(area, RUN);
    u32 i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= x.n * runs * x.groups) return;
    u32 group = i % x.groups, run = i / x.groups % runs, image = i / x.groups / runs;
    u32 first = run * RUN, count = min(RUN, area - first);
    u32 channels = min(8u, x.c - group * 8);

    uint2 key = make_uint2(u32(state->seed), u32(state->seed >> 32));
    u32 kept = 0, block = 0xffffffffu;
    u32 words[4] = {};
    for (u32 k = 0; k < channels; k++)
        for (u32 p = 0; p < count; p++) {
            u32 element = (image * x.c + group * 8 + k) * area + first + p;
            if (element / 4 != block) {
                block = element / 4;
                uint4 drawn = philox(make_uint4(block, state->step, site, DROPOUT), key);
                words[0] = drawn.x, words[1] = drawn.y, words[2] = drawn.z, words[3] = drawn.w;
            }
            u32 q = element % 4;
            u32 word = q == 0 ? words[0] : q == 1 ? words[1] : q == 2 ? words[2] : words[3];
            kept |= u32(word >= limit) << (p * 8 + k);
        }
    for (u32 p = 0; p < count; p++) {
        u32 at = (image * area + first + p) * x.groups + group;
        Vector a = load(x, at);
        for (u32 k = 0; k < 8; k++) a.v[k] = kept >> (p * 8 + k) & 1 ? a.v[k] * scale : 0.0f;
        put(y, at, a, add);
    }
}

// Rows y of features in (C, H, W) order from images x.
extern "C" __global__ void __launch_bounds__(256) flatten(Tensor x, Tensor y) {
    u32 i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= vectors(y)) return;
    u32 area = x.h * x.w, image = i / y.groups;
    Vector a = zeros();
    for (u32 k = 0; k < 8; k++) {
        u32 feature = i % y.groups * 8 + k;
        if (feature < y.c) a.v[k] = value(x, image * area + feature % area, feature / area);
    }
    store(y, i, a);
}

// Images dx from rows dy of features in (C, H, W) order.
extern "C" __global__ void __launch_bounds__(256) flatten_grad(Tensor dy, Tensor dx, u32 add) {
    u32 i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= vectors(dx)) return;
    u32 area = dx.h * dx.w, pixel = i / dx.groups;
    Vector g = zeros();
    for (u32 k = 0; k < 8; k++) {
        u32 channel = i % dx.groups * 8 + k;
        if (channel < dx.c) g.v[k] = value(dy, pixel / area, channel * area + pixel % area);
    }
    put(dx, i, g, add);
}
