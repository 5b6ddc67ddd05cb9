// Chains of 3x3 convolutions computed in place on the selected patches of images, and nowhere else.
//
// Feature maps are NHWC canvases with one zero pixel around every image. A layer is computed on row runs: the selected
// patches and `reach` pixels around them. What a layer reads outside the runs of the layer before is zero, as if the runs
// were all there is of the image. Weights, canvases: float, or bfloat16 with sums in float. Needs AVX-512;
// bfloat16 takes AMX where the CPU has it.

#include <immintrin.h>
#include <omp.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <new>
#include <optional>
#include <type_traits>
#include <vector>

#include "job.h"
#include "runs.h"
#include "tiles.h"

#if defined(HAS_TILES) && defined(__AVX512BF16__) && defined(__AMX_BF16__)
#define HAS_BF16_TILES 1
#endif

namespace {

using checks::LR_CHANNELS;
using runs::bf16;
using runs::narrow;
using runs::Run;
using runs::Share;

inline float widen(bf16 value) {
    uint32_t bits = uint32_t(value) << 16;
    float result;
    std::memcpy(&result, &bits, 4);
    return result;
}

inline void put(float* to, float value) { *to = value; }
inline void put(bf16* to, float value) { *to = narrow(value); }

inline __m512 load16(const float* from) { return _mm512_loadu_ps(from); }
inline __m512 load16(const bf16* from) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)from)), 16));
}

inline void store16(float* to, __m512 value) { _mm512_storeu_ps(to, value); }
#ifdef __AVX512BF16__
inline void store16(bf16* to, __m512 value) { _mm256_storeu_si256((__m256i*)to, (__m256i)_mm512_cvtneps_pbh(value)); }
#endif

// One input (float) or a pair of inputs (bfloat16) is one 32-bit lane.
inline __m512 multiply_add(__m512 sum, const float* weight, __m512 x, float) {
    return _mm512_fmadd_ps(_mm512_loadu_ps(weight), x, sum);
}
#ifdef __AVX512BF16__
inline __m512 multiply_add(__m512 sum, const float* weight, __m512 x, bf16) {
    return _mm512_dpbf16_ps(sum, (__m512bh)_mm512_loadu_ps(weight), (__m512bh)x);
}
#endif

template <typename T>
struct Convolution {
    const Step& step;
    const Job& job;
    const T* source;
    T* target;
    const T* residual;
    int64_t row;               // elements of the source from one canvas row to the next
    const int64_t* hr_offset;  // of every output channel, from the HR pixel of the LR pixel's upper left corner
    tiles::Registers* registers;  // null: AMX is not used

    // PIXELS x (16 * BLOCKS) outputs, kept in registers.
    template <int BLOCKS, int PIXELS>
    inline void block(int64_t pixel, const T* weight, int first, int64_t hr_pixel) const {
        const int64_t lanes = step.inputs * sizeof(T) / 4;
        const float* x = (const float*)(source + (pixel * step.inputs) - row - step.inputs);
        const float* w = (const float*)weight;
        __m512 sum[PIXELS][BLOCKS];
#pragma GCC unroll 24
        for (int p = 0; p < PIXELS; p++)
#pragma GCC unroll 4
            for (int b = 0; b < BLOCKS; b++) sum[p][b] = _mm512_loadu_ps(step.bias + first + 16 * b);
        for (int ky = 0; ky < 3; ky++, x += row * int64_t(sizeof(T)) / 4) {
            const float* end = x + 3 * lanes;  // three neighbouring pixels are one stretch of memory
            for (const float* in = x; in < end; in++, w += 16 * BLOCKS) {
#pragma GCC unroll 24
                for (int p = 0; p < PIXELS; p++) {
                    const __m512 value = _mm512_set1_ps(in[p * lanes]);
#pragma GCC unroll 4
                    for (int b = 0; b < BLOCKS; b++) sum[p][b] = multiply_add(sum[p][b], w + 16 * b, value, T());
                }
            }
        }
#pragma GCC unroll 24
        for (int p = 0; p < PIXELS; p++) finish<BLOCKS>(sum[p], pixel + p, first, hr_pixel + p * hr_step());
    }

