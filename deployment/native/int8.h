// What a caller hands to the int8 kernel, and the checks before any of it is used; see job.h.

#pragma once

#include "job.h"

extern "C" {
// value = convolution(source) + bias [+ residual], [relu]; it goes to `target` and, rounded, to `rounded`.
// From an 8-bit canvas the convolution is one of integers: float(sum + offset) * scale.
struct Int8Step {
    const void* weight;     // packed by deployment/native_int8.py: [group of 16 outputs][position][lane][output][input]
    const float* bias;      // outputs, filled up to a multiple of 16; likewise:
    const float* scale;     // value of one unit of the sum; null for fp32 sources
    const int32_t* offset;  // minus the zero point times the sum of the weights; null for fp32 sources
    int64_t weight_bytes, bias_bytes, scale_bytes, offset_bytes;
    int32_t inputs, outputs;
    int32_t source, residual, rounded;  // numbers of canvases; residual, rounded -1: none
    int32_t target;                     // -1: the HR image, -2: none
    int32_t relu, reach;
    float unit;  // rounded = clamp(round(value * unit) + zero point, 0, 255)
};

// As `run_float32`. `zero` tells for every canvas its zero point, 0 to 255; -1: it holds fp32.
int32_t run_int8(const Job* job, const Int8Step* steps, const int32_t* zero, char* message, int64_t message_size);

// How weights have to be packed: 4 inputs a lane (VNNI), or 2, transformed for pairs of pixels.
int32_t int8_lane();
}

namespace checks {

constexpr int64_t MOST_INPUTS = 2048;  // of integer sums: twice 9 * 2048 * 255 * 127 fits into 32 bits

inline int64_t item_bytes(int32_t zero) { return zero < 0 ? sizeof(float) : 1; }

inline void int8_canvases(const Job& job, const int32_t* zero) {
    pointer("zero", zero, sizeof(int32_t));
    canvas_lists(job);
    for (int c = 0; c < job.canvases; c++) {
        range("zero", zero[c], -1, c ? 255 : -1, "canvas", c);
        canvas_memory(job, c, item_bytes(zero[c]));
    }
}

inline void int8_weights(const Int8Step& step, int s, bool floats, int64_t lane) {
    const int64_t filled = (step.outputs + 15) / 16 * 16;
    const int64_t taps = floats ? 9 * sizeof(float) : lane == 4 ? 9 : 12 * sizeof(int16_t);
    pointer("weight", step.weight, sizeof(float), "step", s);
    pointer("bias", step.bias, sizeof(float), "step", s);
    range("weight_bytes", step.weight_bytes, taps * step.inputs * filled, ANY_SIZE, "step", s);
    range("bias_bytes", step.bias_bytes, 4 * filled, ANY_SIZE, "step", s);
    if (floats) return;
    range("inputs", step.inputs, 4, MOST_INPUTS, "step", s);
    require(step.inputs % 4 == 0, "inputs is not a multiple of 4", "step", s);
    pointer("scale", step.scale, sizeof(float), "step", s);
    pointer("offset", step.offset, sizeof(int32_t), "step", s);
    range("scale_bytes", step.scale_bytes, 4 * filled, ANY_SIZE, "step", s);
    range("offset_bytes", step.offset_bytes, 4 * filled, ANY_SIZE, "step", s);
}

// A canvas that a step writes.
inline void int8_target(const Job& job, const Int8Step& step, int s, int canvas, bool kind) {
    require(kind, "it writes a canvas of the other type", "step", s);
    require(canvas != step.source, "source and target are one canvas; they must differ", "step", s);
    range("outputs", step.outputs, job.channels[canvas], job.channels[canvas], "step", s);
    range("reach", step.reach, 0, job.reach[canvas], "step", s);
    require(step.outputs % 16 == 0, "outputs is not a multiple of 16", "step", s);
}

inline void int8_layers(const Job& job, const Int8Step* steps, const int32_t* zero, int64_t lane) {
    Computed computed(job);
    for (int s = 0; s < job.steps; s++) {
        const Int8Step& step = steps[s];
        computed.check("source", step.source, s, step.reach, 1);
        range("inputs", step.inputs, job.channels[step.source], job.channels[step.source], "step", s);
        range("target", step.target, -2, job.canvases - 1, "step", s);
        range("rounded", step.rounded, -1, job.canvases - 1, "step", s);
        require(step.target != -2 || step.rounded != -1, "it writes nothing", "step", s);
        if (step.target >= 0) int8_target(job, step, s, step.target, zero[step.target] < 0);
        if (step.rounded >= 0) int8_target(job, step, s, step.rounded, zero[step.rounded] >= 0);
        if (step.target == -1) {
            const int64_t outputs = 3 * job.scale * job.scale;
            range("outputs", step.outputs, outputs, outputs, "step", s);
            range("reach", step.reach, 0, 0, "step", s);
        }
        if (step.residual != -1) {
            computed.check("residual", step.residual, s, step.reach, 0);
            require(zero[step.residual] < 0, "its residual is no fp32 canvas", "step", s);
            range("outputs", step.outputs, job.channels[step.residual], job.channels[step.residual], "step", s);
            require(step.outputs % 16 == 0, "outputs is not a multiple of 16", "step", s);
        }
        if (step.target >= 0) computed.reach[step.target] = step.reach;
        if (step.rounded >= 0) computed.reach[step.rounded] = step.reach;
        int8_weights(step, s, zero[step.source] < 0, lane);
    }
}

// See `all`.
inline void all_int8(const Job* job, const Int8Step* steps, const int32_t* zero, int64_t lane) {
    pointer("job", job, alignof(Job));
    image_sizes(*job, sizeof(Int8Step));
    if (!job->batch) return;
    pointer("steps", steps, alignof(Int8Step));
    image_memory(*job);
    int8_canvases(*job, zero);
    int8_layers(*job, steps, zero, lane);
}

}  // namespace checks
