// One wrapper per PTX instruction: inline assembly on the device, and its meaning as the PTX manual gives it on the host.
#pragma once
#include "port.cuh"

#if ON_GPU

__device__ __forceinline__ u32 shared_address(const void* p) { return (u32)__cvta_generic_to_shared(p); }

// Round to nearest even.
__device__ __forceinline__ u16 f32_to_bf16(float x) {
    u16 h;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(h) : "f"(x));
    return h;
}

// Four 8x8 matrices of 16-bit values: lane 8 i + r gives the address of row r of matrix i; lane l receives the two values of
// row l / 4 from column 2 (l % 4) of each.
__device__ __forceinline__ void ldmatrix_x4(u32 (&r)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}

// The same of the transposed matrices.
__device__ __forceinline__ void ldmatrix_x4_trans(u32 (&r)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}

// c += a b for a 16x16 (row major), b 16x8 (column major) in bf16, c 16x8 in f32.
__device__ __forceinline__ void mma_bf16_16816(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Starts a copy of 16 bytes into shared memory; where it is not `valid`, zeros are written and nothing is read.
__device__ __forceinline__ void cp_async_16(void* to, const void* from, bool valid) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from), "r"(valid ? 16 : 0) : "memory");
}

// Makes a group of the copies started since the last one.
__device__ __forceinline__ void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits until all but the last `left` of this thread's groups have landed.
template <int left> __device__ __forceinline__ void cp_async_wait() { asm volatile("cp.async.wait_group %0;" ::"n"(left) : "memory"); }

#else

static inline u16 f32_to_bf16(float x) {
    u32 u = __float_as_uint(x);
    if ((u & 0x7fffffffu) > 0x7f800000u) return 0x7fff;
    return u16((u + 0x7fffu + ((u >> 16) & 1)) >> 16);
}

namespace simt {

// The operands of a warp's matrix instruction live in its lanes' stacks; the last lane to arrive does the work of all.
template <class T> T& operand_of(const unsigned char (*given)[16], u32 lane) {
    T* at;
    memcpy(&at, given[lane], sizeof at);
    return *at;
}

struct MatrixLoad {
    const u16* row;
    u32* r;
};

template <bool transposed> void ldmatrix(u32 (&r)[4], const void* row, Site& site) {
    if (uintptr_t(row) % 16) fail("gives ldmatrix at line %d an address that is no multiple of 16", site.line);
    MatrixLoad mine = {static_cast<const u16*>(row), r};
    const MatrixLoad* at = &mine;
    rendezvous(~0u, site, &at, sizeof at, [](const unsigned char (*given)[16], u32) {
        for (u32 matrix = 0; matrix < 4; matrix++) {
            u16 value[8][8];
            for (u32 y = 0; y < 8; y++) memcpy(value[y], operand_of<MatrixLoad>(given, 8 * matrix + y).row, 16);
            for (u32 lane = 0; lane < 32; lane++) {
                u32 y = lane / 4, x = 2 * (lane % 4);
                u16 low = transposed ? value[x][y] : value[y][x], high = transposed ? value[x + 1][y] : value[y][x + 1];
                operand_of<MatrixLoad>(given, lane).r[matrix] = low | u32(high) << 16;
            }
        }
    });
}

struct MatrixProduct {
    const u32* a;
    u32 b[2];
    float* c;
};

inline float bf16_half(u32 pair, u32 high) { return __uint_as_float(high ? pair & 0xffff0000u : pair << 16); }

inline void mma_bf16_16816(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1, Site& site) {
    MatrixProduct mine = {a, {b0, b1}, c};
    const MatrixProduct* at = &mine;
    rendezvous(~0u, site, &at, sizeof at, [](const unsigned char (*given)[16], u32) {
        float left[16][16], right[16][8];
        for (u32 lane = 0; lane < 32; lane++) {
            const MatrixProduct& m = operand_of<MatrixProduct>(given, lane);
            u32 row = lane / 4, k = 2 * (lane % 4);
            for (u32 e = 0; e < 8; e++) left[row + e / 2 % 2 * 8][k + e % 2 + e / 4 * 8] = bf16_half(m.a[e / 2], e % 2);
            for (u32 e = 0; e < 4; e++) right[k + e % 2 + e / 2 * 8][row] = bf16_half(m.b[e / 2], e % 2);
        }
        float sum[16][8] = {};
        for (u32 m = 0; m < 16; m++)
            for (u32 k = 0; k < 16; k++)
                for (u32 n = 0; n < 8; n++) sum[m][n] += left[m][k] * right[k][n];
        for (u32 lane = 0; lane < 32; lane++)
            for (u32 e = 0; e < 4; e++)
                operand_of<MatrixProduct>(given, lane).c[e] += sum[lane / 4 + e / 2 * 8][2 * (lane % 4) + e % 2];
    });
}

struct Wait {
    Site& site;
    template <int left> void for_all_but() const { copy_wait(left, site); }
};

}  // namespace simt

#define ldmatrix_x4(r, row) ::simt::ldmatrix<false>(r, row, SIMT_SITE("ldmatrix"))
#define ldmatrix_x4_trans(r, row) ::simt::ldmatrix<true>(r, row, SIMT_SITE("ldmatrix.trans"))
#define mma_bf16_16816(c, a, b0, b1) ::simt::mma_bf16_16816(c, a, b0, b1, SIMT_SITE("mma"))
#define cp_async_16(to, from, valid) ::simt::copy_async(to, from, 16, (valid) ? 16 : 0)
#define cp_async_commit() ::simt::copy_commit()
// cp_async_wait<N>() becomes the call of a member template on an object that knows the place.
#define cp_async_wait ::simt::Wait{SIMT_SITE("cp.async.wait")}.for_all_but

#endif

__device__ __forceinline__ float bf16_to_f32(u16 h) { return __uint_as_float(u32(h) << 16); }
