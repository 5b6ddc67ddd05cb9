// What a caller hands to the kernel, and the checks before any of it is used: a few comparisons a call. A call that
// passes them touches no memory outside the stated sizes, whatever its numbers are.

#pragma once

#include <cstdint>
#include <cstdio>
#include <stdexcept>

extern "C" {
struct Step {              // target = [relu](convolution(source) + bias [+ residual])
    const void* weight;    // packed by deployment/native_execution.py: [group of <= 64 outputs][tap][input][output]
    const float* bias;     // outputs, filled up to a multiple of 16
    int64_t weight_bytes, bias_bytes;
    int32_t inputs, outputs;
    int32_t source, target, residual;  // numbers of canvases; target -1: the HR image, residual -1: none
    int32_t relu, reach;
};

struct Job {
    int64_t job_bytes, step_bytes;  // of these structures as the caller knows them
    const uint8_t* mask;            // (batch, rows, columns)
    const float* lr;                // (batch, 3, height, width) with these strides, in elements
    void* hr;                       // (batch, 3, scale * height, scale * width)
    int64_t mask_bytes, lr_bytes, hr_bytes;  // of memory from there on
    int64_t lr_stride[4], hr_stride[4];
    float mean[3];  // subtracted from the LR images
    int32_t batch, rows, columns, patch, height, width, scale;
    int32_t hr_bf16, steps, canvases, threads;
    const int32_t* channels;     // of every canvas; canvas 0 holds the LR images
    void* const* canvas;         // (batch, height + 2, width + 2, channels) each
    const int64_t* canvas_bytes;  // of every canvas
    const int32_t* reach;        // of every canvas: the furthest that any step writes
};

// 0: done. 1: refused, nothing was written. 2: out of memory. The message says why, cut to `message_size` bytes.
int32_t run_float32(const Job* job, const Step* steps, char* message, int64_t message_size);
int32_t run_bfloat16(const Job* job, const Step* steps, char* message, int64_t message_size);
}

namespace checks {

constexpr int LR_CHANNELS = 4;  // three colours and a zero: pairs for bfloat16
constexpr int64_t MOST_SIDE = 1 << 24, MOST_STRIDE = int64_t(1) << 40, ANY_SIZE = INT64_MAX;
constexpr int64_t MOST_CHANNELS = 1 << 16, MOST_REACH = 1 << 16, MOST_SCALE = 64;
constexpr int64_t MOST_THREADS = 1 << 12, MOST_CANVASES = 32, MOST_STEPS = 1 << 16;

using Wide = __int128;  // sides times strides

// "step 3: reach is -1; it must be 0 to 65536".
[[noreturn]] inline void refuse(const char* text, const char* of, int number) {
    char whole[224];
    if (number < 0)
        std::snprintf(whole, sizeof whole, "%s", text);
    else
        std::snprintf(whole, sizeof whole, "%s %d: %s", of, number, text);
    throw std::invalid_argument(whole);
}

inline void require(bool holds, const char* otherwise, const char* of = "", int number = -1) {
    if (!holds) refuse(otherwise, of, number);
}

inline void range(const char* name, int64_t value, Wide least, int64_t most, const char* of = "", int number = -1) {
    if (value >= least && value <= most) return;
    char text[192];
    const auto low = (long long)(least > INT64_MAX ? INT64_MAX : int64_t(least));
    if (most == ANY_SIZE)
        std::snprintf(text, sizeof text, "%s is %lld; it must be at least %lld", name, (long long)value, low);
    else if (low == most)
        std::snprintf(text, sizeof text, "%s is %lld; it must be %lld", name, (long long)value, low);
    else
        std::snprintf(text, sizeof text, "%s is %lld; it must be %lld to %lld", name, (long long)value, low,
                      (long long)most);
    refuse(text, of, number);
}

inline void pointer(const char* name, const void* value, size_t alignment, const char* of = "", int number = -1) {
    if (value != nullptr && uintptr_t(value) % alignment == 0) return;
    char text[96];
    std::snprintf(text, sizeof text, "%s is %s; it must point to aligned memory", name, value ? "not aligned" : "null");
    refuse(text, of, number);
}

// Elements that images (batch, 3, height, width) with these strides span.
inline Wide span(const int64_t* stride, Wide batch, Wide height, Wide width) {
    return (batch - 1) * stride[0] + 2 * Wide(stride[1]) + (height - 1) * stride[2] + (width - 1) * stride[3] + 1;
}

inline void image_sizes(const Job& job, int64_t step_bytes) {
    range("job_bytes", job.job_bytes, sizeof(Job), sizeof(Job));
    range("step_bytes", job.step_bytes, step_bytes, step_bytes);
    range("batch", job.batch, 0, MOST_SIDE);
    range("height", job.height, 1, MOST_SIDE);
    range("width", job.width, 1, MOST_SIDE);
    range("scale", job.scale, 1, MOST_SCALE);
    range("patch", job.patch, 1, INT32_MAX);
    const int64_t rows = (int64_t(job.height) + job.patch - 1) / job.patch;
    const int64_t columns = (int64_t(job.width) + job.patch - 1) / job.patch;
    range("rows", job.rows, rows, rows);
    range("columns", job.columns, columns, columns);
    range("hr_bf16", job.hr_bf16, 0, 1);
    range("threads", job.threads, 1, MOST_THREADS);
    range("canvases", job.canvases, 1, MOST_CANVASES);
    range("steps", job.steps, 1, MOST_STEPS);
}

inline void image_memory(const Job& job) {
    pointer("mask", job.mask, 1);
    pointer("lr", job.lr, sizeof(float));
    pointer("hr", job.hr, job.hr_bf16 ? sizeof(uint16_t) : sizeof(float));
    for (int d = 0; d < 4; d++) {
        range("lr_stride", job.lr_stride[d], 0, MOST_STRIDE, "dimension", d);
        range("hr_stride", job.hr_stride[d], 0, MOST_STRIDE, "dimension", d);
    }
    range("mask_bytes", job.mask_bytes, Wide(job.batch) * job.rows * job.columns, ANY_SIZE);
    range("lr_bytes", job.lr_bytes, 4 * span(job.lr_stride, job.batch, job.height, job.width), ANY_SIZE);
    const Wide height = Wide(job.scale) * job.height, width = Wide(job.scale) * job.width;
    range("hr_bytes", job.hr_bytes, (job.hr_bf16 ? 2 : 4) * span(job.hr_stride, job.batch, height, width), ANY_SIZE);
}

inline void canvas_lists(const Job& job) {
    pointer("channels", job.channels, sizeof(int32_t));
    pointer("canvas", job.canvas, sizeof(void*));
    pointer("canvas_bytes", job.canvas_bytes, sizeof(int64_t));
    pointer("reach", job.reach, sizeof(int32_t));
}

inline void canvas_memory(const Job& job, int c, int64_t item_bytes) {
    const Wide pixels = Wide(job.batch) * (job.height + 2) * (job.width + 2);
    range("channels", job.channels[c], c ? 1 : LR_CHANNELS, c ? MOST_CHANNELS : LR_CHANNELS, "canvas", c);
    range("reach", job.reach[c], 0, MOST_REACH, "canvas", c);
    pointer("memory", job.canvas[c], sizeof(float), "canvas", c);
    range("canvas_bytes", job.canvas_bytes[c], pixels * job.channels[c] * item_bytes, ANY_SIZE, "canvas", c);
}

// How far every canvas has been computed; -1: not at all.
struct Computed {
    const Job& job;
    int reach[MOST_CANVASES];

