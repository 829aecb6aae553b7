// The inside of a product on tiles: C[m, n] += sum_k A[m, k] B[n, k], from operands that loaders bring into shared memory.
//
//   A tile       BM rows of K_STEP values of k, or where A comes "by k", K_STEP rows of BM values; B likewise with BN
//   piece        8 neighbouring values, what a loader brings at a time: 16 bytes of bf16, 32 of f32
//   swizzle      piece c of row r lies at another place of its row, so that the 8 rows of an ldmatrix are in different banks
//   pipeline     STAGES tiles in flight by cp.async; one barrier a step
//   sums         in f32, k ascending in steps of 16 (bf16) or 1 (f32): the same for every tile shape
#pragma once
#include "tensor.cuh"

// Values of k that a step takes.
constexpr u32 K_STEP = 32;

template <class T_, u32 BM_, u32 BN_, u32 WARPS_M_, u32 WARPS_N_, u32 STAGES_> struct Shape {
    typedef T_ T;
    static constexpr u32 BM = BM_, BN = BN_, WARPS_M = WARPS_M_, WARPS_N = WARPS_N_, STAGES = STAGES_;
    static constexpr u32 THREADS = WARPS_M * WARPS_N * WARP;
    static_assert(BM % (WARPS_M * 16) == 0 && BN % (WARPS_N * 16) == 0, "a warp's tile is made of 16x16 pieces");
};

typedef Shape<u16, 64, 64, 2, 2, 4> Small;
typedef Shape<u16, 128, 128, 2, 4, 3> Large;
typedef Shape<float, 64, 64, 2, 2, 2> Exact;

template <class S> struct Stage {
    typename S::T a[S::BM * K_STEP];
    typename S::T b[S::BN * K_STEP];
};

// Offset of piece `c` of row `r` in a tile whose rows have `pieces` pieces.
template <u32 pieces> __device__ __forceinline__ u32 place(u32 r, u32 c) {
    static_assert(pieces == 4 || pieces % 8 == 0, "a swizzle for rows of 4 or a multiple of 8 pieces");
    return (r * pieces + (pieces == 4 ? c ^ (r >> 1 & 3) : c ^ (r & 7))) * 8;
}

__device__ __forceinline__ void bring(u16* to, const u16* from, bool valid) { cp_async_16(to, from, valid); }
__device__ __forceinline__ void bring(float* to, const float* from, bool valid) {
    cp_async_16(to, from, valid);
    cp_async_16(to + 4, from + 4, valid);
}

// One warp's part of a tile in registers: 16x8 blocks as mma leaves them.
template <class S> struct Sums {
    static constexpr u32 ROWS = S::BM / S::WARPS_M / 16, COLUMNS = S::BN / S::WARPS_N / 8;
    float c[ROWS][COLUMNS][4];

    __device__ __forceinline__ void clear() {
#pragma unroll
        for (u32 i = 0; i < ROWS; i++)
#pragma unroll
            for (u32 j = 0; j < COLUMNS; j++)
#pragma unroll
                for (u32 e = 0; e < 4; e++) c[i][j][e] = 0.0f;
    }

    // Calls to(row of the tile, column of the tile, value there, value one column on).
    template <class F> __device__ __forceinline__ void each_pair(F to) const {
        u32 lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
        u32 row = warp / S::WARPS_N * (S::BM / S::WARPS_M) + lane / 4, column = warp % S::WARPS_N * (S::BN / S::WARPS_N) + lane % 4 * 2;
#pragma unroll
        for (u32 i = 0; i < ROWS; i++)
#pragma unroll
            for (u32 j = 0; j < COLUMNS; j++)
#pragma unroll
                for (u32 half = 0; half < 2; half++)
                    to(row + i * 16 + half * 8, column + j * 8, c[i][j][2 * half], c[i][j][2 * half + 1]);
    }
};

