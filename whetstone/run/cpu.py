"""What this machine's processor computes fast, and limits of the libraries that compute on it. Importing it loads no torch."""

import os
import platform
import re
from functools import cache
from pathlib import Path

KERNELS = 32  # that oneDNN keeps; a micro-batch needs about 20


def cpu_name() -> str:
    if Path("/proc/cpuinfo").exists() and (
        match := re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    ):
        return match[1]
    return platform.processor() or platform.machine()


def has_bf16_products() -> bool:
    """Whether the processor multiplies bf16 matrices in instructions of its own (AVX512-BF16 or AMX).

    Elsewhere torch emulates them, slower than products in fp32.
    """
    return _has("avx512_bf16") or _has("amx_bf16")


def has_bf16_vectors() -> bool:
    """Whether the processor adds products of bf16 vectors in fp32 in one instruction (AVX512-BF16), and numba may use it: its
    variables NUMBA_CPU_NAME and NUMBA_CPU_FEATURES name another processor."""
    return _has("avx512_bf16") and not {"NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES"} & os.environ.keys()


def has_wide_vectors() -> bool:
    """Whether the processor has 32 registers of sixteen fp32 numbers (AVX-512)."""
    return _has("avx512_f")


@cache
def _has(capability: str) -> bool:
    import torch

    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(capabilities.get(capability, False))


def bound_kernel_caches() -> None:
    """Bound the memory that torch's products in bf16 take, unless the user has set the variables.

    oneDNN compiles a kernel for each new shape of a product and keeps the last 1,024, and torch keeps as many. With rows of
    different lengths each micro-batch has new shapes: memory grew by 0.6 MB per shape (AVX2; larger kernels elsewhere). The
    variables are read at the first product.
    """
    for name in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
        os.environ.setdefault(name, str(KERNELS))
