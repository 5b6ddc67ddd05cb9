"""A block-sparse 3x3 convolution in Triton; imported only where it runs, since Triton comes with CUDA builds alone.

With TRITON_INTERPRET=1 in the environment Triton's interpreter runs it on the CPU.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def convolve_tiles(
    x, weight, bias, skip, active, y, tiles, number, height, width, tile_rows, tile_columns,
    INPUTS: tl.constexpr, OUTPUTS: tl.constexpr, TILE: tl.constexpr, RELU: tl.constexpr, SKIP: tl.constexpr,
):  # fmt: skip
    """y = (relu)(conv3x3(x)) (+ skip) at the active pixels of the listed tiles; nothing else is written.

    x, skip and y are NHWC with INPUTS, OUTPUTS and OUTPUTS channels (powers of two, at least 16), zero where nothing is
    active. `tiles` holds image * tile_rows * tile_columns + row * tile_columns + column of every tile; how many of them
    count is read from `number` on the device, so the grid is as large as all tiles and the host never learns it.
    """
    if tl.program_id(0) < tl.load(number):
        tile = tl.load(tiles + tl.program_id(0))
        image, inside = tile // (tile_rows * tile_columns), tile % (tile_rows * tile_columns)
        pixel = tl.arange(0, TILE * TILE)
        row = inside // tile_columns * TILE + pixel // TILE
        column = inside % tile_columns * TILE + pixel % TILE
        here = (row < height) & (column < width)
        place = (image * height + row) * width + column
        here = here & (tl.load(active + place, mask=here, other=0) != 0)
        inputs, outputs = tl.arange(0, INPUTS), tl.arange(0, OUTPUTS)
        sums = tl.zeros((TILE * TILE, OUTPUTS), dtype=tl.float32)
        for tap in range(9):
            r, c = row + tap // 3 - 1, column + tap % 3 - 1
            seen = here & (r >= 0) & (r < height) & (c >= 0) & (c < width)
            neighbour = (image * height + r) * width + c
            pixels = tl.load(x + neighbour[:, None] * INPUTS + inputs[None, :], mask=seen[:, None], other=0.0)
            taps = tl.load(weight + (tap * INPUTS + inputs)[:, None] * OUTPUTS + outputs[None, :])
            sums += tl.dot(pixels, taps, input_precision="ieee")
        sums += tl.load(bias + outputs)[None, :]
        if RELU:
            sums = tl.maximum(sums, 0.0)
        at = place[:, None] * OUTPUTS + outputs[None, :]
        if SKIP:
            sums += tl.load(skip + at, mask=here[:, None], other=0.0).to(tl.float32)
        tl.store(y + at, sums.to(y.dtype.element_ty), mask=here[:, None])