// bf16 on tensor cores.
template <class S, bool A_BY_K, bool B_BY_K>
__device__ __forceinline__ void multiply(const u16* a, const u16* b, Sums<S>& sums) {
    u32 lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    u32 row = warp / S::WARPS_N * (S::BM / S::WARPS_M), column = warp % S::WARPS_N * (S::BN / S::WARPS_N);
#pragma unroll
    for (u32 k = 0; k < K_STEP; k += 16) {
        u32 left[Sums<S>::ROWS][4], right[Sums<S>::COLUMNS / 2][4];
#pragma unroll
        for (u32 i = 0; i < Sums<S>::ROWS; i++) {
            if (A_BY_K) ldmatrix_x4_trans(left[i], a + place<S::BM / 8>(k + lane % 8 + lane / 16 * 8, (row + i * 16) / 8 + lane / 8 % 2));
            else ldmatrix_x4(left[i], a + place<K_STEP / 8>(row + i * 16 + lane % 16, k / 8 + lane / 16));
        }
#pragma unroll
        for (u32 j = 0; j < Sums<S>::COLUMNS / 2; j++) {
            if (B_BY_K) ldmatrix_x4_trans(right[j], b + place<S::BN / 8>(k + lane % 16, (column + j * 16) / 8 + lane / 16));
            else ldmatrix_x4(right[j], b + place<K_STEP / 8>(column + j * 16 + lane % 8 + lane / 16 * 8, k / 8 + lane / 8 % 2));
        }
#pragma unroll
        for (u32 i = 0; i < Sums<S>::ROWS; i++)
#pragma unroll
            for (u32 j = 0; j < Sums<S>::COLUMNS; j++)
                mma_bf16_16816(sums.c[i][j], left[i], right[j / 2][j % 2 * 2], right[j / 2][j % 2 * 2 + 1]);
    }
}

// f32 on the ordinary units; each thread owns the values that mma would give it.
template <class S, bool A_BY_K, bool B_BY_K>
__device__ __forceinline__ void multiply(const float* a, const float* b, Sums<S>& sums) {
    u32 lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    u32 row = warp / S::WARPS_N * (S::BM / S::WARPS_M) + lane / 4, column = warp % S::WARPS_N * (S::BN / S::WARPS_N) + lane % 4 * 2;
    auto at = [](const float* tile, bool by_k, u32 i, u32 k) {
        return by_k ? tile[place<S::BM / 8>(k, i / 8) + i % 8] : tile[place<K_STEP / 8>(i, k / 8) + k % 8];
    };
    static_assert(S::BM == S::BN, "one row length for both operands by k");
    for (u32 k = 0; k < K_STEP; k++) {
        float left[Sums<S>::ROWS][2], right[Sums<S>::COLUMNS][2];
#pragma unroll
        for (u32 i = 0; i < Sums<S>::ROWS; i++)
#pragma unroll
            for (u32 half = 0; half < 2; half++) left[i][half] = at(a, A_BY_K, row + i * 16 + half * 8, k);
#pragma unroll
        for (u32 j = 0; j < Sums<S>::COLUMNS; j++)
#pragma unroll
            for (u32 one = 0; one < 2; one++) right[j][one] = at(b, B_BY_K, column + j * 8 + one, k);
#pragma unroll
        for (u32 i = 0; i < Sums<S>::ROWS; i++)
#pragma unroll
            for (u32 j = 0; j < Sums<S>::COLUMNS; j++)
#pragma unroll
                for (u32 e = 0; e < 4; e++) sums.c[i][j][e] = fmaf(left[i][e / 2], right[j][e % 2], sums.c[i][j][e]);
    }
}

// The whole product of a block. A loader's load(tile) brings its next K_STEP values of k.
template <class S, bool A_BY_K, bool B_BY_K, class A, class B>
__device__ __forceinline__ void product(u32 steps, A& a, B& b, Sums<S>& sums) {
    SHARED(stage, Stage<S>[S::STAGES]);
    sums.clear();
    for (u32 s = 0; s < S::STAGES - 1; s++) {
        if (s < steps) {
            a.load(stage[s].a);
            b.load(stage[s].b);
        }
        cp_async_commit();
    }
    for (u32 step = 0; step < steps; step++) {
        // This thread's copies of this step have landed; behind the barrier, everybody's have, and nobody reads the stage
        // of the step before any more.
        cp_async_wait<S::STAGES - 2>();
        __syncthreads();
        u32 next = step + S::STAGES - 1;
        if (next < steps) {
            a.load(stage[next % S::STAGES].a);
            b.load(stage[next % S::STAGES].b);
        }
        cp_async_commit();
        const Stage<S>& now = stage[step % S::STAGES];
        multiply<S, A_BY_K, B_BY_K>(now.a, now.b, sums);
    }
}
