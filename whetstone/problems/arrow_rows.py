"""Rows from Parquet and Arrow files, as plain values of Python."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import Any

from whetstone.problems.row import BrokenRow, Numbered, Row, Unreadable

BATCH = 1024  # rows that are held at once


def arrow_rows(path: Path, suffix: str, needed: Sequence[str]) -> Iterator[Numbered]:
    """Rows with the `needed` columns, or with all. Raises ValueError for a damaged file or two columns of one name."""
    import pyarrow as pa

    try:
        with ExitStack() as opened:
            batches = _parquet(path, needed, opened) if suffix == ".parquet" else _arrow(path, opened)
            yield from enumerate(
                chain.from_iterable(map(_batch_rows, map(_portable, _uniquely_named(path, batches)))), 1
            )
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise ValueError(
            f"source file {path} is not {'a Parquet' if suffix == '.parquet' else 'an Arrow'} file that can be read: "
            f"{error}. Fetch it again."
        ) from error


def _parquet(path: Path, needed: Sequence[str], opened: ExitStack) -> Iterator[Any]:
    import pyarrow.parquet as pq

    table = opened.enter_context(pq.ParquetFile(path))
    names = table.schema_arrow.names
    tops = dict.fromkeys(name if name in names else name.partition(".")[0] for name in needed)
    columns = list(tops) if tops and set(tops) <= set(names) else None
    return table.iter_batches(batch_size=BATCH, columns=columns)


def _arrow(path: Path, opened: ExitStack) -> Iterator[Any]:
    """The batches of a stream (what `datasets` writes) or of a file (Feather), cut into small ones."""
    import pyarrow as pa

    content = opened.enter_context(pa.memory_map(str(path)))
    try:
        batches = iter(opened.enter_context(pa.ipc.open_stream(content)))
    except pa.ArrowInvalid:
        file = opened.enter_context(pa.ipc.open_file(content))
        batches = (file.get_batch(number) for number in range(file.num_record_batches))
    return (batch.slice(start, BATCH) for batch in batches for start in range(0, batch.num_rows, BATCH))


def _uniquely_named(path: Path, batches: Iterator[Any]) -> Iterator[Any]:
    for batch in batches:
        names = batch.schema.names
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"source file {path} has two columns {twice!r}. Rename one of them.")
        yield batch


def _portable(batch: Any) -> Any:
    """The batch with float32 as the decimals that it prints as (0.1, not 0.10000000149011612) and times in microseconds."""
    import pyarrow as pa

    for place, field in enumerate(batch.schema):
        if (printed := _singles_as(field.type, pa.string())) != field.type:
            column = batch.column(place).cast(printed).cast(_singles_as(field.type, pa.float64()))
        elif field.type in (pa.time64("ns"), pa.duration("ns")) or getattr(field.type, "unit", "") == "ns":
            column = batch.column(place).cast(_in_microseconds(field.type), safe=False)
        else:
            continue
        batch = batch.set_column(place, field.name, column)
    return batch


def _singles_as(kind: Any, other: Any) -> Any:
    """A type with another one in place of float32, also in lists and structs."""
    import pyarrow as pa

    if pa.types.is_list(kind):
        return pa.list_(_singles_as(kind.value_type, other))
    if pa.types.is_struct(kind):
        return pa.struct([pa.field(field.name, _singles_as(field.type, other)) for field in kind])
    return other if pa.types.is_float32(kind) else kind


def _in_microseconds(kind: Any) -> Any:
    import pyarrow as pa

    if pa.types.is_timestamp(kind):
        return pa.timestamp("us", kind.tz)
    return pa.duration("us") if pa.types.is_duration(kind) else pa.time64("us")


def _batch_rows(batch: Any) -> Iterator[Row | BrokenRow]:
    """The rows of a batch; if one cannot be had (Arrow does not check that strings are UTF-8), each by itself."""
    try:
        yield from batch.to_pylist(maps_as_pydicts="strict")
        return
    except (ValueError, KeyError, OverflowError):
        pass
    for place in range(batch.num_rows):
        try:
            columns = zip(batch.schema.names, batch.columns, strict=True)
            yield {name: _value(column[place]) for name, column in columns}
        except UnicodeDecodeError as error:
            yield BrokenRow("not UTF-8", f"byte 0x{error.object[error.start]:02X}")


def _value(scalar: Any) -> Any:
    """A date beyond the year 9999, a map with a key twice and the like cost only themselves."""
    try:
        return scalar.as_py(maps_as_pydicts="strict")
    except UnicodeDecodeError:
        raise
    except (ValueError, KeyError, OverflowError) as error:
        return Unreadable(str(error))
