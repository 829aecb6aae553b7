// What touches every element once: bias, ReLU, sums, copies.
//
//   in, out      tensors of one shape (tensor.cuh), each f32 or bf16
//   Work         one thread a vector of 8 channels
//   Determinism  no value depends on another thread
//   Equals       backend/cpu/pointwise.rs
//   Launch       256 threads, ceil(vectors / 256) blocks
#include "tensor.cuh"

#define VECTOR_OR_RETURN(i, tensor)                 \
    u32 i = blockIdx.x * blockDim.x + threadIdx.x; \
    if (i >= vectors(tensor)) return

// y = max(0, x); NaN stays NaN, so that divergence shows.
extern "C" __global__ void __launch_bounds__(256) relu(Tensor x, Tensor y) {
    VECTOR_OR_RETURN(i, y);
    Vector a = load(x, i);
    for (u32 k = 0; k < 8; k++) a.v[k] = a.v[k] < 0.0f ? 0.0f : a.v[k];
    store(y, i, a);
}

// dx = dy where y > 0, else 0.
extern "C" __global__ void __launch_bounds__(256) relu_grad(Tensor y, Tensor dy, Tensor dx, u32 add) {
    VECTOR_OR_RETURN(i, dx);
    Vector a = load(y, i), g = load(dy, i);
    for (u32 k = 0; k < 8; k++) g.v[k] = a.v[k] > 0.0f ? g.v[k] : 0.0f;
    put(dx, i, g, add);
}

// y = a + b.
extern "C" __global__ void __launch_bounds__(256) add(Tensor a, Tensor b, Tensor y) {
    VECTOR_OR_RETURN(i, y);
    Vector p = load(a, i), q = load(b, i);
    for (u32 k = 0; k < 8; k++) p.v[k] += q.v[k];
    store(y, i, p);
}

// y = x, or y += x.
extern "C" __global__ void __launch_bounds__(256) copy(Tensor x, Tensor y, u32 add) {
    VECTOR_OR_RETURN(i, y);
    put(y, i, load(x, i), add);
}

// y = x + bias, one bias a channel.
extern "C" __global__ void __launch_bounds__(256) add_bias(Tensor x, const float* bias, Tensor y) {
    VECTOR_OR_RETURN(i, y);
    Vector a = load(x, i);
    u32 first = i % y.groups * 8;
    for (u32 k = 0; k < 8; k++) a.v[k] = first + k < y.c ? a.v[k] + bias[first + k] : 0.0f;
    store(y, i, a);
}
