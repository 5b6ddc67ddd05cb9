// Makes recorded calls of the kernel again (recording.py), every array in heap memory of exactly its size, for a
// sanitizer to watch. `replay`: with several numbers of threads, each must give the recorded HR images bit for bit; then
// with every allocation failing in turn. `mutate`: with wrong numbers and pointers, one or two at a time; each call must
// either be refused and write nothing, or be harmless.

#include <atomic>
#include <climits>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iostream>
#include <memory>
#include <new>
#include <random>
#include <string>
#include <vector>

#include "job.h"

static std::atomic<long> allocations_left{LONG_MAX};

void* operator new(std::size_t size) {
    if (allocations_left.fetch_sub(1) <= 0) throw std::bad_alloc();
    if (void* memory = std::malloc(size ? size : 1)) return memory;
    throw std::bad_alloc();
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

namespace {

void expect(bool holds, const std::string& what) {
    if (holds) return;
    std::cerr << "replay: " << what << std::endl;
    std::exit(1);
}

struct Block {  // heap memory of exactly so many bytes
    std::unique_ptr<char, decltype(&std::free)> memory{nullptr, std::free};
    size_t bytes = 0;

    explicit Block(size_t size) : memory((char*)std::malloc(size), std::free), bytes(size) {}
    Block(std::istream& from, size_t size) : Block(size) { from.read(memory.get(), size); }
    template <typename T>
    T* as() const { return (T*)memory.get(); }
};

struct Call {
    int32_t bf16;
    Job job;
    std::vector<Step> steps;
    std::vector<int32_t> channels, reach;
    std::vector<int64_t> canvas_bytes;
    std::vector<void*> canvas;
    std::vector<Block> kept, canvases;
    std::unique_ptr<Block> hr, before, after;

    explicit Call(const char* path) {
        std::ifstream file(path, std::ios::binary);
        int32_t header[2];
        file.read((char*)header, sizeof header);
        bf16 = header[0];
        file.read((char*)&job, sizeof job);
        steps.resize(job.steps);
        file.read((char*)steps.data(), sizeof(Step) * steps.size());
        channels.resize(job.canvases), reach.resize(job.canvases);
        file.read((char*)channels.data(), 4 * channels.size());
        file.read((char*)reach.data(), 4 * reach.size());
        const auto take = [&](size_t bytes) { return kept.emplace_back(file, bytes).as<void>(); };
        job.mask = (const uint8_t*)take(job.mask_bytes);
        job.lr = (const float*)take(job.lr_bytes);
        for (Step& step : steps) {
            step.weight = take(step.weight_bytes);
            step.bias = (const float*)take(step.bias_bytes);
        }
        before = std::make_unique<Block>(file, job.hr_bytes);
        after = std::make_unique<Block>(file, job.hr_bytes);
        hr = std::make_unique<Block>(job.hr_bytes);
        job.hr = hr->as<void>();
        expect(bool(file) && file.peek() == EOF, std::string(path) + " is not a recorded call");
        for (int c = 0; c < job.canvases; c++) {
            const int64_t pixels = int64_t(job.batch) * (job.height + 2) * (job.width + 2);
            canvas_bytes.push_back(pixels * channels[c] * (bf16 ? 2 : 4));
            canvas.push_back(canvases.emplace_back(canvas_bytes[c]).as<void>());
        }
        job.channels = channels.data(), job.reach = reach.data();
        job.canvas = canvas.data(), job.canvas_bytes = canvas_bytes.data();
    }

    int32_t run(const Job& with, const Step* and_steps, char* message) const {
        for (const Block& each : canvases) std::memset(each.as<void>(), 0xff, each.bytes);  // NaN: read before written
        std::memcpy(hr->as<void>(), before->as<void>(), hr->bytes);
        return (bf16 ? run_bfloat16 : run_float32)(&with, and_steps, message, 256);
    }

    bool untouched() const { return !std::memcmp(hr->as<void>(), before->as<void>(), hr->bytes); }
};

void replay(Call& call, const std::string& name) {
    char message[256];
    for (int threads : {1, 2, 3, 7}) {
        Job job = call.job;
        job.threads = threads;
        expect(call.run(job, call.steps.data(), message) == 0, name + ": " + message);
        expect(!std::memcmp(call.hr->as<void>(), call.after->as<void>(), call.hr->bytes),
               name + ": other HR images with " + std::to_string(threads) + " threads");
    }
    Job job = call.job;
    job.threads = 2;
    for (long number = 0, code = 2; code; number++) {
        allocations_left = number;
        code = call.run(job, call.steps.data(), message);
        allocations_left = LONG_MAX;
        expect(code == 0 || code == 2, name + ": an allocation failed, code " + std::to_string(code));
        expect(code == 0 || !std::strcmp(message, "out of memory"), name + ": " + message);
        expect(number || code, name + ": allocates nothing");
    }
    expect(!std::memcmp(call.hr->as<void>(), call.after->as<void>(), call.hr->bytes), name + ": failed before");
}

// A call's numbers and pointers as a list of places, to be spoiled and put back.
struct Place {
    enum Kind { NUMBER, AT_MOST, POINTER } kind;  // AT_MOST: memory or a list is not longer than it says
    void* at;
    size_t bytes;
};

std::vector<Place> places_of(Call& call) {
    std::vector<Place> places;
    const auto add = [&](Place::Kind kind, auto&... fields) { (places.push_back({kind, &fields, sizeof fields}), ...); };
    Job& job = call.job;
    add(Place::NUMBER, job.job_bytes, job.step_bytes, job.batch, job.rows, job.columns, job.patch, job.height, job.width,
        job.scale, job.hr_bf16, job.threads);
    for (int d = 0; d < 4; d++) add(Place::NUMBER, job.lr_stride[d], job.hr_stride[d]);
    add(Place::AT_MOST, job.mask_bytes, job.lr_bytes, job.hr_bytes, job.steps, job.canvases);
    add(Place::POINTER, job.lr, job.hr, job.mask, job.channels, job.canvas, job.canvas_bytes, job.reach);
    for (int c = 0; c < call.job.canvases; c++) {
        add(Place::NUMBER, call.channels[c], call.reach[c]);
        add(Place::AT_MOST, call.canvas_bytes[c]);
        add(Place::POINTER, call.canvas[c]);
    }
    for (Step& step : call.steps) {
        add(Place::NUMBER, step.inputs, step.outputs, step.source, step.target, step.residual, step.relu, step.reach);
        add(Place::AT_MOST, step.weight_bytes, step.bias_bytes);
        add(Place::POINTER, step.weight, step.bias);
    }
    return places;
}

int64_t number_at(const Place& place) {
    if (place.bytes == 8) return *(int64_t*)place.at;
    return *(int32_t*)place.at;
}

void put(const Place& place, int64_t value) {
    if (place.bytes == 8)
        *(int64_t*)place.at = value;
    else
        *(int32_t*)place.at = int32_t(value);
}

std::vector<int64_t> wrong_values(const Place& place, const Call& call) {
    const int64_t now = number_at(place);
    if (place.kind == Place::POINTER)  // the mask is bytes, aligned everywhere
        return place.at == &call.job.mask ? std::vector<int64_t>{0} : std::vector<int64_t>{0, now + 1};
    std::vector<int64_t> values;
    for (int64_t value : {-2, -1, 0, 1, 2, 3, 4, 5, 7, 8, 12, 15, 16, 17, 27, 32, 48, 64, 1 << 16, 1 << 24, INT_MAX, INT_MIN})
        values.push_back(value);
    for (int64_t value : {now - 1, now + 1, now / 2, 2 * now, 16 * now}) values.push_back(value);
    if (place.bytes == 8)
        for (int64_t value : {int64_t(1) << 33, int64_t(1) << 40, INT64_MAX, INT64_MAX / 2, INT64_MIN}) values.push_back(value);
    std::vector<int64_t> fitting;
    for (int64_t value : values)
        if (place.kind == Place::NUMBER || value < now) fitting.push_back(value);
    return fitting;
}

struct Count {
    long harmless = 0, refused = 0;
};

void attempt(Call& call, const std::string& name, Count& count) {
    char message[256] = "";
    const int32_t code = call.run(call.job, call.steps.data(), message);
    expect(code == 0 || code == 1, name + ": code " + std::to_string(code) + ", " + message);
    if (code == 0) {
        count.harmless++;
        return;
    }
    expect(std::strlen(message) > 10, name + ": refused without a reason");
    expect(call.untouched(), name + ": refused, but written");
    count.refused++;
}

void mutate(Call& call, const std::string& name, Count& count) {
    const std::vector<Place> places = places_of(call);
    for (const Place& place : places) {
        const int64_t right = number_at(place);
        for (int64_t wrong : wrong_values(place, call)) {
            put(place, wrong);
            attempt(call, name, count);
            put(place, right);
        }
    }
    std::mt19937 random(0);
    for (int trial = 0; trial < 4000; trial++) {
        const Place &one = places[random() % places.size()], &other = places[random() % places.size()];
        const int64_t first = number_at(one), second = number_at(other);
        const auto wrong = wrong_values(one, call), others = wrong_values(other, call);
        if (&one == &other || wrong.empty() || others.empty()) continue;
        put(one, wrong[random() % wrong.size()]), put(other, others[random() % others.size()]);
        attempt(call, name, count);
        put(one, first), put(other, second);
    }
    char message[256];
    expect(run_float32(nullptr, nullptr, message, 256) == 1, "no job");
    expect(run_float32(nullptr, nullptr, nullptr, 0) == 1, "no message");
    expect(run_float32(nullptr, nullptr, message, 4) == 1 && !std::strcmp(message, "job"), "a short message");
    expect(call.run(call.job, nullptr, message) == 1, "no steps");
}

}  // namespace

int main(int number, char** arguments) {
    Count count;
    for (int i = 2; i < number; i++) {
        Call call(arguments[i]);
        if (std::string(arguments[1]) == "mutate")
            mutate(call, arguments[i], count);
        else
            replay(call, arguments[i]);
    }
    std::cout << number - 2 << " calls, " << count.harmless << " harmless, " << count.refused << " refused" << std::endl;
}
