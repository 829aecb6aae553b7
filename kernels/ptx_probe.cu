// Probes: a kernel for each wrapper of ptx.cuh, which tests compare with the PTX manual, on GPUs and on the CPU.
//
//   in, out      fragments as the lanes hold them, each lane's values one after the other; shared memory in rows of 16 bytes
//   Work         probe_f32_to_bf16: one thread a value; the others: one warp, which runs one instruction
//   Determinism  no value depends on the order of threads
//   Equals       backend/cuda/ptx_probe.rs, where the manual's layouts are written out
//   Launch       32 threads; probe_f32_to_bf16 ceil(n / 32) blocks, the others one block and at most 2.5 KB of shared memory
#include "ptx.cuh"

// y = x as bf16, in the low half.
extern "C" __global__ void __launch_bounds__(32) probe_f32_to_bf16(const float* x, u32* y, u32 n) {
    u32 i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = f32_to_bf16(x[i]);
}

// Loads four matrices from 32 rows of 16 bytes; lane l gives the address of row `order[l]`.
extern "C" __global__ void __launch_bounds__(32) probe_ldmatrix_x4(const u32* rows, const u32* order, u32 transposed, u32* out) {
    SHARED(tile, uint4[32]);
    u32 lane = threadIdx.x, r[4];
    tile[lane] = reinterpret_cast<const uint4*>(rows)[lane];
    __syncwarp();  // not modelled: on the CPU ldmatrix itself waits for all lanes
    if (transposed) ldmatrix_x4_trans(r, &tile[order[lane]]);
    else ldmatrix_x4(r, &tile[order[lane]]);
    for (u32 k = 0; k < 4; k++) out[4 * lane + k] = r[k];
}

// c += a b.
extern "C" __global__ void __launch_bounds__(32) probe_mma_bf16_16816(const u32* a, const u32* b, float* c) {
    u32 lane = threadIdx.x, left[4];
    float sum[4];
    for (u32 k = 0; k < 4; k++) left[k] = a[4 * lane + k];
    for (u32 k = 0; k < 4; k++) sum[k] = c[4 * lane + k];
    mma_bf16_16816(sum, left, b[2 * lane], b[2 * lane + 1]);
    for (u32 k = 0; k < 4; k++) c[4 * lane + k] = sum[k];
}

// Copies 16 bytes a lane; those of lanes without a bit in `valid` come from behind the 32 rows, where nothing may be read.
extern "C" __global__ void __launch_bounds__(32) probe_cp_async_16(const u32* rows, u32 valid, u32* out) {
    SHARED(tile, uint4[32]);
    u32 lane = threadIdx.x;
    bool is_valid = valid >> lane & 1;
    cp_async_16(&tile[lane], rows + 4 * (is_valid ? lane : 32 + lane), is_valid);
    cp_async_commit();
    cp_async_wait<0>();
    reinterpret_cast<uint4*>(out)[lane] = tile[lane];
}

// Five rows a lane in four groups, the second of two rows; each is read after the first wait that it must have landed at.
extern "C" __global__ void __launch_bounds__(32) probe_cp_async_wait(const u32* rows, u32* out) {
    SHARED(tile, uint4[5][32]);
    uint4* to = reinterpret_cast<uint4*>(out);
    u32 lane = threadIdx.x;
    for (u32 k = 0; k < 5; k++) {
        cp_async_16(&tile[k][lane], rows + 4 * (32 * k + lane), true);
        if (k != 1) cp_async_commit();
    }
    cp_async_wait<3>();
    to[lane] = tile[0][lane];
    cp_async_wait<1>();
    for (u32 k = 1; k < 4; k++) to[32 * k + lane] = tile[k][lane];
    cp_async_wait<0>();
    to[128 + lane] = tile[4][lane];
}
