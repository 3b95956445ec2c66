"""Functions that numba compiles."""

from typing import Any

from numba import njit


def compiled(function: Any, **options: Any) -> Any:
    """Compile for this machine at the first call, with numba's `options`, and cache the result on disk if possible."""
    options = {"nogil": True, "error_model": "numpy"} | options
    try:
        return njit(cache=True, **options)(function)
    except RuntimeError:  # no writable folder for the cache
        return njit(**options)(function)
