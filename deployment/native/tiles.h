// The matrix registers of AMX, where the compiler and the system have them: 16 pixels times 16 outputs at once.

#pragma once

#include <cstdint>

#if defined(__AMX_TILE__) && (defined(__AMX_INT8__) || defined(__AMX_BF16__))
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>
#define HAS_TILES 1
#endif

namespace tiles {

constexpr int ROWS = 16, LINE = 64;  // of a register: rows, bytes of one

#ifdef HAS_TILES

// Whether the system lets this process use the registers, which it has to be asked for once.
inline bool allowed() {
    constexpr long REQUEST = 0x1023, DATA = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
    static const bool answer = syscall(SYS_arch_prctl, REQUEST, DATA) == 0;
    return answer;
}

// The registers of this thread while it lives: 0 to 3 sums, 4 inputs of up to ROWS pixels, 5 to 7 weights. A row of the
// kernel is a stretch of memory, `step` bytes of which are taken at a time.
class Registers {
public:
    const int64_t stretch, step;

    explicit Registers(int64_t stretch_bytes) : stretch(stretch_bytes), step(step_of(stretch_bytes)) { set_rows(ROWS); }
    ~Registers() { _tile_release(); }
    Registers(const Registers&) = delete;

    // How many pixels are computed together; what the registers hold is lost.
    void set_rows(int count) {
        if (count == rows) return;
        rows = count;
        struct alignas(64) {
            uint8_t palette = 1, start = 0, unused[14] = {};
            uint16_t bytes[16] = {};
            uint8_t rows[16] = {};
        } shape;
        for (int i = 0; i < 8; i++) {
            shape.bytes[i] = i == 4 ? step : LINE;
            shape.rows[i] = i < 5 ? count : step / 4;
        }
        asm volatile("" ::"r"(&shape) : "memory");  // GCC takes _tile_loadconfig to read 8 bytes alone
        _tile_loadconfig(&shape);
    }

private:
    static int64_t step_of(int64_t bytes) {
        int64_t found = LINE;
        while (bytes % found) found -= 4;
        return found;
    }

    int rows = 0;
};

// GCC does not know that _tile_loadd reads memory: what was written before has to be there.
inline void written() { asm volatile("" ::: "memory"); }

#else

constexpr bool allowed() { return false; }

struct Registers {  // there are none
    explicit Registers(int64_t) {}
};

#endif

}  // namespace tiles
