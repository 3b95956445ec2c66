"""A full disk, said before and while something large is written: what, how much it needs, how much there is."""

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SLACK = 1 << 20  # bytes for what goes with it: JSON, folders, the file system's own
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class DiskFull(OSError):
    """Nothing half-written may be left behind when this is raised."""


@contextmanager
def room_for(what: str, size: int, folder: Path) -> Iterator[None]:
    """Raises DiskFull where `size` bytes have no room in `folder`: before anything is written, or when writing fails."""
    folder.mkdir(parents=True, exist_ok=True)
    size += SLACK
    if (free := shutil.disk_usage(folder).free) < size:
        raise _full(what, size, folder, free)
    with told_when_full(what, size, folder):
        yield


@contextmanager
def told_when_full(what: str, size: int, folder: Path) -> Iterator[None]:
    """The second half of it, for what is too small to look beforehand."""
    try:
        yield
    except Exception as error:
        if not is_full(error):
            raise
        raise _full(what, size, folder, shutil.disk_usage(folder).free) from error


def is_full(error: BaseException) -> bool:
    """Whether it tells of a full disk, a spent quota or a limit on file sizes; libraries in Rust say it in words."""
    return getattr(error, "errno", None) in FULL or any(f"os error {code}" in str(error) for code in FULL)


def _full(what: str, size: int, folder: Path, free: int) -> DiskFull:
    return DiskFull(
        f"no room for {what}: it needs {size / 1e6:,.1f} MB, and {folder} has {free / 1e6:,.1f} MB free (or a quota or "
        "limit is reached). What was written before is whole. Make room, and run again: it goes on from there."
    )
