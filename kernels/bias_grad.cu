// The gradient of a bias: dy added up over images and pixels, channel by channel.
//
//   in           dy, a tensor (tensor.cuh)
//   between      partial, f32 (tiles, 8 groups): each tile's sums
//   out          db, f32 (channels), set or added to
//   Work         bias_grad_tiles: one tile (channels.cuh) a block, read once; bias_grad: one vector of channels a block
//   Determinism  the tree of additions follows from the shape
//   Equals       bias_grad of backend/cpu/mod.rs, within rounding
//   Launch       256 threads; the grid of channels.cuh, then `groups` blocks; 8 KB and 2 KB of shared memory
#include "channels.cuh"

extern "C" __global__ void __launch_bounds__(256) bias_grad_tiles(Tensor dy, float* partial) {
    SHARED(space, TileRow[8]);
    Tile tile = tile_of(dy);
    Vector sum[1] = {zeros()};
    for (u32 p = tile.first; p < tile.end; p += tile.lanes) {
        Vector g = load(dy, p * dy.groups + tile.group);
        for (u32 k = 0; k < 8; k++) sum[0].v[k] += g.v[k];
    }
    add_tile(space, sum, dy, tile, partial);
}

extern "C" __global__ void __launch_bounds__(256) bias_grad(Tensor dy, const float* partial, u32 tiles, float* db, u32 add) {
    SHARED(space, TileTotals[1]);
    double total[1];
    add_tiles(space, partial, tiles, dy, total);
    u32 channel = blockIdx.x * 8 + threadIdx.x;
    if (threadIdx.x < 8 && channel < dy.c) db[channel] = (add ? db[channel] : 0.0f) + float(total[0]);
}
