// Which pixels a kernel computes and where they lie: row runs of the selected patches, shared out among threads.

#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

#include "job.h"

namespace runs {

using bf16 = uint16_t;  // the upper half of a float

inline bf16 narrow(float value) {  // to nearest, ties to even
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    if ((bits & 0x7fffffff) > 0x7f800000) return bf16(bits >> 16 | 0x40);  // stays NaN
    return bf16((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

struct Run {
    int image, y, x, length;
};

using Interval = std::pair<int, int>;

// Pixels [from, to) of row y that lie in selected patches or at most `reach` pixels from one, within `border` of the image.
inline void find_row(const Job& job, int image, int y, int reach, int border, std::vector<Interval>& row) {
    row.clear();
    const int low = std::max(0, y - reach) / job.patch;
    const int high = std::min(job.height - 1, y + reach) / job.patch;
    const uint8_t* mask = job.mask + int64_t(image) * job.rows * job.columns;
    for (int column = 0; column < job.columns; column++) {
        bool selected = false;
        for (int r = low; r <= high; r++) selected |= mask[int64_t(r) * job.columns + column] != 0;
        if (!selected) continue;
        const int end = std::min((column + 1) * job.patch, job.width);
        const int from = std::max(column * job.patch - reach, -border), to = std::min(end + reach, job.width + border);
        if (!row.empty() && from <= row.back().second)
            row.back().second = to;
        else
            row.push_back({from, to});
    }
}

// The runs of all images, shared out: those of thread t are runs[start[t]] to runs[start[t + 1] - 1].
struct Share {
    std::vector<Run> runs;
    std::vector<size_t> start;
};

inline Share share_out(const Job& job, int reach) {
    constexpr int GRAIN = 12;  // two full register blocks of 64 outputs
    std::vector<Run> all;
    std::vector<Interval> row;
    int64_t total = 0;
    for (int image = 0; image < job.batch; image++)
        for (int y = 0; y < job.height; y++) {
            find_row(job, image, y, reach, 0, row);
            for (const auto& [from, to] : row) {
                all.push_back({image, y, from, to - from});
                total += to - from;
            }
        }
    Share share;
    share.start.push_back(0);
    int64_t done = 0;
    for (Run run : all) {
        while (run.length > 0) {
            const bool last = int(share.start.size()) == job.threads;
            const int64_t due = total * int64_t(share.start.size()) / job.threads - done;
            const int64_t room = last ? run.length : (due + GRAIN / 2) / GRAIN * GRAIN;
            if (room <= 0) {  // the next thread's turn
                share.start.push_back(share.runs.size());
                continue;
            }
            const int length = int(std::min<int64_t>(run.length, room));
            share.runs.push_back({run.image, run.y, run.x, length});
            run.x += length, run.length -= length, done += length;
        }
    }
    share.start.resize(job.threads + 1, share.runs.size());
    return share;
}

// Bytes of this value where a canvas is read but never written: one pixel around all that lies within its reach.
inline void clear_ring(const Job& job, int canvas, int thread, int64_t item_bytes, int value) {
    const int channels = job.channels[canvas], reach = job.reach[canvas];
    std::vector<Interval> outer, inner;
    std::vector<uint8_t> near(job.width + 2);
    const int64_t lines = int64_t(job.batch) * (job.height + 2);
    for (int64_t line = thread; line < lines; line += job.threads) {
        const int image = int(line / (job.height + 2)), y = int(line % (job.height + 2)) - 1;
        find_row(job, image, y, reach + 1, 1, outer);
        if (outer.empty()) continue;
        inner.clear();
        if (y >= 0 && y < job.height) find_row(job, image, y, reach, 0, inner);
        std::fill(near.begin(), near.end(), 0);
        for (const auto& [from, to] : outer) std::memset(&near[from + 1], 1, to - from);
        for (const auto& [from, to] : inner) std::memset(&near[from + 1], 0, to - from);
        const int64_t pixel_bytes = channels * item_bytes;
        uint8_t* row = (uint8_t*)job.canvas[canvas] + line * (job.width + 2) * pixel_bytes;
        for (int x = 0; x < job.width + 2; x++)
            if (near[x]) std::memset(row + x * pixel_bytes, value, pixel_bytes);
    }
}

// Of every output channel, from the HR pixel of the LR pixel's upper left corner; as PixelShuffle orders them.
inline std::vector<int64_t> hr_offsets(const Job& job) {
    const int cell = job.scale * job.scale;
    std::vector<int64_t> offset(3 * cell);
    for (int c = 0; c < 3 * cell; c++)
        offset[c] = c / cell * job.hr_stride[1] + c % cell / job.scale * job.hr_stride[2] +
                    c % job.scale * job.hr_stride[3];
    return offset;
}

// The first pixel of a run in a canvas, and in the HR images.
inline int64_t canvas_pixel(const Job& job, const Run& run) {
    return (int64_t(run.image) * (job.height + 2) + run.y + 1) * (job.width + 2) + run.x + 1;
}

inline int64_t hr_pixel(const Job& job, const Run& run) {
    return run.image * job.hr_stride[0] + job.scale * (run.y * job.hr_stride[2] + run.x * job.hr_stride[3]);
}

}  // namespace runs
