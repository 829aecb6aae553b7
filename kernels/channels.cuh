// Work that treats each channel by its own numbers, and sums over all pixels of a channel.
//
//   tile   the share of a block of 256 threads: up to 8 neighbouring vectors of each of a run of pixels. Thread t has vector
//          t % width of pixel t / width, and of every 256 / width-th pixel after that, 8 in all: what it knows of its channels it
//          looks up once, and a warp reads whole 128-byte pieces
//   grid   (runs of pixels, ceil(groups / width)), Tensor::tiles in backend/cuda/channels.rs
//   sums   each thread adds up its pixels, the block's threads are added in a binary tree, and the tiles' sums in f64: 32 threads
//          each take every 32nd tile, then a tree. All of it follows from the shape alone, so that bits do not depend on the device
#pragma once
#include "tensor.cuh"

constexpr u32 TILE_THREADS = 256;
// Pixels of a thread.
constexpr u32 TILE_PIXELS = 8;

struct Tile {
    u32 width, lanes;   // threads along the vectors of a pixel, and along pixels
    u32 group;          // this thread's vector within a pixel
    u32 first, end;     // its pixels: from the first, every `lanes`-th below the end
};

__device__ __forceinline__ u32 tile_width(const Tensor& t) { return t.groups > 4 ? 8 : t.groups > 2 ? 4 : t.groups; }

__device__ __forceinline__ Tile tile_of(const Tensor& t) {
    Tile tile;
    tile.width = tile_width(t);
    tile.lanes = TILE_THREADS / tile.width;
    tile.group = blockIdx.y * tile.width + threadIdx.x % tile.width;
    u32 start = blockIdx.x * tile.lanes * TILE_PIXELS;
    tile.first = start + threadIdx.x / tile.width;
    tile.end = tile.group < t.groups ? min(start + tile.lanes * TILE_PIXELS, pixels(t)) : 0;
    return tile;
}

// One float for each thread of a tile.
typedef float TileRow[TILE_THREADS];

// Adds up what the threads of each vector hold; those of the first pixel then have the sums in space[8 sum + k].
template <u32 sums>
__device__ __forceinline__ void add_threads(TileRow (&space)[8 * sums], const Vector (&mine)[sums], u32 width) {
    u32 thread = threadIdx.x;
    for (u32 s = 0; s < sums; s++)
        for (u32 k = 0; k < 8; k++) space[8 * s + k][thread] = mine[s].v[k];
    for (u32 half = TILE_THREADS / 2; half >= width; half /= 2) {
        __syncthreads();
        if (thread < half)
            for (u32 k = 0; k < 8 * sums; k++) space[k][thread] += space[k][thread + half];
    }
}

// The same, and leaves the sums in partial[tile][sum][channel].
template <u32 sums> __device__ __forceinline__ void add_tile(
    TileRow (&space)[8 * sums], const Vector (&mine)[sums], const Tensor& t, const Tile& tile, float* partial) {
    u32 thread = threadIdx.x;
    add_threads(space, mine, tile.width);
    if (thread >= tile.width || tile.group >= t.groups) return;
    for (u32 s = 0; s < sums; s++) {
        float* to = partial + ((blockIdx.x * sums + s) * t.groups + tile.group) * 8;
        for (u32 k = 0; k < 8; k++) to[k] = space[8 * s + k][thread];
    }
}

// The second stage, one block a vector: afterwards thread k < 8 has in total[s] the sum s of channel 8 blockIdx.x + k.
typedef double TileTotals[TILE_THREADS];
template <u32 sums> __device__ __forceinline__ void add_tiles(
    TileTotals (&space)[sums], const float* partial, u32 tiles, const Tensor& t, double (&total)[sums]) {
    u32 thread = threadIdx.x, channel = blockIdx.x * 8 + thread % 8;
    for (u32 s = 0; s < sums; s++) {
        double sum = 0;
        for (u32 tile = thread / 8; tile < tiles; tile += TILE_THREADS / 8)
            sum += partial[(tile * sums + s) * t.groups * 8 + channel];
        space[s][thread] = sum;
    }
    for (u32 half = TILE_THREADS / 2; half >= 8; half /= 2) {
        __syncthreads();
        if (thread < half)
            for (u32 s = 0; s < sums; s++) space[s][thread] += space[s][thread + half];
    }
    for (u32 s = 0; s < sums; s++) total[s] = thread < 8 ? space[s][thread] : 0.0;
}
