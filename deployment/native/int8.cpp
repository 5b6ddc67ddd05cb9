// Chains of 3x3 convolutions of 8-bit integers, computed in place on the selected patches; see block_sparse.cpp.
//
// Maps are NHWC canvases of bytes, value = (byte - zero point) / unit, and of floats: the image, and the sums that
// residuals are added to. First and last layer read floats. Integer sums are exact, floats are rounded in a stated order,
// so that every CPU gives the same bytes. With AVX-512 VNNI a register takes 64 products at once, with AMX 16,384. Without
// either, pairs of neighbouring outputs share products as in Winograd's F(2, 3): 4 instead of 6 for each row of taps, in
// 16-bit integers, twice the value, which stays exact (Lavin and Gray 2016, arXiv:1509.09308). All need no more than a C++
// compiler.

#include <omp.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <new>
#include <optional>
#include <vector>

#include "int8.h"
#include "products.h"
#include "runs.h"
#include "tiles.h"

namespace {

using namespace products;
using checks::LR_CHANNELS;
using runs::Run;
using runs::Share;

// 1 or 2 pixels next to each other, computed together.
struct Tile {
    int64_t pixel, hr_pixel;  // in a canvas, in the HR images
    int count;
};

// 16 channels of one pixel, in the vectors that the CPU has.
using Floats = float __attribute__((vector_size(64)));
using Ints = int32_t __attribute__((vector_size(64)));
using Unsigned = uint32_t __attribute__((vector_size(64)));
using Bytes = uint8_t __attribute__((vector_size(16)));

template <typename Vector>
inline Vector load(const void* from) {
    Vector value;
    std::memcpy(&value, from, sizeof value);
    return value;
}

// -------------------------------------------------------------------------------------------------------------- layers

#ifdef __AVX512VNNI__
// std::memcpy of a multiple of 4 bytes, without a call.
inline void copy(uint8_t* to, const uint8_t* from, int64_t bytes) {
    int64_t i = 0;
    for (; i + 64 <= bytes; i += 64) std::memcpy(to + i, from + i, 64);
    for (; i + 16 <= bytes; i += 16) std::memcpy(to + i, from + i, 16);
    for (; i < bytes; i += 4) std::memcpy(to + i, from + i, 4);
}
#endif

// Inputs of a tile as `multiply` takes them, for each position `apart` further; `from` is the pixel above left of it.
inline void pack(const uint8_t* from, int64_t row, int inputs, [[maybe_unused]] int count,
                 [[maybe_unused]] int64_t apart, Input* to) {
    for (int ky = 0; ky < 3; ky++, from += row) {
#ifdef __AVX512VNNI__
        copy(to, from, 3 * inputs);
        to += 3 * inputs;
#else
        const uint8_t *a = from, *b = a + inputs, *c = b + inputs, *d = count == 2 ? c + inputs : c;
#pragma omp simd
        for (int i = 0; i < inputs; i++) {
            to[i] = Input(a[i] - c[i]);
            to[apart + i] = Input(b[i] + c[i]);
            to[2 * apart + i] = Input(c[i] - b[i]);
            to[3 * apart + i] = Input(b[i] - d[i]);
        }
        to += inputs;
#endif
    }
}

// Sums of output `number` of a tile from its products; `apart` lies between positions.
inline Ints sums_of(const int32_t* product, int64_t apart, int number) {
    if (POSITIONS == 1) return load<Ints>(product);
    const auto at = [&](int position) { return load<Unsigned>(product + position * apart); };  // may wrap, the result not
    return Ints(number ? at(1) - at(2) - at(3) : at(0) + at(1) + at(2)) >> 1;
}

// One layer on the pixels of one thread: tiles are gathered from all its runs, and computed TILES at a time.
class Layer {
public:
    Layer(const Job& job, const Int8Step& step, const int32_t* zero, const int64_t* hr_offset)
        : job(job), step(step), zero(zero), hr_offset(hr_offset), floats(zero[step.source] < 0),
          depth(int64_t(step.inputs) * (floats || POSITIONS == 1 ? 9 : 3)) {}

    // Of memory for `compute`.
    int64_t bytes() const { return depth * TILES * (floats ? sizeof(float) : POSITIONS * sizeof(Input)); }

    void compute(const Share& share, int thread, void* packed) const {
        Tile tiles[TILES];
        int count = 0;
        const int widest = floats ? 1 : TILE;
        Registers registers;
        if (BYTE_TILES && !floats && tiles::allowed()) registers.emplace(3 * step.inputs).set_rows(TILES, TILES);
        for (size_t r = share.start[thread]; r < share.start[thread + 1]; r++) {
            const Run& run = share.runs[r];
            const int64_t pixel = runs::canvas_pixel(job, run), hr = runs::hr_pixel(job, run);
            for (int x = 0; x < run.length; x += widest) {
                tiles[count++] = {pixel + x, hr + x * hr_step(), std::min(widest, run.length - x)};
                if (count == TILES) flush(tiles, count, packed, registers), count = 0;
            }
        }
        if (count) flush(tiles, count, packed, registers);
    }

private:
    int64_t hr_step() const { return job.scale * job.hr_stride[3]; }