    int64_t hr_step() const { return job.scale * job.hr_stride[3]; }

    // What follows the convolution, for the outputs of one pixel.
    template <int BLOCKS>
    __attribute__((always_inline)) inline void finish(const __m512 (&sum)[BLOCKS], int64_t pixel, int first, int64_t hr_pixel) const {
        alignas(64) float values[16 * BLOCKS];
        const int64_t at = pixel * step.outputs + first;
#pragma GCC unroll 4
        for (int b = 0; b < BLOCKS; b++) {
            __m512 value = sum[b];
            if (residual) value = _mm512_add_ps(value, load16(residual + at + 16 * b));
            if (step.relu) value = _mm512_max_ps(value, _mm512_setzero_ps());
            if (target)
                store16(target + at + 16 * b, value);
            else
                _mm512_store_ps(values + 16 * b, value);
        }
        if (target) return;
        const int count = std::min(16 * BLOCKS, step.outputs - first);
        if (job.hr_bf16)
            for (int c = 0; c < count; c++) put((bf16*)job.hr + hr_pixel + hr_offset[first + c], values[c]);
        else
            for (int c = 0; c < count; c++) put((float*)job.hr + hr_pixel + hr_offset[first + c], values[c]);
    }

#ifdef HAS_BF16_TILES
    struct Part {  // of a run, up to tiles::ROWS pixels
        int64_t pixel, hr_pixel;
        int count;
    };

    const char* above_left(const Part& some) const {
        return (const char*)(source + some.pixel * step.inputs - row - step.inputs);
    }

    // 16 * G outputs of one part of a run, or of two, by AMX; weights and bias are those of the first output.
    template <int G, bool TWO>
    void tile_block(const Part* some, const char* w, int64_t next_lane, int first) const {
        const int64_t next_pixel = step.inputs * sizeof(T), next_row = row * sizeof(T), size = registers->step;
        const char *x = above_left(some[0]), *y = TWO ? above_left(some[1]) : x;
        const float* bias = step.bias + first;
        tiles::written();
        _tile_loadd(0, bias, 0);
        if constexpr (G > 1) _tile_loadd(1, bias + 16, 0);
        if constexpr (TWO) _tile_loadd(2, bias, 0);
        if constexpr (TWO && G > 1) _tile_loadd(3, bias + 16, 0);
        for (int ky = 0; ky < 3; ky++, x += next_row, y += next_row)
            for (int64_t k = 0; k < registers->stretch; k += size, w += size / 4 * next_lane) {
                _tile_loadd(4, x + k, next_pixel);
                _tile_loadd(6, w, next_lane);
                _tile_dpbf16ps(0, 4, 6);
                if constexpr (G > 1) {
                    _tile_loadd(7, w + tiles::LINE, next_lane);
                    _tile_dpbf16ps(1, 4, 7);
                }
                if constexpr (TWO) {
                    _tile_loadd(5, y + k, next_pixel);
                    _tile_dpbf16ps(2, 5, 6);
                }
                if constexpr (TWO && G > 1) _tile_dpbf16ps(3, 5, 7);
            }
        alignas(64) float sums[2][tiles::ROWS][G][16];
        constexpr int64_t NEXT = G * tiles::LINE;
        _tile_stored(0, sums[0][0][0], NEXT);
        if constexpr (G > 1) _tile_stored(1, sums[0][0][1], NEXT);
        if constexpr (TWO) _tile_stored(2, sums[1][0][0], NEXT);
        if constexpr (TWO && G > 1) _tile_stored(3, sums[1][0][1], NEXT);
        for (int i = 0; i < (TWO ? 2 : 1); i++)
            for (int p = 0; p < some[i].count; p++) {
                __m512 sum[G];
                for (int g = 0; g < G; g++) sum[g] = _mm512_loadu_ps(sums[i][p][g]);
                finish<G>(sum, some[i].pixel + p, first, some[i].hr_pixel + p * hr_step());
            }
    }

