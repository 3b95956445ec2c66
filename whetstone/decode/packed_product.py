"""Matrix products with packed weights on a CPU, compiled by numba.

A step that decodes B sequences reads all weights for B rows. The BLAS of torch is made for many rows: with one row of fp32 it
reads 11 GB/s on a machine where this kernel reads 23. The weights are copied once per decoding into panels of LANES output
columns, several side by side, which the kernel reads in one direction. A product adds up in the order of its inputs, whatever
rows are beside it, so a row's result does not depend on the others.

Weights are held as they are (fp32, or bf16 with AVX512-BF16), or as int8 with a scale for each output and GROUP inputs:
weight-only, symmetric, rounded to the nearest, as llama.cpp's Q8_0. All sums are in fp32.

Letters: T tokens (rows), I inputs, O outputs.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F

from whetstone.decode.cpu_kernels import array, compiled
from whetstone.decode.simd import LANES, add_times, element, fma, load, prefetch, store, tile, times, zeros
from whetstone.run.cpu import has_wide_vectors

ROWS = 6  # that one pass over panels multiplies at most
ABREAST = 4  # panels that are read at once for a single row, whose sums would otherwise wait for each other
# that are read at once for more rows: their sums have to fit the registers
PANELS = ABREAST if has_wide_vectors() else 1
CHUNK = 24 * ROWS  # rows that stay in the cache while all panels pass
FEW = 256  # rows; with more the BLAS is as fast where vectors are not wide
GROUP = 32  # inputs whose weights of 8 bits have a scale
PADDING = ABREAST * LANES  # numbers that are written after the last row
AHEAD = 512  # elements that are prefetched for a single row
SHARE = 1 << 20  # multiplications that are worth a thread

Linear = tuple[torch.Tensor, torch.Tensor | None]  # weight (O, I), bias (O,)


class PackedProduct:
    """x (T, I) -> (T, O) in fp32: the products with all of `linears`, side by side. `int8`: with weights of 8 bits.

    Weights of bf16 are for processors with AVX512-BF16; x is rounded to bf16 then.
    """

    def __init__(self, linears: Sequence[Linear], int8: bool = False):
        weight = torch.cat([weight for weight, _ in linears]) if len(linears) > 1 else linears[0][0]
        self.linears = linears
        self.width, self.inputs = weight.shape
        self.dtype = weight.dtype
        self.bias = joined_bias(linears)
        self.scales: np.ndarray | None = None
        if int8:
            weight, scales = quantised(weight)
            self.panels, self.scales = (_panels(x.contiguous().numpy(), ABREAST * LANES) for x in (weight, scales))
            self.linears = []
        else:
            self.panels = _panels(paired(weight.contiguous()), PANELS * LANES)

    def __call__(self, x: torch.Tensor, buffer: torch.Tensor | None = None) -> torch.Tensor:
        """`buffer` (T * O + PADDING or more,): where the result may be written."""
        if not packed_is_faster(len(x)):
            return self._many(x)
        buffer = torch.empty(len(x) * self.width + PADDING) if buffer is None else buffer
        self._multiply(paired(x.to(self.dtype)), array(buffer))
        out = buffer[: len(x) * self.width].view(len(x), self.width)
        return out if self.bias is None else out.add_(self.bias)

    def _multiply(self, x: np.ndarray, out: np.ndarray) -> None:
        """By as many threads as torch has, if there is work for them."""

        def part(first: int, last: int) -> None:
            if self.scales is None:
                multiply(x, self.panels, self.width, out, first, last)
            else:
                multiply_bytes(x, self.panels, self.scales, self.width, out, first, last)

        panels = self.width // LANES // ABREAST * ABREAST
        if panels * LANES < self.width:  # before the others: its padding is written to the next row's first columns
            part(panels, panels + ABREAST)
        parts = max(1, min(torch.get_num_threads(), len(x) * self.width * self.inputs // SHARE))
        bounds = [panels * i // parts // ABREAST * ABREAST for i in range(parts)] + [panels]
        if parts == 1:
            part(0, panels)
        else:
            list(_threads().map(part, bounds[:-1], bounds[1:]))

    def _many(self, x: torch.Tensor) -> torch.Tensor:
        if self.scales is None:
            return torch.cat([F.linear(x, *linear) for linear in self.linears], -1)
        weight, scales = torch.from_numpy(self.panels).float(), torch.from_numpy(self.scales)
        weight *= scales.repeat_interleave(GROUP, 1)[:, : self.inputs]
        return F.linear(x, weight.transpose(1, 2).flatten(0, 1)[: self.width], self.bias)


def packed_is_faster(rows: int) -> bool:
    """Than the BLAS, for so many rows."""
    return rows <= FEW or PANELS > 1


@lru_cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(torch.get_num_threads())


def quantised(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(O, I) -> integers from -127 to 127 (O, I), and what those of each GROUP inputs are multiplied by (O, groups)."""
    groups = F.pad(weight.float(), (0, -weight.shape[1] % GROUP)).unflatten(1, (-1, GROUP))
    scales = groups.abs().amax(2).clamp(min=torch.finfo(torch.float32).tiny) / 127
    return (groups / scales[..., None]).round().to(torch.int8).flatten(1)[:, : weight.shape[1]], scales


