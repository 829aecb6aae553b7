// Images from u8: cut, resized, mirrored and normalised.
//
//   in           pixels u8 (N, C, H, W); crops u32 (N, 5): top and left (two's complement), height, width, flip, as
//                src/data/augment.rs drew them; inputs f32: (C, 256) what each pixel value becomes, then (C) means, (C) deviations
//   out          y, a tensor (tensor.cuh) of the same N, C, H, W
//   Work         one thread a pixel of y and 8 of its channels. A crop of the image's own size is a look-up; another is resampled with
//                the triangle filter, first along the row, then down the column
//   Precision    positions and weights in f64, as the host has them; values in f32
//   Determinism  no value depends on another thread
//   Equals       Pixels::normalised of src/data/pixels.rs: look-ups bit for bit, resampled values within rounding
//   Launch       256 threads, one for each vector of y
#include "tensor.cuh"

// Folds a position into 0..length: ... 2 1 | 0 1 2 .. n-1 | n-2 n-3 ...
__device__ __forceinline__ u32 reflect(int position, u32 length) {
    int period = length > 1 ? 2 * int(length) - 2 : 1, folded = position % period;
    if (folded < 0) folded += period;
    return min(u32(min(folded, period - folded)), length - 1);
}

// The source pixels, counted from the crop's first, that make up one output along an axis.
struct Taps {
    double centre, inverse_radius, inverse_sum;
    u32 first, end;
    __device__ __forceinline__ double raw(u32 at) const {
        double weight = 1.0 - fabs(at + 0.5 - centre) * inverse_radius;
        return weight > 0.0 ? weight : 0.0;
    }
    __device__ __forceinline__ float weight(u32 at) const { return float(raw(at) * inverse_sum); }
};

__device__ __forceinline__ Taps taps_of(u32 output, u32 extent, u32 resized) {
    Taps taps;
    double ratio = double(extent) / double(resized), radius = ratio > 1.0 ? ratio : 1.0, sum = 0.0;
    taps.inverse_radius = 1.0 / radius;
    taps.centre = (output + 0.5) * ratio;
    double first = floor(taps.centre - radius);
    taps.first = first > 0.0 ? u32(first) : 0;
    taps.end = min(u32(ceil(taps.centre + radius)), extent);
    for (u32 at = taps.first; at < taps.end; at++) sum += taps.raw(at);
    taps.inverse_sum = 1.0 / sum;
    return taps;
}

extern "C" __global__ void __launch_bounds__(256) write_images(
    const u8* pixels, const u32* crops, const float* inputs, float scale, Tensor y) {
    u32 i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= vectors(y)) return;
    u32 group = i % y.groups, pixel = i / y.groups, column = pixel % y.w, row = pixel / y.w % y.h, image = pixel / y.w / y.h;
    const u32* crop = crops + image * 5;
    int top = int(crop[0]), left = int(crop[1]);
    u32 height = crop[2], width = crop[3], area = y.h * y.w, channels = min(8u, y.c - group * 8);
    if (crop[4]) column = y.w - 1 - column;
    const u8* planes = pixels + (size_t)(image * y.c + group * 8) * area;
    Vector out = zeros();

    if (height == y.h && width == y.w) {
        u32 at = reflect(top + int(row), y.h) * y.w + reflect(left + int(column), y.w);
        for (u32 k = 0; k < channels; k++) out.v[k] = inputs[(group * 8 + k) * 256 + planes[k * area + at]];
        store(y, i, out);
        return;
    }
    Taps down = taps_of(row, height, y.h), across = taps_of(column, width, y.w);
    for (u32 r = down.first; r < down.end; r++) {
        const u8* line = planes + reflect(top + int(r), y.h) * y.w;
        Vector narrowed = zeros();
        for (u32 c = across.first; c < across.end; c++) {
            u32 at = reflect(left + int(c), y.w);
            float weight = across.weight(c);
            for (u32 k = 0; k < channels; k++) narrowed.v[k] = fmaf(line[k * area + at], weight, narrowed.v[k]);
        }
        float weight = down.weight(r);
        for (u32 k = 0; k < channels; k++) out.v[k] = fmaf(weight, narrowed.v[k], out.v[k]);
    }
    const float *mean = inputs + y.c * 256 + group * 8, *deviation = mean + y.c;
    for (u32 k = 0; k < channels; k++) out.v[k] = fmaf(out.v[k], scale, -mean[k]) / deviation[k];
    store(y, i, out);
}
