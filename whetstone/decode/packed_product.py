"""Matrix products of few rows with packed weights on a CPU, compiled by numba.

A step that decodes B sequences reads all weights for B rows. The BLAS of torch is made for many rows: with one row of fp32 it
reads 11 GB/s on a machine where this kernel reads 23. The weights are copied once per decoding into panels of LANES output
columns, which the kernel reads in one direction. A product adds up in the order of its inputs, whatever rows are beside it,
so a row's result does not depend on the others.

Weights are held as they are (fp32), or as int8 with a scale for each output and GROUP inputs: weight-only, symmetric, rounded
to the nearest, as llama.cpp's Q8_0. All arithmetic is in fp32.

Letters: T tokens (rows), I inputs, O outputs.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F

from whetstone.decode.cpu_kernels import array, compiled
from whetstone.decode.simd import LANES, element, fma, load, load_if, prefetch, store, times, zeros

ROWS = 6  # that one pass over a panel multiplies: so many sums and a panel's vector fit the registers of AVX2
ABREAST = 4  # panels that are read at once for a single row, whose sums would otherwise wait for each other
FEW = 256  # rows; the BLAS is as fast with more
GROUP = 32  # inputs whose weights of 8 bits have a scale
AHEAD = 512  # elements that are prefetched
SHARE = 1 << 20  # multiplications that are worth a thread

Linear = tuple[torch.Tensor, torch.Tensor | None]  # weight (O, I), bias (O,)


class PackedProduct:
    """x (T, I) -> (T, O): the products with all of `linears`, side by side. `int8`: with weights of 8 bits.

    With more than FEW rows it multiplies by the given weights, or by what the 8 bits stand for.
    """

    def __init__(self, linears: Sequence[Linear], int8: bool = False):
        weight = torch.cat([weight for weight, _ in linears]) if len(linears) > 1 else linears[0][0]
        self.linears = linears
        self.width, self.inputs = weight.shape
        self.bias = joined_bias(linears)
        self.scales: np.ndarray | None = None  # (panels, groups of inputs, LANES), flat
        if int8:
            weight, scales = quantised(weight)
            self.scales, self.linears = array(_panels(scales).flatten()), []
        self.panels = array(_panels(weight))

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        if len(x) > FEW:
            return self._many(x)
        flat = torch.empty(len(x) * self.width + ABREAST * LANES)
        self._multiply(array(x), array(flat))
        out = flat[: len(x) * self.width].view(len(x), self.width)
        return out if self.bias is None else out.add_(self.bias)

    def _multiply(self, x: np.ndarray, out: np.ndarray) -> None:
        """By as many threads as torch has, if there is work for them."""
        panels = self.width // LANES
        if len(x) == 1:
            panels = -(-self.width // LANES)
        elif self.width % LANES:  # before the others: its padding is written to the next row's first columns
            multiply(x, self.panels, self.scales, self.width, out, panels, panels + 1)
        parts = max(1, min(torch.get_num_threads(), len(x) * self.width * self.inputs // SHARE))
        bounds = [panels * part // parts // ABREAST * ABREAST for part in range(parts)] + [panels]

        def part(first: int, last: int) -> None:
            multiply(x, self.panels, self.scales, self.width, out, first, last)

        if parts == 1:
            part(0, panels)
        else:
            list(_threads().map(part, bounds[:-1], bounds[1:]))

    def _many(self, x: torch.Tensor) -> torch.Tensor:
        if self.scales is None:
            return torch.cat([F.linear(x, *linear) for linear in self.linears], -1)
        weight = torch.from_numpy(self.panels).float()  # (panels, I, LANES)
        scales = torch.from_numpy(self.scales).view(len(weight), -1, LANES)
        weight *= scales.repeat_interleave(GROUP, 1)[:, : self.inputs]
        return F.linear(x, weight.transpose(1, 2).flatten(0, 1)[: self.width], self.bias)


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


def _panels(weight: torch.Tensor) -> torch.Tensor:
    """(O, I) -> (panels, I, LANES), with zeros after the last output. Their number is a multiple of ABREAST."""
    missing = -len(weight) % (ABREAST * LANES)
    weight = F.pad(weight, (0, 0, 0, missing)) if missing else weight
    return weight.view(-1, LANES, weight.shape[1]).transpose(1, 2).contiguous()


@compiled
def multiply(x, panels, scales, width, out, first, last):
    """x (T, I) times panels (…, I, LANES) `first` to `last` - 1: to the first T * O of `out` (T * O + ABREAST * LANES,), which
    has room for padding."""
    rows, size = x.shape
    flat = panels.reshape(-1)
    if rows == 1:
        for panel in range(first, last, ABREAST):
            _one_row(x.reshape(-1), flat, scales, panel, size, out)
        return
    grouped = _grouped_rows(x)
    wide = np.empty(size * LANES if scales is not None else 0, np.float32)
    for panel in range(first, last):
        if scales is not None:
            _widen(flat, scales, panel, size, wide)
        for row in range(0, rows, ROWS):
            place = row * width + panel * LANES
            if scales is not None:
                _some_rows(grouped, row * size, wide, 0, size, out, place, width, rows - row)
            else:
                _some_rows(grouped, row * size, flat, panel * size * LANES, size, out, place, width, rows - row)


@compiled
def _widen(flat, scales, panel, size, wide):
    """A panel of 8 bits in fp32: (I * LANES,)."""
    at, at_scale = panel * size * LANES, panel * ((size + GROUP - 1) // GROUP) * LANES
    for start in range(0, size, GROUP):
        scale = load_if(scales, at_scale)
        at_scale += LANES
        for i in range(start, min(size, start + GROUP)):
            store(wide, i * LANES, times(load(flat, at), scale))
            at += LANES


@compiled
def _grouped_rows(x):
    """(T, I) -> (groups * I * ROWS,): for each group of ROWS rows and each input the numbers of these rows."""
    rows, size = x.shape
    grouped = np.zeros((rows + ROWS - 1) // ROWS * ROWS * size, np.float32)
    for row in range(rows):
        first = row // ROWS * ROWS * size + row % ROWS
        for i in range(size):
            grouped[first + i * ROWS] = x[row, i]
    return grouped


@compiled
def _one_row(x, flat, scales, panel, size, out):
    """x (I,) times ABREAST panels from `panel` on."""
    groups = (size + GROUP - 1) // GROUP
    step, scale_step = size * LANES, groups * LANES
    at, at_scale = panel * step, panel * scale_step
    a, b, c, d = zeros(), zeros(), zeros(), zeros()
    for group in range(groups):
        scale_a, scale_b = load_if(scales, at_scale), load_if(scales, at_scale + scale_step)
        scale_c, scale_d = load_if(scales, at_scale + 2 * scale_step), load_if(scales, at_scale + 3 * scale_step)
        at_scale += LANES
        for i in range(group * GROUP, min(size, (group + 1) * GROUP)):
            for number in range(ABREAST):
                prefetch(flat, at + number * step + AHEAD)
            a = fma(a, element(x, i), times(load(flat, at), scale_a))
            b = fma(b, element(x, i), times(load(flat, at + step), scale_b))
            c = fma(c, element(x, i), times(load(flat, at + 2 * step), scale_c))
            d = fma(d, element(x, i), times(load(flat, at + 3 * step), scale_d))
            at += LANES
    column = panel * LANES
    store(out, column, a)
    store(out, column + LANES, b)
    store(out, column + 2 * LANES, c)
    store(out, column + 3 * LANES, d)


@compiled
def _some_rows(grouped, at_row, flat, at, size, out, place, width, left):
    """The next ROWS rows, of which `left` are there at most, times the panel at `at`: to `place` of `out`, `width` apart."""
    if left <= 4:
        _four_rows(grouped, at_row, flat, at, size, out, place, width, left)
        return
    a, b, c, d, e, f = zeros(), zeros(), zeros(), zeros(), zeros(), zeros()
    for _ in range(size):
        weights = load(flat, at)
        a = fma(a, element(grouped, at_row), weights)
        b = fma(b, element(grouped, at_row + 1), weights)
        c = fma(c, element(grouped, at_row + 2), weights)
        d = fma(d, element(grouped, at_row + 3), weights)
        e = fma(e, element(grouped, at_row + 4), weights)
        f = fma(f, element(grouped, at_row + 5), weights)
        at += LANES
        at_row += ROWS
    store(out, place, a)
    store(out, place + width, b)
    store(out, place + 2 * width, c)
    store(out, place + 3 * width, d)
    store(out, place + 4 * width, e)
    if left > 5:
        store(out, place + 5 * width, f)


@compiled
def _four_rows(grouped, at_row, flat, at, size, out, place, width, left):
    """The same for the last four rows or fewer."""
    a, b, c, d = zeros(), zeros(), zeros(), zeros()
    for _ in range(size):
        weights = load(flat, at)
        a = fma(a, element(grouped, at_row), weights)
        b = fma(b, element(grouped, at_row + 1), weights)
        c = fma(c, element(grouped, at_row + 2), weights)
        d = fma(d, element(grouped, at_row + 3), weights)
        at += LANES
        at_row += ROWS
    store(out, place, a)
    if left > 1:
        store(out, place + width, b)
    if left > 2:
        store(out, place + 2 * width, c)
    if left > 3:
        store(out, place + 3 * width, d)
