// What changes from step to step. It lies in device memory, so that a captured graph can be replayed with other values.
#pragma once
#include "port.cuh"

struct Step {
    u64 seed;
    u32 step;
    float statistics_momentum;
};
