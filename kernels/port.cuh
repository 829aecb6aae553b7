// Included first by every kernel file.
#pragma once
typedef unsigned int u32;
typedef unsigned short u16;
typedef unsigned long long u64;
