"""What lies between the matrix products of a layer in training, on a CPU: each one pass, forward and backward.

uint16 arrays hold bf16; all arithmetic is in fp32. Letters: T tokens, C hidden size, I inner size of the MLP.
"""

import numpy as np

from whetstone.decode.cpu_kernels import compiled, exp, from_fp32, to_fp32


@compiled
def add_norm(x, delta, weight, eps, total, out, scales):
    """total (T, C) = x + delta, and its RMS norm out (T, C); scales (T,) are what its rows were multiplied by."""
    width = np.float32(x.shape[1])
    for i in range(x.shape[0]):
        if delta is not None:
            for c in range(x.shape[1]):
                total[i, c] = x[i, c] + to_fp32(delta[i, c])
        squares = np.float32(0)
        for c in range(x.shape[1]):
            squares += total[i, c] * total[i, c]
        scale = np.float32(1) / np.sqrt(squares / width + eps)
        scales[i] = scale
        for c in range(x.shape[1]):
            out[i, c] = from_fp32(total[i, c] * scale * weight[c], out)


@compiled
def add_norm_backward(total, weight, scales, d_total, d_out, d_x, d_delta, d_weight):
    """d_x (T, C) = d_total + the norm's gradient, the same in bf16 as d_delta, and d_weight (C,)."""
    width = np.float32(total.shape[1])
    d_weight[:] = np.float32(0)
    for i in range(total.shape[0]):
        scale, along = scales[i], np.float32(0)
        for c in range(total.shape[1]):
            along += to_fp32(d_out[i, c]) * weight[c] * total[i, c]
        along *= scale * scale * scale / width
        for c in range(total.shape[1]):
            d_x[i, c] = d_total[i, c] + to_fp32(d_out[i, c]) * weight[c] * scale - total[i, c] * along
        for c in range(total.shape[1]):
            d_weight[c] += to_fp32(d_out[i, c]) * total[i, c] * scale
        if d_delta is not None:
            for c in range(total.shape[1]):
                d_delta[i, c] = from_fp32(d_x[i, c], d_delta)


@compiled
def gate_backward(gate_up, d_out, d_gate_up):
    """The gradient of gate_up (T, 2 I), of which silu(gate) * up was taken, from d_out (T, I)."""
    width = d_out.shape[1]
    for i in range(d_out.shape[0]):
        for c in range(width):
            g, up, given = to_fp32(gate_up[i, c]), to_fp32(gate_up[i, width + c]), to_fp32(d_out[i, c])
            sigmoid = np.float32(1) / (np.float32(1) + exp(min(-g, np.float32(87))))
            d_gate_up[i, c] = from_fp32(
                given * up * sigmoid * (np.float32(1) + g * (np.float32(1) - sigmoid)), d_gate_up
            )
            d_gate_up[i, width + c] = from_fp32(given * g * sigmoid, d_gate_up)


@compiled
def to_bf16(x, out):
    """x (…) in fp32, rounded: both flat."""
    for i in range(len(out)):
        out[i] = from_fp32(x[i], out)


@compiled
def add(x, delta, out):
    """x + delta, flat: fp32 and bf16 to fp32."""
    for i in range(len(out)):
        out[i] = x[i] + to_fp32(delta[i])