    template <bool TWO>
    void all_outputs(const Part* some) const {
        const char* w = (const char*)step.weight;
        registers->set_rows(some[0].count, some[TWO].count);
        for (int group = 0; group < step.outputs; group += 64) {
            const int blocks = std::min(4, (step.outputs - group + 15) / 16);
            for (int b = 0; b < blocks; b += 2) {
                const char* at = w + b * tiles::LINE;
                if (b + 1 < blocks)
                    tile_block<2, TWO>(some, at, blocks * tiles::LINE, group + 16 * b);
                else
                    tile_block<1, TWO>(some, at, blocks * tiles::LINE, group + 16 * b);
            }
            w += int64_t(9) * step.inputs * sizeof(T) / 4 * blocks * tiles::LINE;
        }
    }

    // Runs in parts of nearly the same length, as another length takes another setting of the registers; two at a time
    // where the weights do not stay in the first cache, one else.
    void by_tiles(const Run* from, const Run* to) const {
        constexpr int64_t CACHE = 32 << 10;
        const bool pairs = step.weight_bytes > CACHE;
        Part some[2];
        int waiting = 0;
        for (const Run* run = from; run < to; run++) {
            const int64_t pixel = runs::canvas_pixel(job, *run), hr_pixel = runs::hr_pixel(job, *run);
            const int parts = (run->length + tiles::ROWS - 1) / tiles::ROWS, most = (run->length + parts - 1) / parts;
            for (int x = 0; x < run->length; x += most) {
                some[waiting++] = {pixel + x, hr_pixel + x * hr_step(), std::min(most, run->length - x)};
                if (!pairs)
                    all_outputs<false>(some), waiting = 0;
                else if (waiting == 2)
                    all_outputs<true>(some), waiting = 0;
            }
        }
        if (waiting) all_outputs<false>(some);
    }
#endif

    template <int BLOCKS, int PIXELS>
    void rest(int count, int64_t pixel, const T* weight, int first, int64_t hr_pixel) const {
        if constexpr (PIXELS > 0) {
            if (count == PIXELS)
                block<BLOCKS, PIXELS>(pixel, weight, first, hr_pixel);
            else
                rest<BLOCKS, PIXELS - 1>(count, pixel, weight, first, hr_pixel);
        }
    }

    template <int BLOCKS, int PIXELS>
    void along(int length, int64_t pixel, const T* weight, int first, int64_t hr_pixel) const {
        int x = 0;
        for (; x + PIXELS <= length; x += PIXELS)
            block<BLOCKS, PIXELS>(pixel + x, weight, first, hr_pixel + x * hr_step());
        rest<BLOCKS, PIXELS - 1>(length - x, pixel + x, weight, first, hr_pixel + x * hr_step());
    }

    void operator()(const Run& run) const {
        const int64_t pixel = runs::canvas_pixel(job, run), hr_pixel = runs::hr_pixel(job, run);
        const T* weight = (const T*)step.weight;
        for (int first = 0; first < step.outputs; first += 64) {
            const int blocks = std::min(4, (step.outputs - first + 15) / 16);
            if (blocks == 4) along<4, 6>(run.length, pixel, weight, first, hr_pixel);
            if (blocks == 3) along<3, 8>(run.length, pixel, weight, first, hr_pixel);
            if (blocks == 2) along<2, 12>(run.length, pixel, weight, first, hr_pixel);
            if (blocks == 1) along<1, 12>(run.length, pixel, weight, first, hr_pixel);
            weight += int64_t(9) * step.inputs * 16 * blocks;
        }
    }
};

