// Sums of products, the inner loops of int8.cpp, for what this CPU has: AMX, AVX-512 VNNI, AVX2, or plain C++.

#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#if defined(__AVX2__) || defined(__AVX512VNNI__)
#include <immintrin.h>
#endif
#include "tiles.h"

#if defined(HAS_TILES) && defined(__AVX512VNNI__) && defined(__AMX_INT8__)
#define HAS_BYTE_TILES 1
#endif

namespace products {

#ifdef __AVX512VNNI__
using Input = uint8_t;
using Weight = int8_t;
constexpr int TILE = 1, POSITIONS = 1, GROUPS = 4;  // outputs along a row, products for them, groups of 16 channels
#else
using Input = int16_t;
using Weight = int16_t;
constexpr int TILE = 2, POSITIONS = 4, GROUPS = 1;
#endif
constexpr int LANE = 4 / sizeof(Input), OUTPUTS = 16;
#ifdef HAS_BYTE_TILES
constexpr bool BYTE_TILES = true;
constexpr int BLOCK = 6, TILES = tiles::ROWS;  // in vector registers, and packed at once
#else
constexpr bool BYTE_TILES = false;
constexpr int BLOCK = 6, TILES = 2 * BLOCK;
#endif

inline int32_t lane_at(const Input* from) {
    int32_t value;
    std::memcpy(&value, from, 4);
    return value;
}

#if defined(__AVX2__) && !defined(__AVX512VNNI__)
inline __m256i in_order(__m256i sum, __m256i product) {  // or GCC multiplies everything first, and spills the sums
    asm volatile("vpaddd %1, %0, %0" : "+x"(sum) : "x"(product));
    return sum;
}
#endif

// sums[t][g][o] = sum over lanes of x[t] * w[g][.][o], N tiles of `lanes` lanes each.
template <int N, int G>
void multiply(const Input* x, const Weight* w, int64_t lanes, [[maybe_unused]] int64_t group, int32_t* sums) {
#if defined(__AVX512VNNI__)
    __m512i sum[N][G];
    for (int t = 0; t < N; t++)
        for (int g = 0; g < G; g++) sum[t][g] = _mm512_setzero_si512();
    for (int64_t k = 0; k < lanes; k++, w += LANE * OUTPUTS) {
        __m512i weight[G];
#pragma GCC unroll 4
        for (int g = 0; g < G; g++) weight[g] = _mm512_loadu_si512((const void*)(w + g * group));
#pragma GCC unroll 6
        for (int t = 0; t < N; t++) {
            const __m512i value = _mm512_set1_epi32(lane_at(x + LANE * (t * lanes + k)));
#pragma GCC unroll 4
            for (int g = 0; g < G; g++) sum[t][g] = _mm512_dpbusd_epi32(sum[t][g], value, weight[g]);
        }
    }
    for (int t = 0; t < N; t++)
        for (int g = 0; g < G; g++) _mm512_storeu_si512((void*)(sums + OUTPUTS * (t * G + g)), sum[t][g]);
#elif defined(__AVX2__)
    static_assert(G == 1);
    __m256i sum[N][2];
    for (int t = 0; t < N; t++) sum[t][0] = sum[t][1] = _mm256_setzero_si256();
    for (int64_t k = 0; k < lanes; k++, w += LANE * OUTPUTS) {
        const __m256i low = _mm256_loadu_si256((const __m256i*)w), high = _mm256_loadu_si256((const __m256i*)w + 1);
#pragma GCC unroll 6
        for (int t = 0; t < N; t++) {
            const __m256i value = _mm256_set1_epi32(lane_at(x + LANE * (t * lanes + k)));
            sum[t][0] = in_order(sum[t][0], _mm256_madd_epi16(value, low));
            sum[t][1] = in_order(sum[t][1], _mm256_madd_epi16(value, high));
        }
    }
    for (int t = 0; t < N; t++)
        for (int half = 0; half < 2; half++) _mm256_storeu_si256((__m256i*)(sums + OUTPUTS * t) + half, sum[t][half]);
#else
    static_assert(G == 1);
    for (int t = 0; t < N; t++, x += LANE * lanes, sums += OUTPUTS) {
        int32_t sum[OUTPUTS] = {};
        const Weight* weight = w;
        for (int64_t k = 0; k < lanes; k++)
            for (int o = 0; o < OUTPUTS; o++, weight += LANE)
                sum[o] += int32_t(x[2 * k]) * weight[0] + int32_t(x[2 * k + 1]) * weight[1];
        std::memcpy(sums, sum, sizeof sum);
    }
#endif
}

// As `multiply` by AMX, for TILES tiles: `next_tile` inputs from one to the next, `next_row` from a row of the kernel to
// the next.
template <int G>
void multiply([[maybe_unused]] const tiles::Registers& registers, [[maybe_unused]] const Input* x,
              [[maybe_unused]] int64_t next_tile, [[maybe_unused]] int64_t next_row, [[maybe_unused]] const Weight* w,
              [[maybe_unused]] int64_t group, [[maybe_unused]] int32_t* sums) {
#ifdef HAS_BYTE_TILES
    tiles::written();
    _tile_zero(0);
    if constexpr (G > 1) _tile_zero(1);
    if constexpr (G > 2) {
        _tile_zero(2);
        _tile_zero(3);
    }
    for (int ky = 0; ky < 3; ky++, x += next_row)
        for (int64_t k = 0; k < registers.stretch; k += registers.step, w += registers.step * OUTPUTS) {
            _tile_loadd(4, x + k, next_tile);
            _tile_loadd(6, w, tiles::LINE);
            _tile_dpbusd(0, 4, 6);
            if constexpr (G > 1) {
                _tile_loadd(7, w + group, tiles::LINE);
                _tile_dpbusd(1, 4, 7);
            }
            if constexpr (G > 2) {
                _tile_loadd(6, w + 2 * group, tiles::LINE);
                _tile_dpbusd(2, 4, 6);
                _tile_loadd(7, w + 3 * group, tiles::LINE);
                _tile_dpbusd(3, 4, 7);
            }
        }
    constexpr int64_t NEXT = G * tiles::LINE;
    _tile_stored(0, sums, NEXT);
    if constexpr (G > 1) _tile_stored(1, sums + OUTPUTS, NEXT);
    if constexpr (G > 2) {
        _tile_stored(2, sums + 2 * OUTPUTS, NEXT);
        _tile_stored(3, sums + 3 * OUTPUTS, NEXT);
    }
#endif
}

// The same in fp32, one input a lane, in this order; with FUSED, as exact and fast as this CPU can.
template <int N, bool FUSED>
void multiply(const float* x, const float* w, int64_t lanes, float* sums) {
#if defined(__AVX512F__)
    using Vector = __m512;
    const auto load = [](const float* from) { return _mm512_loadu_ps(from); };
    const auto store = [](float* to, Vector value) { _mm512_storeu_ps(to, value); };
    const auto spread = [](float value) { return _mm512_set1_ps(value); };
    const auto fused = [](Vector a, Vector b, Vector c) { return _mm512_fmadd_ps(a, b, c); };
#elif defined(__AVX2__) && defined(__FMA__)
    using Vector = __m256;
    const auto load = [](const float* from) { return _mm256_loadu_ps(from); };
    const auto store = [](float* to, Vector value) { _mm256_storeu_ps(to, value); };
    const auto spread = [](float value) { return _mm256_set1_ps(value); };
    const auto fused = [](Vector a, Vector b, Vector c) { return _mm256_fmadd_ps(a, b, c); };
#else
    using Vector = float;
    const auto load = [](const float* from) { return *from; };
    const auto store = [](float* to, Vector value) { *to = value; };
    const auto spread = [](float value) { return value; };
    const auto fused = [](Vector a, Vector b, Vector c) { return a * b + c; };
#endif
    constexpr int WIDTH = sizeof(Vector) / sizeof(float), VECTORS = OUTPUTS / WIDTH;
    Vector sum[N][VECTORS];
    for (int t = 0; t < N; t++)
        for (int v = 0; v < VECTORS; v++) sum[t][v] = spread(0.0f);
    for (int64_t k = 0; k < lanes; k++, w += OUTPUTS) {
#pragma GCC unroll 6
        for (int t = 0; t < N; t++) {
            const Vector value = spread(x[t * lanes + k]);
#pragma GCC unroll 16
            for (int v = 0; v < VECTORS; v++) {
                const Vector weight = load(w + WIDTH * v);
                sum[t][v] = FUSED ? fused(value, weight, sum[t][v]) : sum[t][v] + value * weight;
            }
        }
    }
    for (int t = 0; t < N; t++)  // one by one, or GCC keeps all of them in memory
        for (int v = 0; v < VECTORS; v++) store(sums + t * OUTPUTS + WIDTH * v, sum[t][v]);
}

template <int N>
using Number = std::integral_constant<int, N>;

// call(first tile, how many of them), for `count` tiles, BLOCK at a time.
template <typename Call>
void in_blocks(int count, const Call& call) {
    for (int t = 0; t < count; t += BLOCK) switch (count - t) {
            case 1: call(t, Number<1>()); break;
            case 2: call(t, Number<2>()); break;
            case 3: call(t, Number<3>()); break;
            case 4: call(t, Number<4>()); break;
            case 5: call(t, Number<5>()); break;
            default: call(t, Number<BLOCK>());
        }
}

}  // namespace products
