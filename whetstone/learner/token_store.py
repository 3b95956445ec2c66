"""Rows of ids on disk, read by index through a memory map, so that training data of any size take a few megabytes of memory.

ids.bin      the ids of all rows end to end, uint16 if the vocabulary allows, else uint32
starts.bin   int64, where each row begins in ids.bin, and where the last one ends
prompts.bin  int32, how many ids at the beginning of each row are context and not scored
store.json   the number of rows and the type of the ids; written last
"""

import os
from array import array
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from whetstone.batch import Row
from whetstone.run.folder import read_json, write_json

SMALL = 1 << 16  # ids below this take two bytes


class TokenWriter:
    """`with TokenWriter(folder, vocabulary) as rows: rows.add(ids, prompt)`; the files are synced at the end.

    `add` raises ValueError for a row that cannot be trained on: an id beyond the vocabulary, or no id before the first
    scored one.
    """

    def __init__(self, folder: Path, vocabulary: int):
        self.folder, self.vocabulary = folder, vocabulary
        self.code = "H" if vocabulary <= SMALL else "I"
        self.rows = self.ids = 0

    def __enter__(self) -> "TokenWriter":
        self.folder.mkdir(parents=True, exist_ok=True)
        self._files = [(self.folder / f"{name}.bin").open("wb") for name in ("ids", "starts", "prompts")]
        self._files[1].write(array("q", [0]).tobytes())
        return self

    def add(self, ids: Sequence[int], prompt: int) -> None:
        if not 1 <= prompt <= len(ids):
            raise ValueError(f"a row of {len(ids)} ids with prompt = {prompt}: the first id can never be predicted.")
        if not (min(ids) >= 0 and max(ids) < self.vocabulary):
            raise ValueError(
                f"a row holds id {max(ids)}, and the tokenizer has ids up to {self.vocabulary - 1}: they are those of another "
                "model. Train the model that they were sampled from, or use data that are text."
            )
        self.rows += 1
        self.ids += len(ids)
        for file, code, numbers in zip(self._files, (self.code, "q", "i"), (ids, [self.ids], [prompt]), strict=True):
            file.write(array(code, numbers).tobytes())

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for file in self._files:
            if kind is None:
                file.flush()
                os.fsync(file.fileno())
            file.close()
        if kind is None:
            write_json(self.folder / "store.json", {"rows": self.rows, "ids": self.ids, "type": self.code})


class TokenStore(Sequence[Row]):
    """`store[i]` is row i, its ids read from disk. `lengths` and `prompts` are numpy arrays over all rows."""

    def __init__(self, ids: np.ndarray, starts: np.ndarray, lengths: np.ndarray, prompts: np.ndarray):
        self._ids, self._starts, self.lengths, self.prompts = ids, starts, lengths, prompts

    @classmethod
    def open(cls, folder: Path) -> "TokenStore":
        """Open what a TokenWriter wrote. Raises ValueError if a file has another length than was written."""
        stored = read_json(folder / "store.json", needed=["rows", "ids", "type"])
        ids = _mapped(folder / "ids.bin", stored["type"], stored["ids"])
        starts = _mapped(folder / "starts.bin", "q", stored["rows"] + 1)
        prompts = _mapped(folder / "prompts.bin", "i", stored["rows"])
        return cls(ids, starts[:-1], np.diff(starts).astype(np.int32), prompts)

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, row: int) -> Row:
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of {len(self)}")
        start = int(self._starts[row])
        return Row(self._ids[start : start + int(self.lengths[row])].tolist(), prompt=int(self.prompts[row]))

    @property
    def scored(self) -> int:
        """The number of scored tokens of all rows."""
        return int(self.lengths.sum(dtype=np.int64) - self.prompts.sum(dtype=np.int64))

    def at_most(self, longest: int) -> "TokenStore":
        """The rows of at most `longest` tokens, in the same order."""
        fits = self.lengths <= longest
        return TokenStore(self._ids, self._starts[fits], self.lengths[fits], self.prompts[fits])


def _mapped(path: Path, code: str, count: int) -> np.ndarray:
    size = path.stat().st_size
    if size != count * np.dtype(code).itemsize:
        raise ValueError(f"{path} holds {size} bytes, but {count} numbers of type {code!r} were written.")
    return np.memmap(path, code, mode="r") if count else np.empty(0, code)
