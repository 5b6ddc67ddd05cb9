// The AVX-512 instructions that block_sparse.cpp and, with VNNI, int8.cpp use, for any CPU, in GCC's and Clang's portable
// vectors. For tests only: results are right to rounding (fmadd and dpbf16 round their products), speed is not.

#pragma once

#include <cstdint>
#include <cstring>

#ifndef __AVX512BF16__
#define __AVX512BF16__ 1
#endif

typedef float __m512 __attribute__((vector_size(64)));
typedef uint32_t __m512i __attribute__((vector_size(64)));
typedef uint16_t __m512bh __attribute__((vector_size(64)));
typedef uint16_t __m256i __attribute__((vector_size(32)));
typedef uint16_t __m256bh __attribute__((vector_size(32)));

inline __m512 _mm512_loadu_ps(const void* from) {
    __m512 value;
    std::memcpy(&value, from, sizeof value);
    return value;
}

inline __m256i _mm256_loadu_si256(const __m256i* from) {
    __m256i value;
    std::memcpy(&value, (const void*)from, sizeof value);
    return value;
}

inline void _mm512_storeu_ps(void* to, __m512 value) { std::memcpy(to, &value, sizeof value); }
inline void _mm512_store_ps(void* to, __m512 value) { *(__m512*)to = value; }  // aligned
inline void _mm256_storeu_si256(__m256i* to, __m256i value) { std::memcpy((void*)to, &value, sizeof value); }

inline __m512 _mm512_setzero_ps() { return __m512{}; }
inline __m512 _mm512_set1_ps(float value) { return __m512{} + value; }
inline __m512 _mm512_add_ps(__m512 a, __m512 b) { return a + b; }
inline __m512 _mm512_max_ps(__m512 a, __m512 b) { return a > b ? a : b; }  // the second where one is NaN
inline __m512 _mm512_fmadd_ps(__m512 a, __m512 b, __m512 c) { return a * b + c; }

inline __m512 _mm512_castsi512_ps(__m512i value) { return (__m512)value; }
inline __m512i _mm512_slli_epi32(__m512i value, unsigned bits) { return value << bits; }
inline __m512i _mm512_cvtepu16_epi32(__m256i value) { return __builtin_convertvector(value, __m512i); }

inline __m256bh _mm512_cvtneps_pbh(__m512 value) {  // to nearest, ties to even; NaN stays NaN, subnormal becomes zero
    const __m512i bits = (__m512i)value, size = bits & 0x7fffffff;
    const __m512i rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    const __m512i normal = size > 0x7f800000 ? (bits >> 16 | 0x40) : rounded;
    return __builtin_convertvector(size < 0x800000 ? bits >> 16 & 0x8000 : normal, __m256bh);
}

inline __m512 _mm512_dpbf16_ps(__m512 sum, __m512bh a, __m512bh b) {
    const __m512i x = (__m512i)a, y = (__m512i)b, upper = __m512i{} + 0xffff0000;
    sum += (__m512)(x & upper) * (__m512)(y & upper);
    return sum + (__m512)(x << 16) * (__m512)(y << 16);
}

inline __m512i _mm512_setzero_si512() { return __m512i{}; }
inline __m512i _mm512_set1_epi32(int value) { return __m512i{} + uint32_t(value); }
inline __m512i _mm512_loadu_si512(const void* from) {
    __m512i value;
    std::memcpy(&value, from, sizeof value);
    return value;
}
inline void _mm512_storeu_si512(void* to, __m512i value) { std::memcpy(to, &value, sizeof value); }

inline __m512i _mm512_dpbusd_epi32(__m512i sum, __m512i a, __m512i b) {  // unsigned bytes of a, signed ones of b
    uint8_t x[64];
    int8_t y[64];
    std::memcpy(x, &a, sizeof x), std::memcpy(y, &b, sizeof y);
    for (int lane = 0; lane < 16; lane++) {
        int32_t products = 0;
        for (int i = 4 * lane; i < 4 * lane + 4; i++) products += int32_t(x[i]) * y[i];
        sum[lane] += uint32_t(products);
    }
    return sum;
}

#ifdef __AMX_TILE__
#include <sys/syscall.h>
#include <unistd.h>
#define syscall(...) 0  // permission is always given

struct PortableTiles {
    uint8_t shape[64] = {}, memory[8][16][64] = {};
    int bytes(int tile) const { return shape[16 + 2 * tile] | shape[17 + 2 * tile] << 8; }
    int rows(int tile) const { return shape[48 + tile]; }
};
inline thread_local PortableTiles portable_tiles;
extern "C" {
inline int64_t tile_products = 0;  // how often matrices were multiplied, by whatever thread
__attribute__((used)) inline int64_t count_tile_products() { return tile_products; }
}

inline void _tile_loadconfig(const void* shape) { std::memcpy(portable_tiles.shape, shape, 64); }
inline void _tile_release() { portable_tiles = {}; }
inline void _tile_zero(int tile) { std::memset(portable_tiles.memory[tile], 0, sizeof portable_tiles.memory[tile]); }
inline void _tile_loadd(int tile, const void* from, int64_t stride) {
    _tile_zero(tile);
    for (int row = 0; row < portable_tiles.rows(tile); row++)
        std::memcpy(portable_tiles.memory[tile][row], (const char*)from + row * stride, portable_tiles.bytes(tile));
}
inline void _tile_stored(int tile, void* to, int64_t stride) {
    for (int row = 0; row < portable_tiles.rows(tile); row++)
        std::memcpy((char*)to + row * stride, portable_tiles.memory[tile][row], portable_tiles.bytes(tile));
}
// Adds to each sum what `step` makes of it, of a lane of its row of a, and of the lane's row of b.
template <typename Step>
void portable_products(int sums, int a, int b, const Step& step) {
    __atomic_fetch_add(&tile_products, 1, __ATOMIC_RELAXED);
    auto& [shape, memory] = portable_tiles;
    for (int row = 0; row < portable_tiles.rows(sums); row++)
        for (int lane = 0; lane < portable_tiles.rows(b); lane++) {
            __m512i value;
            for (int o = 0; o < 16; o++) std::memcpy((char*)&value + 4 * o, memory[a][row] + 4 * lane, 4);
            const __m512i sum = _mm512_loadu_si512(memory[sums][row]), weight = _mm512_loadu_si512(memory[b][lane]);
            _mm512_storeu_si512(memory[sums][row], step(sum, value, weight));
        }
}
inline void _tile_dpbusd(int sums, int a, int b) { portable_products(sums, a, b, _mm512_dpbusd_epi32); }
inline void _tile_dpbf16ps(int sums, int a, int b) {
    portable_products(sums, a, b, [](__m512i sum, __m512i x, __m512i y) {
        return (__m512i)_mm512_dpbf16_ps((__m512)sum, (__m512bh)x, (__m512bh)y);
    });
}
#endif
