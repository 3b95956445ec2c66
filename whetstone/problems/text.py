"""Files from outside as bytes and as text: unpacked by their suffix, decoded by their byte order mark, in bounded lines."""

import bz2
import gzip
import lzma
import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BufferedReader, TextIOWrapper
from pathlib import Path
from typing import Any, BinaryIO, TextIO

LONGEST_LINE = 64 << 20  # characters; what is beyond is not held in memory
MARKS = {  # a byte order mark -> encoding; UTF-16's is also the beginning of UTF-32's
    b"\xff\xfe\0\0": "utf-32",
    b"\0\0\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
    b"\xef\xbb\xbf": "utf-8-sig",
}


NO_MARK = {  # first bytes of ASCII in an encoding -> its name
    "UTF-32": re.compile(rb"[^\0]\0\0\0|\0\0\0[^\0]"),
    "UTF-16": re.compile(rb"(?:[^\0]\0){1,2}|(?:\0[^\0]){1,2}"),
}


def _open_plain(path: Path) -> BinaryIO:
    return path.open("rb")


def _open_zstd(path: Path) -> Any:
    import pyarrow as pa

    return pa.input_stream(str(path), compression="zstd")


PACKED: dict[str, tuple[bytes, Callable[[Path], Any]]] = {  # suffix -> first bytes, how it is opened
    ".gz": (b"\x1f\x8b", gzip.open),
    ".bz2": (b"BZh", bz2.open),
    ".xz": (b"\xfd7zXZ\0", lzma.open),
    ".zst": (b"\x28\xb5\x2f\xfd", _open_zstd),
}


def suffix_of(path: Path) -> str:
    """The suffix that tells the format, in small letters, without that of the packing."""
    name = path.name.lower()
    return Path(name.removesuffix(packing(path))).suffix


def packing(path: Path) -> str:
    """.gz, .bz2, .xz or .zst, by the file's name; "" for none."""
    suffix = path.suffix.lower()
    return suffix if suffix in PACKED else ""


@contextmanager
def damage_named(path: Path) -> Iterator[None]:
    """An error in unpacking or decoding becomes a ValueError with the file's name."""
    try:
        yield
    except (EOFError, zlib.error, lzma.LZMAError, UnicodeError) as error:
        raise _damaged(path, error) from error
    except OSError as error:
        if error.filename is not None:  # the file itself, not what is in it
            raise
        raise _damaged(path, error) from error


def _damaged(path: Path, why: object) -> ValueError:
    return ValueError(f"source file {path} is damaged: {why}. Fetch it again.")


@contextmanager
def open_bytes(path: Path) -> Iterator[BinaryIO]:
    """The content, unpacked. Raises ValueError for a file that is not packed as its name says."""
    mark, unpacked = PACKED.get(packing(path), (b"", _open_plain))
    with path.open("rb") as packed:
        start = packed.read(len(mark))
    if start not in (mark, b""):
        raise _damaged(path, f"it is not packed as {packing(path)}, by its first bytes")
    with unpacked(path) as content:
        yield BufferedReader(content)


@contextmanager
def open_text(path: Path) -> Iterator[TextIO]:
    """The content as text, with its line ends. Bytes that are not UTF-8 are lone surrogates."""
    with open_bytes(path) as content:
        start = content.peek(4)[:4]
        encoding = next((name for mark, name in MARKS.items() if start.startswith(mark)), "utf-8")
        if wide := next((name for name, ascii in NO_MARK.items() if ascii.fullmatch(start)), None):
            raise ValueError(
                f"source file {path} is {wide} without a byte order mark, and text is UTF-8. Save it as UTF-8."
            )
        errors = "surrogateescape" if encoding.startswith("utf-8") else "surrogatepass"
        yield TextIOWrapper(content, encoding, errors, newline="")


def bounded_lines(content: TextIO) -> Iterator[str]:
    """The lines of a text; one that is too long comes cut, and without its end."""
    while line := content.readline(LONGEST_LINE):
        yield line
        cut = len(line) == LONGEST_LINE
        while cut and not line.endswith(("\n", "\r")) and (line := content.readline(LONGEST_LINE)):
            pass
