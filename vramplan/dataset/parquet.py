"""Rows out of a Parquet file, a piece at a time and only the columns that are needed."""

from collections.abc import Iterator
from typing import IO, Any

from vramplan.dataset.rows import FIELDS, IDS_FIELD
from vramplan.errors import UsageError, require_installed

_PIECE = 4096


def read_parquet(file: IO[bytes], name: str, field: str) -> Iterator[object]:
    """What each row holds: of a column of token ids how many, else the known columns, or the one called `field`."""
    require_installed("Parquet", ("pyarrow",), hint="pip install 'vramplan[data]', or write .jsonl")
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.ParquetFile(file)
        chosen = _columns(table.schema_arrow, name, field)
        for piece in table.iter_batches(batch_size=_PIECE, columns=chosen):
            yield from _rows(piece, field)
    except (pyarrow.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UsageError(f"{name} is not a Parquet file: {reason}", hint="write it again, or as .jsonl") from error


def _columns(schema: Any, name: str, field: str) -> list[str]:
    names = list(schema.names)
    if field:
        if field not in names:
            raise UsageError(f"{name} has no column '{field}'", hint=f"its columns: {', '.join(names)}")
        return [field]
    if IDS_FIELD in names:
        return [IDS_FIELD]
    found = [column for column in names if column in FIELDS]
    if not found and len(names) != 1:
        raise UsageError(
            f"{name} has none of the columns that are known: {', '.join(names)[:200]}", hint="name one with --field"
        )
    return found or names


def _rows(piece: Any, field: str) -> Iterator[object]:
    """Lists of token ids never become Python lists: only their lengths are asked for."""
    import pyarrow
    import pyarrow.compute

    only = piece.column(0) if piece.num_columns == 1 else None
    if only is None:
        yield from piece.to_pylist()
        return
    lists = pyarrow.types.is_list(only.type) or pyarrow.types.is_large_list(only.type)
    if lists and pyarrow.types.is_integer(only.type.value_type):
        yield from pyarrow.compute.list_value_length(only).to_pylist()
    elif field or piece.schema.names[0] not in FIELDS:
        yield from only.to_pylist()
    else:
        yield from piece.to_pylist()