def joined_bias(linears: Sequence[Linear]) -> torch.Tensor | None:
    """(O,) of all of them side by side; None if none has one."""
    if all(bias is None for _, bias in linears):
        return None
    return torch.cat([weight.new_zeros(len(weight)) if bias is None else bias for weight, bias in linears])


def paired(x: torch.Tensor) -> np.ndarray:
    """bf16 (…, I) -> uint32 (…, I / 2), two numbers in each; other types as they are. The memory is that of x, unless x is not
    contiguous or I is odd: then the last number stands beside a zero."""
    if x.dtype == torch.bfloat16:
        x = (F.pad(x, (0, 1)) if x.shape[-1] % 2 else x.contiguous()).view(torch.uint32)
    return x.numpy()


def _panels(rows: np.ndarray, width: int) -> np.ndarray:
    """(O, I) -> (panels, I, width), with zeros after the last output: ABREAST * LANES outputs, or a multiple of that."""
    whole = -(-len(rows) // (ABREAST * LANES)) * ABREAST * LANES
    panels = np.empty((whole // width, rows.shape[1], width), rows.dtype)
    pack(rows, panels)
    return panels


@compiled
def pack(rows, panels):
    """rows (O, I) -> panels (…, I, width)."""
    width, outputs = panels.shape[2], len(rows)
    for panel in range(len(panels)):
        own, first = panels[panel], panel * width
        for lane in range(width):
            if first + lane < outputs:
                row = rows[first + lane]
                for i in range(len(row)):
                    own[i, lane] = row[i]
            else:
                own[:, lane] = 0


@compiled
def multiply(x, panels, width, out, first, last):
    """x (T, I) times the panels `first` to `last` - 1 of weights (…, I, PANELS * LANES): to the first T * O of `out`
    (T * O + PADDING,), which has room for padding."""
    rows, size = x.shape
    numbers, flat, step = x.reshape(-1), panels.reshape(-1), PANELS * LANES
    if rows == 1:
        apart = LANES if PANELS == ABREAST else size * LANES  # how far the panels that are read at once lie apart
        for panel in range(first, last, ABREAST):
            at, place = panel * size * LANES, panel * LANES
            tile(numbers, 0, size, flat, at, apart, step, AHEAD, size, out, place, width, 1, 1, ABREAST, 0, 1)
        return
    for row in range(0, rows, CHUNK):
        count = min(CHUNK, rows - row)
        for panel in range(
            last - PANELS, first - 1, -PANELS
        ):  # padding is written to columns that are written again later
            at, place = panel * size * LANES, row * width + panel * LANES
            _some_rows(numbers, row * size, count, flat, at, LANES, step, -step * size, size, out, place, width)


@compiled
def multiply_bytes(x, panels, scales, width, out, first, last):
    """The same with weights of 8 bits, ABREAST panels in one, (…, I, ABREAST * LANES), and scales (…, groups of inputs,
    ABREAST * LANES)."""
    rows, size = x.shape
    numbers, flat, scales = x.reshape(-1), panels.reshape(-1), scales.reshape(-1)
    if rows == 1:
        for panel in range(first, last, ABREAST):
            _one_row_of_bytes(numbers, flat, scales, panel, size, out)
        return
    wide = np.empty(PANELS * size * LANES, np.float32)
    for panel in range(last - PANELS, first - 1, -PANELS):
        _widen(flat, scales, panel, size, wide)
        _some_rows(numbers, 0, rows, wide, 0, size * LANES, LANES, None, size, out, panel * LANES, width)


@compiled
def _some_rows(x, at_x, rows, flat, at, apart, step, ahead, size, out, place, width):
    """`rows` rows of x (…, I), from `at_x` on, times PANELS panels, from `at` on: to `place` of `out`, `width` apart.

    The weights `ahead` elements further, which are read next, are prefetched.
    """
    for left in range((rows + ROWS - 1) // ROWS, 0, -1):
        count = (rows + left - 1) // left  # passes of about equally many rows
        tile(x, at_x, size, flat, at, apart, step, ahead, size, out, place, width, count, ROWS, PANELS, 0, 2)
        at_x, place, rows = at_x + count * size, place + count * width, rows - count


@compiled
def _widen(flat, scales, first, size, wide):
    """PANELS panels of 8 bits, from `first` on, in fp32: (PANELS * I * LANES,)."""
    step = ABREAST * LANES
    for panel in range(PANELS):
        column = (first + panel) // ABREAST * step * size + (first + panel) % ABREAST * LANES
        at_scale = (first + panel) // ABREAST * step * ((size + GROUP - 1) // GROUP) + (first + panel) % ABREAST * LANES
        for i in range(size):
            weights = times(load(flat, column + i * step), load(scales, at_scale + i // GROUP * step))
            store(wide, (panel * size + i) * LANES, weights)


@compiled
def _one_row_of_bytes(x, flat, scales, panel, size, out):
    """x (I,) times ABREAST panels of 8 bits from `panel` on. The sum of a group's inputs is multiplied by their scale."""
    step, block = ABREAST * LANES, panel // ABREAST
    at, at_scale = block * size * step, block * ((size + GROUP - 1) // GROUP) * step
    a, b, c, d = zeros(), zeros(), zeros(), zeros()
    for start in range(0, size, GROUP):
        sum_a, sum_b, sum_c, sum_d = zeros(), zeros(), zeros(), zeros()
        for i in range(start, min(size, start + GROUP)):
            prefetch(flat, at + AHEAD * 4)  # bytes
            sum_a = fma(sum_a, element(x, i), load(flat, at))
            sum_b = fma(sum_b, element(x, i), load(flat, at + LANES))
            sum_c = fma(sum_c, element(x, i), load(flat, at + 2 * LANES))
            sum_d = fma(sum_d, element(x, i), load(flat, at + 3 * LANES))
            at += step
        a = add_times(a, sum_a, load(scales, at_scale))
        b = add_times(b, sum_b, load(scales, at_scale + LANES))
        c = add_times(c, sum_c, load(scales, at_scale + 2 * LANES))
        d = add_times(d, sum_d, load(scales, at_scale + 3 * LANES))
        at_scale += step
    column = panel * LANES
    store(out, column, a)
    store(out, column + LANES, b)
    store(out, column + 2 * LANES, c)
    store(out, column + 3 * LANES, d)