    using Registers = std::optional<tiles::Registers>;

    struct Inputs {  // of the first tile; from a tile to the next, from a row of the kernel to the next
        const Input* at;
        int64_t next_tile, next_row;
    };

    void flush(const Tile* tiles, int count, void* packed, const Registers& registers) const {
        if (!floats)
            integers(tiles, count, (Input*)packed, registers);
        else if (step.rounded < 0)
            in_floats<true>(tiles, count, (float*)packed);
        else
            in_floats<false>(tiles, count, (float*)packed);  // the same bytes everywhere
    }

    void integers(const Tile* tiles, int count, Input* packed, const Registers& registers) const {
        const int64_t row = int64_t(job.width + 2) * step.inputs, apart = TILES * depth;
        const auto above_left = [&](const Tile& tile) {
            return (const uint8_t*)job.canvas[step.source] + (tile.pixel - 1) * step.inputs - row;
        };
        Inputs inputs{packed, depth, 3 * step.inputs};
        if (registers && count == TILES && tiles[TILES - 1].pixel - tiles[0].pixel == TILES - 1)
            inputs = {(const Input*)above_left(tiles[0]), step.inputs, row};  // AMX takes a run as it lies there
        else
            for (int t = 0; t < count; t++)
                pack(above_left(tiles[t]), row, step.inputs, tiles[t].count, apart, packed + t * depth);
        const int64_t group = POSITIONS * depth * OUTPUTS;
        const int groups = (step.outputs + OUTPUTS - 1) / OUTPUTS;
        for (int first = 0; first < groups;) {
            const Weight* weight = (const Weight*)step.weight + first * group;
            const auto some = [&](auto number) {
                groups_of<number>(tiles, count, inputs, weight, first, registers), first += number;
            };
            if (GROUPS >= 4 && first + 4 <= groups)
                some(Number<std::min(4, GROUPS)>());
            else if (GROUPS >= 2 && first + 2 <= groups)
                some(Number<std::min(2, GROUPS)>());
            else
                some(Number<1>());
        }
    }

    template <int G>
    void groups_of(const Tile* tiles, int count, const Inputs& inputs, const Weight* weight, int first_group,
                   const Registers& registers) const {
        const int64_t lanes = depth / LANE, group = POSITIONS * depth * OUTPUTS;
        alignas(64) int32_t products[POSITIONS][TILES][G][OUTPUTS];
        if (registers)
            multiply<G>(*registers, inputs.at, inputs.next_tile, inputs.next_row, weight, group, products[0][0][0]);
        else
            for (int position = 0; position < POSITIONS; position++, weight += depth * OUTPUTS)
                in_blocks(count, [&](int t, auto number) {
                    const Input* at = inputs.at + (position * TILES + t) * depth;
                    multiply<number, G>(at, weight, lanes, group, products[position][t][0]);
                });
        for (int g = 0; g < G; g++) {
            const int first = (first_group + g) * OUTPUTS;
            const auto offset = load<Ints>(step.offset + first);
            const auto scale = load<Floats>(step.scale + first);
            for (int t = 0; t < count; t++)
                for (int number = 0; number < tiles[t].count; number++) {
                    const Ints sum = sums_of(products[0][t][g], TILES * G * OUTPUTS, number) + offset;
                    finish(__builtin_convertvector(sum, Floats) * scale, first, tiles[t].pixel + number,
                           tiles[t].hr_pixel + number * hr_step());
                }
        }
    }

    template <bool FUSED>
    void in_floats(const Tile* tiles, int count, float* packed) const {
        const int64_t row = int64_t(job.width + 2) * step.inputs;
        for (int t = 0; t < count; t++)
            for (int ky = 0; ky < 3; ky++)  // three neighbouring pixels are one stretch of memory
                std::memcpy(packed + t * depth + ky * 3 * step.inputs,
                            (const float*)job.canvas[step.source] + (tiles[t].pixel - 1) * step.inputs + (ky - 1) * row,
                            3 * step.inputs * sizeof(float));
        const float* weight = (const float*)step.weight;
        for (int first = 0; first < step.outputs; first += OUTPUTS, weight += depth * OUTPUTS) {
            alignas(64) float sums[TILES][OUTPUTS];
            in_blocks(count, [&](int t, auto number) {
                multiply<number, FUSED>(packed + t * depth, weight, depth, sums[t]);
            });
            for (int t = 0; t < count; t++) finish(load<Floats>(sums[t]), first, tiles[t].pixel, tiles[t].hr_pixel);
        }
    }

