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

// The registers of this thread while it lives: 0 and 1 sums of `first` pixels, 2 and 3 of `second`; 4 and 5 their inputs,
// 6 and 7 weights. A row of the kernel is a stretch of memory, `step` bytes of which are taken at a time.
class Registers {
public:
    const int64_t stretch, step;

    explicit Registers(int64_t stretch_bytes) : stretch(stretch_bytes), step(step_of(stretch_bytes)) {}
    ~Registers() { _tile_release(); }
    Registers(const Registers&) = delete;

    // How many pixels are computed together, each 1 to ROWS; what the registers hold is lost.
    void set_rows(int first, int second) {
        if (first == rows[0] && second == rows[1]) return;
        rows[0] = first, rows[1] = second;
        struct alignas(64) {
            uint8_t palette = 1, start = 0, unused[14] = {};
            uint16_t bytes[16] = {};
            uint8_t rows[16] = {};
        } shape;
        const int of_register[8] = {first, first, second, second, first, second, int(step / 4), int(step / 4)};
        for (int i = 0; i < 8; i++) {
            shape.bytes[i] = i == 4 || i == 5 ? step : LINE;
            shape.rows[i] = of_register[i];
        }
        asm volatile("" ::"r"(&shape) : "memory");  // GCC takes _tile_loadconfig to read 8 bytes alone
        _tile_loadconfig(&shape);
    }

private:
    // 64 bytes for a multiple of 64 maps in bf16 and int8; the largest divisor that whole lanes fill, of other widths.
    static int64_t step_of(int64_t bytes) {
        int64_t found = LINE;
        while (bytes % found) found -= 4;
        return found;
    }

    int rows[2] = {0, 0};
};

// GCC does not know that _tile_loadd reads memory: what was written before has to be there.
inline void written() { asm volatile("" ::: "memory"); }

#else

constexpr bool allowed() { return false; }

struct Registers {  // there are none
    explicit Registers(int64_t) {}
    void set_rows(int, int) {}
};

#endif

}  // namespace tiles