    explicit Computed(const Job& job) : job(job) {
        for (int& each : reach) each = -1;
        reach[0] = job.reach[0];  // the LR images
    }

    // Step `s` reads `canvas` as far as `far`, `margin` pixels further where taps reach.
    void check(const char* name, int canvas, int s, int far, int margin) const {
        range(name, canvas, 0, job.canvases - 1, "step", s);
        require(reach[canvas] >= 0, "it reads a canvas that no step before it computes", "step", s);
        const bool zeros = reach[canvas] == job.reach[canvas];  // lie around it
        range("reach", far, 0, job.reach[canvas], "step", s);
        const int most = reach[canvas] - (zeros ? 0 : margin);
        require(far <= most, "it reads further than a step before it computed", "step", s);
    }
};

template <typename T>
void layers(const Job& job, const Step* steps) {
    Computed computed(job);
    for (int s = 0; s < job.steps; s++) {
        const Step& step = steps[s];
        computed.check("source", step.source, s, step.reach, 1);
        range("inputs", step.inputs, job.channels[step.source], job.channels[step.source], "step", s);
        range("target", step.target, -1, job.canvases - 1, "step", s);
        require(step.target != step.source, "source and target are one canvas; they must differ", "step", s);
        const bool to_hr = step.target == -1;
        const int64_t outputs = to_hr ? 3 * job.scale * job.scale : job.channels[step.target];
        range("outputs", step.outputs, outputs, outputs, "step", s);
        range("reach", step.reach, 0, to_hr ? 0 : job.reach[step.target], "step", s);
        if (step.residual != -1) {
            computed.check("residual", step.residual, s, step.reach, 0);
            range("outputs", step.outputs, job.channels[step.residual], job.channels[step.residual], "step", s);
        }
        const bool vectors = !to_hr || step.residual != -1;  // of 16 are stored or loaded
        require(!vectors || step.outputs % 16 == 0, "outputs is not a multiple of 16", "step", s);
        if (!to_hr) computed.reach[step.target] = step.reach;
        const int64_t filled = (step.outputs + 15) / 16 * 16;
        pointer("weight", step.weight, sizeof(float), "step", s);
        pointer("bias", step.bias, sizeof(float), "step", s);
        range("weight_bytes", step.weight_bytes, 9 * step.inputs * filled * sizeof(T), ANY_SIZE, "step", s);
        range("bias_bytes", step.bias_bytes, 4 * filled, ANY_SIZE, "step", s);
    }
}

// Throws std::invalid_argument with the argument's name, its value and what is right. T: type of weights and canvases.
template <typename T>
void all(const Job* job, const Step* steps) {
    pointer("job", job, alignof(Job));
    image_sizes(*job, sizeof(Step));
    if (!job->batch) return;  // nothing will be touched
    pointer("steps", steps, alignof(Step));
    image_memory(*job);
    canvas_lists(*job);
    for (int c = 0; c < job->canvases; c++) canvas_memory(*job, c, sizeof(T));
    layers<T>(*job, steps);
}

}  // namespace checks
