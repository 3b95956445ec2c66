"""Errors about a full disk: what was to be written, how much it needs, how much is free."""

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SLACK = 1 << 20  # bytes for JSON files, folders, and the file system's own use
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class DiskFull(OSError):
    """Who catches this must leave nothing half-written behind."""


@contextmanager
def room_for(what: str, size: int, folder: Path) -> Iterator[None]:
    """Raises DiskFull if `folder` has no room for `size` bytes: before anything is written, or when writing fails."""
    folder.mkdir(parents=True, exist_ok=True)
    size += SLACK
    if (free := shutil.disk_usage(folder).free) < size:
        raise _full(what, size, folder, free)
    with disk_full_explained(what, folder, size):
        yield


@contextmanager
def disk_full_explained(what: str, folder: Path, size: int = 0) -> Iterator[None]:
    """Raises DiskFull if writing fails for lack of space. For files too small to check, or of unknown size."""
    try:
        yield
    except Exception as error:
        if not _is_full(error):
            raise
        raise _full(what, size, folder, shutil.disk_usage(folder).free) from error


def _is_full(error: BaseException) -> bool:
    """Whether it is about a full disk, a used-up quota or a file size limit. Rust libraries put the number in the text."""
    return getattr(error, "errno", None) in FULL or any(f"os error {code}" in str(error) for code in FULL)


def _full(what: str, size: int, folder: Path, free: int) -> DiskFull:
    needs = f"it needs {size / 1e6:,.1f} MB, and " if size else ""
    return DiskFull(
        f"no room for {what}: {needs}{folder} has {free / 1e6:,.1f} MB free (or a quota or "
        "limit is reached). What was written before is complete. Free some space and run again: it continues from there."
    )
