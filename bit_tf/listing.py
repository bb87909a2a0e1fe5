"""CSV and JSONL files that list images and their labels."""

import csv
import json
import os
import pathlib
from collections.abc import Iterator
from collections.abc import Sequence

from bit_tf import rows

PATH_COLUMNS = ("path", "image", "file", "filename", "file_name", "image_path")
LABEL_COLUMNS = ("label", "labels", "class", "target")
SPLIT_COLUMNS = ("split", "subset", "set")
# Between several labels of an image, in CSV.
SEPARATOR = ";"


def read(kind: str, path: str) -> tuple[list[rows.Row], str]:
    """Reads a list of images.

    A CSV has a first line that names the columns; without it they are path,
    label and, if there is a third, split. Several labels of an image are
    separated by ";". In JSONL every line is an object of the same keys, and
    several labels are a list. Paths are relative to the file.

    Args:
        kind: "csv" or "jsonl".
        path: of the file, UTF-8.

    Returns:
        The rows, and the name of the label column.

    Raises:
        ValueError: it is not such a file; the text names the line.
        OSError: it cannot be read.
    """
    file = pathlib.Path(path).expanduser()
    if not file.is_file():
        what = "is not a file" if file.exists() else "does not exist"
        raise ValueError(
            f"{path} {what}: give {kind}:FILE that lists images and labels."
        )
    read_lines = {"csv": _csv, "jsonl": _jsonl}[kind]
    try:
        # With or without a byte-order mark, as Excel writes it.
        with open(file, encoding="utf-8-sig", newline="") as opened:
            lines = list(read_lines(opened, file.name))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(
            f"{path} is not a {kind.upper()} file in UTF-8: {error}."
        ) from error
    if not lines:
        raise ValueError(f"{path} lists no images.")
    first = {name: None for _, line in lines for name in line}
    columns = {
        role: next((name for name in names if name in first), None)
        for role, names in (
            ("path", PATH_COLUMNS),
            ("label", LABEL_COLUMNS),
            ("split", SPLIT_COLUMNS),
        )
    }
    for role, names in (("path", PATH_COLUMNS), ("label", LABEL_COLUMNS)):
        if columns[role] is None:
            raise ValueError(
                f"{path} has no column {role}: it has {', '.join(first)}; "
                f"allowed for it are {', '.join(names)}."
            )
    folder = file.absolute().parent
    return (
        [_row(where, line, columns, folder) for where, line in lines],
        columns["label"],
    )


def _csv(opened, name: str) -> Iterator[tuple[str, dict]]:
    start = opened.readline()
    opened.seek(0)
    delimiter = "\t" if start.count("\t") > start.count(",") else ","
    reader = csv.reader(opened, delimiter=delimiter, strict=True)
    columns: Sequence[str] | None = None
    for line in reader:
        where = f"{name}, line {reader.line_num}"
        if not any(cell.strip() for cell in line):
            continue
        if columns is None:
            columns = [cell.strip().lower() for cell in line]
            if set(columns) & set(PATH_COLUMNS):
                continue
            columns = ("path", "label", "split")[: len(line)]
        if len(line) != len(columns):
            raise ValueError(
                f"{where}: {len(line)} cells where the first line has "
                f"{len(columns)}: quote texts that hold a {delimiter!r}."
            )
        yield where, dict(zip(columns, line, strict=True))


def _jsonl(opened, name: str) -> Iterator[tuple[str, dict]]:
    for number, line in enumerate(opened, start=1):
        if not line.strip():
            continue
        where = f"{name}, line {number}"
        try:
            found = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{where} is not JSON: {error}.") from error
        if not isinstance(found, dict):
            raise ValueError(f"{where} is not a JSON object.")
        yield where, found


def _row(
    where: str, line: dict, columns: dict, folder: pathlib.Path
) -> rows.Row:
    path = line.get(columns["path"])
    if not isinstance(path, str) or not path.strip():
        raise ValueError(f"{where} has no path.")
    path = path.strip()
    split = line.get(columns["split"]) if columns["split"] else None
    if split is not None:
        split = str(split).strip() or None
    return rows.Row(
        where=where,
        name=path,
        content=os.path.abspath(folder / path),
        labels=labels_of(line.get(columns["label"]), where),
        split=split,
    )


def labels_of(value, where: str) -> tuple[str, ...]:
    """Returns the labels that a cell or a JSON value stands for, as text.

    Raises:
        ValueError: it is none.
    """
    if value is None:
        return ()
    if isinstance(value, str):
        parts = [part.strip() for part in value.split(SEPARATOR)]
        return tuple(part for part in parts if part)
    if isinstance(value, bool) or not isinstance(value, (int, float, list)):
        raise ValueError(
            f"{where}: label {value!r} is neither a text nor a number nor a "
            "list of them."
        )
    if isinstance(value, list):
        return tuple(label for one in value for label in labels_of(one, where))
    return (repr(value),)
