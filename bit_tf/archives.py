"""Images and labels in Parquet files and in webdataset's tar files."""

import glob
import json
import os
import pathlib
import re
import tarfile
import zlib
from collections.abc import Iterator

from bit_tf import listing
from bit_tf import rows
from bit_tf import tasks

MAX_BYTES_IN_MEMORY = 8 * 2**30
_IMAGE_COLUMNS = ("image", "img", "jpg", "png", "image_bytes", "bytes")
_LABEL_COLUMNS = (*listing.LABEL_COLUMNS, "cls", "fine_label")
_IMAGE_ENDINGS = (
    *("jpg", "jpeg", "png", "gif", "bmp"),
    *("webp", "tif", "tiff", "avif"),
)


def read(kind: str, location: str) -> tuple[list[rows.Row], tuple | None, str]:
    """Reads all images into memory.

    A file belongs to the split that its name begins with, or its folder:
    train-00000.tar, test/0.parquet.

    Args:
        kind: "parquet" or "tar".
        location: a file, a folder, or a pattern with * or {00..12}.

    Returns:
        Rows with encoded images; the names of the classes, None if they are
        not there; what a label is called.

    Raises:
        ValueError: there are no such files, or they hold something else.
    """
    files = _files(kind, location)
    read_file = {"parquet": _parquet, "tar": _tar}[kind]
    found: list[rows.Row] = []
    class_names, label_name, size = None, "value", 0
    for file in files:
        try:
            part, names, label_name = read_file(file)
            part = list(part)
        except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
            raise ValueError(
                f"{file} cannot be read as {kind}: "
                f"{' '.join(str(error).split())[:200]}"
            ) from error
        class_names = class_names or names
        for row in part:
            size += len(row.content)
            if size > MAX_BYTES_IN_MEMORY:
                raise ValueError(
                    f"{kind}:{location} has more than "
                    f"{MAX_BYTES_IN_MEMORY >> 30} GiB, which are held in "
                    "memory: name fewer files, or unpack them into a folder."
                )
            found.append(row)
    return found, class_names, label_name


def _files(kind: str, location: str) -> list[pathlib.Path]:
    location = os.path.expanduser(location)
    if os.path.isdir(location):
        patterns = [os.path.join(glob.escape(location), "**", f"*.{kind}")]
    elif os.path.isfile(location):
        return [pathlib.Path(location)]
    else:
        patterns = _expanded(location)
    found = {
        path
        for pattern in patterns
        for path in glob.glob(pattern, recursive=True)
        if os.path.isfile(path)
    }
    if not found:
        raise ValueError(
            f"{kind}:{location}: there are no such files. Give a .{kind} file, "
            "a folder of them, or a pattern."
        )
    return [pathlib.Path(path) for path in sorted(found)]


def _expanded(pattern: str) -> list[str]:
    """Reads webdataset's "{00..12}" as the numbers between."""
    match = re.search(r"\{(\d+)\.\.(\d+)\}", pattern)
    if not match:
        return [pattern]
    first, last = match.groups()
    return [
        more
        for number in range(int(first), int(last) + 1)
        for more in _expanded(
            f"{pattern[: match.start()]}{number:0{len(first)}d}"
            f"{pattern[match.end() :]}"
        )
    ]


def _split_of(file: pathlib.Path) -> str | None:
    names = (*tasks.TRAIN_NAMES, *tasks.EVAL_NAMES)
    begins = re.match(rf"({'|'.join(names)})[-_.\d]", file.name.lower())
    if begins:
        return begins[1]
    folder = file.parent.name.lower()
    return folder if folder in names else None


def _parquet(file: pathlib.Path):
    try:
        from pyarrow import ArrowException
        from pyarrow import parquet
    except ImportError as error:
        raise ValueError(
            "parquet: needs pyarrow: pip install 'bit_tf[parquet]'"
        ) from error
    try:
        opened = parquet.ParquetFile(file)
    except ArrowException as error:
        raise OSError(str(error)) from error
    columns = opened.schema_arrow.names
    image = next((n for n in _IMAGE_COLUMNS if n in columns), None)
    label = next((n for n in _LABEL_COLUMNS if n in columns), None)
    if image is None or label is None:
        raise ValueError(
            f"{file} has columns {', '.join(columns)}: one of "
            f"{', '.join(_IMAGE_COLUMNS)} is needed, and one of "
            f"{', '.join(_LABEL_COLUMNS)}."
        )
    class_names = _hub_names(opened.schema_arrow.metadata or {}, label)

    def part() -> Iterator[rows.Row]:
        index = 0
        for batch in opened.iter_batches(256, columns=[image, label]):
            for line in batch.to_pylist():
                where = f"{file.name}, row {index}"
                content = line[image]
                if isinstance(content, dict):
                    content = content.get("bytes")
                if not isinstance(content, bytes):
                    raise ValueError(f"{where} has no encoded image.")
                value = line[label]
                if class_names is not None:
                    value = _by_number(value, class_names, where)
                yield rows.Row(
                    where=where,
                    name=f"{file}/{index}",
                    content=content,
                    labels=listing.labels_of(value, where),
                    split=_split_of(file),
                )
                index += 1

    return part(), class_names, label


def _hub_names(metadata: dict, label: str) -> tuple[str, ...] | None:
    """Returns the class names that Hugging Face's data sets keep there."""
    try:
        about = json.loads(metadata[b"huggingface"])
        feature = about["info"]["features"][label]
        return tuple((feature.get("feature") or feature)["names"])
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def _by_number(value, class_names: tuple[str, ...], where: str):
    if isinstance(value, list):
        return [_by_number(one, class_names, where) for one in value]
    if not isinstance(value, int) or not 0 <= value < len(class_names):
        raise ValueError(
            f"{where}: label {value!r} is none of {len(class_names)} classes."
        )
    return class_names[value]


def _tar(file: pathlib.Path):
    def part() -> Iterator[rows.Row]:
        with tarfile.open(file) as archive:
            key, sample = None, {}
            for member in archive:
                if not member.isfile():
                    continue
                folder, _, name = member.name.rpartition("/")
                own, _, ending = name.partition(".")
                own = f"{folder}/{own}".lstrip("/")
                if own != key:
                    if sample:
                        yield _of_sample(file, key, sample)
                    key, sample = own, {}
                sample[ending.lower()] = archive.extractfile(member).read()
            if sample:
                yield _of_sample(file, key, sample)

    return part(), None, "cls"


def _of_sample(
    file: pathlib.Path, key: str, sample: dict[str, bytes]
) -> rows.Row:
    where = f"{file.name}, {key}"
    content = next((sample[e] for e in _IMAGE_ENDINGS if e in sample), None)
    if content is None:
        raise ValueError(
            f"{where} has {', '.join(sample)} and no image: one of "
            f"{', '.join(_IMAGE_ENDINGS)} is needed."
        )
    try:
        if "cls" in sample:
            value = sample["cls"].decode().strip()
        elif "json" in sample:
            about = json.loads(sample["json"])
            value = next((about[n] for n in _LABEL_COLUMNS if n in about), None)
        else:
            value = sample["txt"].decode().strip()
    except (KeyError, ValueError, TypeError) as error:
        raise ValueError(
            f"{where} has no label: one of cls, json with label, or txt is "
            "needed."
        ) from error
    return rows.Row(
        where=where,
        name=f"{file}/{key}",
        content=content,
        labels=listing.labels_of(value, where),
        split=_split_of(file),
    )
