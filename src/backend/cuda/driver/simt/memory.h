// Memory between pages that cannot be touched, and launches that survive touching them.
#pragma once
#include <cstddef>

namespace simt {

constexpr size_t PAGE = 4096;

// `bytes` bytes, rounded up to 16, that end at an inaccessible page and start as zeros; null when there are no more.
// Errors call it by `name`.
void* allocate(size_t bytes, const char* name);
void release(void* at);

// Runs `run`. Null, or what it touched where nothing is: then it did not return, and its frames are gone.
const char* run_guarded(void (*run)());

}  // namespace simt