template <typename T>
void fill_lr(const Job& job, const Run& run) {
    T* to = (T*)job.canvas[0] + runs::canvas_pixel(job, run) * LR_CHANNELS;
    const float* from =
        job.lr + run.image * job.lr_stride[0] + run.y * job.lr_stride[2] + run.x * job.lr_stride[3];
    for (int x = 0; x < run.length; x++, to += LR_CHANNELS, from += job.lr_stride[3]) {
        for (int c = 0; c < 3; c++) put(to + c, from[c * job.lr_stride[1]] - job.mean[c]);
        put(to + 3, 0.0f);
    }
}

template <typename T>
void execute(const Job& job, const Step* steps) {
    int most = job.reach[0];
    for (int s = 0; s < job.steps; s++) most = std::max(most, steps[s].reach);
    std::vector<Share> shares(most + 1);
    const auto prepare = [&](int reach) {
        if (shares[reach].start.empty()) shares[reach] = runs::share_out(job, reach);
    };
    prepare(job.reach[0]);
    for (int s = 0; s < job.steps; s++) prepare(steps[s].reach);
    const std::vector<int64_t> hr_offset = runs::hr_offsets(job);
    const auto work = [&](int thread, int s) {
        const Step& step = steps[s];
        const Share& share = shares[step.reach];
        std::optional<tiles::Registers> registers;
#ifdef HAS_BF16_TILES
        if (std::is_same_v<T, bf16> && tiles::allowed()) registers.emplace(3 * step.inputs * sizeof(T));
#endif
        const Convolution<T> convolution{
            step,
            job,
            (const T*)job.canvas[step.source],
            step.target < 0 ? nullptr : (T*)job.canvas[step.target],
            step.residual < 0 ? nullptr : (const T*)job.canvas[step.residual],
            int64_t(job.width + 2) * step.inputs,
            hr_offset.data(),
            registers ? &*registers : nullptr,
        };
        const Run *from = share.runs.data() + share.start[thread], *to = share.runs.data() + share.start[thread + 1];
#ifdef HAS_BF16_TILES
        if constexpr (std::is_same_v<T, bf16>)
            if (registers) return convolution.by_tiles(from, to);
#endif
        std::for_each(from, to, convolution);
    };
    std::atomic<bool> failed{false};  // an exception must not leave a thread
#pragma omp parallel num_threads(job.threads)
    {
        const int number = omp_get_num_threads();  // fewer than asked for where OpenMP limits them
        for (int thread = omp_get_thread_num(); thread < job.threads; thread += number) {
            try {
                for (int canvas = 0; canvas < job.canvases; canvas++) runs::clear_ring(job, canvas, thread, sizeof(T), 0);
            } catch (const std::bad_alloc&) {
                failed = true;
            }
            const Share& share = shares[job.reach[0]];
            for (size_t r = share.start[thread]; r < share.start[thread + 1]; r++) fill_lr<T>(job, share.runs[r]);
        }
        for (int s = 0; s < job.steps; s++) {
#pragma omp barrier  // a layer is complete before the next reads it
            if (failed) continue;
            for (int thread = omp_get_thread_num(); thread < job.threads; thread += number) work(thread, s);
        }
    }
    if (failed) throw std::bad_alloc();
}

template <typename T>
int32_t run(const Job* job, const Step* steps, char* message, int64_t message_size) {
    const auto say = [&](int32_t code, const char* why) {
        if (message && message_size > 0) std::snprintf(message, message_size, "%s", why);
        return code;
    };
    try {
        checks::all<T>(job, steps);
        if (job->batch) execute<T>(*job, steps);
        return 0;
    } catch (const std::bad_alloc&) {
        return say(2, "out of memory");
    } catch (const std::exception& error) {
        return say(1, error.what());
    }
}

}  // namespace

extern "C" {
int32_t run_float32(const Job* job, const Step* steps, char* message, int64_t message_size) {
    return run<float>(job, steps, message, message_size);
}
#ifdef __AVX512BF16__
int32_t run_bfloat16(const Job* job, const Step* steps, char* message, int64_t message_size) {
    return run<bf16>(job, steps, message, message_size);
}
#endif
}
