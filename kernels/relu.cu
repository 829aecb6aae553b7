#include "port.cuh"
extern "C" __global__ void __launch_bounds__(256) relu(const float* x, float* y, u32 n) {
    u32 i = blockIdx.x * 256 + threadIdx.x;
    if (i < n) y[i] = x[i] > 0.f ? x[i] : 0.f;
}
