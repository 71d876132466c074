"""Tables out of files and into files, by pandas, which is an optional part of vds."""

from __future__ import annotations

import io
import json
import random
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vds.azureml.exceptions import NotInVdsError, UserErrorException
from vds.azureml.selection import Selection

Definition = Mapping[str, Any]

_ISO_DATE = re.compile(r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:?\d\d)?)?")
_NULLS = ("", "NA", "NaN", "nan", "NULL", "null", "None")
PATH_COLUMN = "Path"


def need_pandas() -> Any:
    """Return pandas.

    Raises:
        NotInVdsError: it is not installed.
    """
    try:
        import pandas  # late: it is optional, and takes half a second
    except ImportError as err:
        raise NotInVdsError("tables need pandas, which is not installed", hint="pip install 'vds[pandas]'") from err
    return pandas


def read_frame(selection: Selection, definition: Definition) -> Any:
    """Return the rows of all files, in the order of their paths, as a data frame.

    Raises:
        UserErrorException: a file is no table of the definition's format, or lacks a column.
    """
    pandas = need_pandas()
    place = selection.place()
    files = selection.files()
    frames = []
    for number, name in enumerate(files):
        frame = _read_file(pandas, place if place.is_file() else place / name, definition, is_first=number == 0)
        if definition.get("include_path"):
            frame.insert(0, PATH_COLUMN, f"/{name}")
        frames.append(frame)
    table = frames[0] if len(frames) == 1 else pandas.concat(frames, ignore_index=True)
    table = _typed(pandas, table, definition)
    for step in definition.get("steps", ()):
        table = _apply(table, step)
    return table


def write_csv(frame: Any, separator: str) -> bytes:
    """Return a data frame as CSV."""
    return str(frame.to_csv(index=False, sep=separator, lineterminator="\n")).encode()


def write_parquet(frame: Any, row_group_size: int | None = None) -> bytes:
    """Return a data frame as Parquet."""
    out = io.BytesIO()
    options = {} if row_group_size is None else {"row_group_size": row_group_size}
    frame.to_parquet(out, index=False, **options)
    return out.getvalue()


def _read_file(pandas: Any, path: Path, definition: Definition, *, is_first: bool) -> Any:
    kind = definition["format"]
    try:
        if kind == "parquet":
            return pandas.read_parquet(path)
        if kind == "json":
            with open(path, encoding=definition.get("encoding", "utf8")) as file:
                return pandas.DataFrame([json.loads(line) for line in file if line.strip()])
        return _read_delimited(pandas, path, definition, is_first=is_first)
    except (ValueError, OSError) as err:  # what pandas and pyarrow raise over a file that is not what it should be
        raise UserErrorException(f"{path.name} is no {kind} table: {err}") from err


def _read_delimited(pandas: Any, path: Path, definition: Definition, *, is_first: bool) -> Any:
    header = definition.get("header", True)
    has_header = header in (True, "all", "combine") or (header == "first" and is_first)
    frame = pandas.read_csv(
        path,
        sep=definition.get("separator", ","),
        header=0 if has_header else None,
        encoding=definition.get("encoding", "utf8"),
        dtype=None if definition.get("infer", True) else str,
        keep_default_na=False,
        na_values=[] if definition.get("empty_as_string") else list(_NULLS),
        skipinitialspace=False,
    )
    if not has_header:
        frame.columns = [f"Column{number}" for number in range(1, len(frame.columns) + 1)]
    return frame


def _typed(pandas: Any, frame: Any, definition: Definition) -> Any:
    types: Mapping[str, Sequence[Any]] = definition.get("types") or {}
    missing = sorted(set(types) - set(frame.columns))
    if missing:
        raise UserErrorException(f"set_column_types names columns that are not there: {missing}")
    for column, (kind, *more) in types.items():
        frame[column] = _convert(pandas, frame[column], kind, more)
    if definition["format"] == "delimited" and definition.get("infer", True):
        for column in frame.columns:
            if column not in types and column != PATH_COLUMN:
                frame[column] = _with_dates(pandas, frame[column])
    return frame


def _convert(pandas: Any, column: Any, kind: str, more: Sequence[Any]) -> Any:
    if kind == "string":
        return column.map(lambda value: None if pandas.isna(value) else str(value))
    if kind == "long":
        numbers = pandas.to_numeric(column, errors="coerce")
        return numbers.astype("int64" if not numbers.isna().any() else "float64")
    if kind == "float":
        [mark] = more or ["."]
        text = column if mark == "." else column.map(lambda value: str(value).replace(mark, "."))
        return pandas.to_numeric(text, errors="coerce").astype("float64")
    if kind == "bool":
        return column.map(lambda value: {"true": True, "1": True, "false": False, "0": False}.get(str(value).lower()))
    formats = [text for given in more for text in ([given] if isinstance(given, str) else given or [])]
    if not formats:
        return pandas.to_datetime(column, errors="coerce", format="ISO8601")
    found = pandas.to_datetime(column, errors="coerce", format=formats[0])
    for text in formats[1:]:
        found = found.fillna(pandas.to_datetime(column, errors="coerce", format=text))
    return found


def _with_dates(pandas: Any, column: Any) -> Any:
    """Return a column of ISO dates as dates, as the SDK infers them; any other as it is."""
    if not (pandas.api.types.is_object_dtype(column) or pandas.api.types.is_string_dtype(column)):
        return column
    present = column.dropna()
    if present.empty or not all(isinstance(value, str) and _ISO_DATE.fullmatch(value) for value in present):
        return column
    found = pandas.to_datetime(column, errors="coerce", format="ISO8601", utc=any(re.search(r"[Z+]", one) for one in present))
    if found[present.index].isna().any():
        return column
    return found.dt.tz_localize(None) if found.dt.tz is not None else found


def _apply(frame: Any, step: Sequence[Any]) -> Any:
    name, *given = step
    if name in ("keep", "drop"):
        missing = [column for column in given[0] if column not in frame.columns]
        if missing:
            raise UserErrorException(f"there are no columns {missing}", hint=f"columns: {list(frame.columns)}")
        return frame[given[0]] if name == "keep" else frame.drop(columns=given[0])
    if name in ("skip", "take"):
        part = frame.iloc[given[0] :] if name == "skip" else frame.iloc[: given[0]]
        return part.reset_index(drop=True)
    share, seed, wants_chosen = given
    draw = random.Random(seed)  # noqa: S311 - a sample, no secret
    chosen = [(draw.random() < share) == wants_chosen for _ in range(len(frame))]
    return frame[chosen].reset_index(drop=True)