    // What follows the convolution, for 16 channels of one pixel.
    __attribute__((always_inline)) void finish(Floats value, int first, int64_t pixel,
                                               int64_t hr_pixel) const {
        const int64_t at = pixel * step.outputs + first;
        value += load<Floats>(step.bias + first);
        if (step.residual >= 0) value += load<Floats>((const float*)job.canvas[step.residual] + at);
        if (step.relu) value = value > 0 ? value : Floats{};
        if (step.target >= 0) std::memcpy((float*)job.canvas[step.target] + at, &value, sizeof value);
        if (step.rounded >= 0) round(value, (uint8_t*)job.canvas[step.rounded] + at);
        if (step.target != -1) return;
        const int count = std::min(OUTPUTS, step.outputs - first);
        if (job.hr_bf16)
            for (int c = 0; c < count; c++) ((runs::bf16*)job.hr)[hr_pixel + hr_offset[first + c]] = runs::narrow(value[c]);
        else
            for (int c = 0; c < count; c++) ((float*)job.hr)[hr_pixel + hr_offset[first + c]] = value[c];
    }

    __attribute__((always_inline)) void round(Floats value, uint8_t* to) const {
        constexpr float EVEN = 12582912.0f;  // 1.5 * 2^23: adding it rounds to nearest, ties to even
        const float least = -zero[step.rounded];
        const Floats low = Floats{} + least, high = low + 255.0f;
        Floats scaled = value * step.unit;
        scaled = scaled > low ? scaled : low;
        scaled = scaled < high ? scaled : high;
        const Bytes bytes = __builtin_convertvector(__builtin_convertvector((scaled + EVEN) - EVEN - low, Ints), Bytes);
        std::memcpy(to, &bytes, sizeof bytes);
    }

    const Job& job;
    const Int8Step& step;
    const int32_t* zero;
    const int64_t* hr_offset;
    const bool floats;
    const int64_t depth;  // inputs of one sum
};

// ------------------------------------------------------------------------------------------------------------- a call

void fill_lr(const Job& job, const Run& run) {
    float* to = (float*)job.canvas[0] + runs::canvas_pixel(job, run) * LR_CHANNELS;
    const float* from = job.lr + run.image * job.lr_stride[0] + run.y * job.lr_stride[2] + run.x * job.lr_stride[3];
    for (int x = 0; x < run.length; x++, to += LR_CHANNELS, from += job.lr_stride[3]) {
        for (int c = 0; c < 3; c++) to[c] = from[c * job.lr_stride[1]] - job.mean[c];
        to[3] = 0.0f;
    }
}

void execute(const Job& job, const Int8Step* steps, const int32_t* zero) {
    const std::vector<int64_t> hr_offset = runs::hr_offsets(job);
    std::vector<Layer> layers;
    int64_t most = 0;
    int furthest = job.reach[0];
    for (int s = 0; s < job.steps; s++) {
        layers.emplace_back(job, steps[s], zero, hr_offset.data());
        most = std::max(most, layers.back().bytes());
        furthest = std::max(furthest, steps[s].reach);
    }
    std::vector<Share> shares(furthest + 1);
    const auto prepare = [&](int reach) {
        if (shares[reach].start.empty()) shares[reach] = runs::share_out(job, reach);
    };
    prepare(job.reach[0]);
    for (int s = 0; s < job.steps; s++) prepare(steps[s].reach);
    std::atomic<bool> failed{false};  // an exception must not leave a thread
#pragma omp parallel num_threads(job.threads)
    {
        const int number = omp_get_num_threads();  // fewer than asked for where OpenMP limits them
        std::vector<uint8_t> memory;
        void* packed = nullptr;
        try {
            memory.resize(most + 64);
            packed = (void*)((uintptr_t(memory.data()) + 63) / 64 * 64);  // AMX reads whole lines of the cache
            for (int thread = omp_get_thread_num(); thread < job.threads; thread += number)
                for (int canvas = 0; canvas < job.canvases; canvas++)
                    runs::clear_ring(job, canvas, thread, checks::item_bytes(zero[canvas]), std::max(0, zero[canvas]));
        } catch (const std::bad_alloc&) {
            failed = true;
        }
        const Share& share = shares[job.reach[0]];
        for (int thread = omp_get_thread_num(); thread < job.threads; thread += number)
            for (size_t r = share.start[thread]; r < share.start[thread + 1]; r++) fill_lr(job, share.runs[r]);
        for (int s = 0; s < job.steps; s++) {
#pragma omp barrier  // a layer is complete before the next reads it
            if (failed) continue;
            for (int thread = omp_get_thread_num(); thread < job.threads; thread += number)
                layers[s].compute(shares[steps[s].reach], thread, packed);
        }
    }
    if (failed) throw std::bad_alloc();
}

}  // namespace

extern "C" {
int32_t run_int8(const Job* job, const Int8Step* steps, const int32_t* zero, char* message, int64_t message_size) {
    const auto say = [&](int32_t code, const char* why) {
        if (message && message_size > 0) std::snprintf(message, message_size, "%s", why);
        return code;
    };
    try {
        checks::all_int8(job, steps, zero, LANE);
        if (job->batch) execute(*job, steps, zero);
        return 0;
    } catch (const std::bad_alloc&) {
        return say(2, "out of memory");
    } catch (const std::exception& error) {
        return say(1, error.what());
    }
}

int32_t int8_lane() { return LANE; }
}
