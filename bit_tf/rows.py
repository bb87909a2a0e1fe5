"""Rows of image and label, from whatever list them -> Examples."""

import concurrent.futures
import dataclasses
import math
import os
from collections.abc import Callable
from collections.abc import Sequence

import numpy as np

from bit_tf import examples as examples_lib
from bit_tf import holdout
from bit_tf import image_file
from bit_tf import scan
from bit_tf import tasks

_TRAIN = frozenset(tasks.TRAIN_NAMES)


@dataclasses.dataclass(frozen=True)
class Row:
    """One image and what is said of it.

    Args:
        where: for messages, e.g. "labels.csv, line 7".
        name: identifies the image.
        content: absolute path (str) or encoded image (bytes).
        labels: its labels, as text.
        split: the part it belongs to; None if that is not said.
    """

    where: str
    name: str
    content: str | bytes
    labels: tuple[str, ...]
    split: str | None = None


def load(
    rows: Sequence[Row],
    *,
    source: str,
    root: str,
    task: tasks.Task,
    label_name: str = "value",
    class_names: Sequence[str] | None = None,
    several: bool = False,
    split_seed: int = 0,
    reading: image_file.Reading | None = None,
    cache: str | os.PathLike | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[examples_lib.Examples, examples_lib.Examples, list[str]]:
    """Checks the images and labels, and parts them.

    Args:
        rows: what is listed, all with paths or all with images.
        source: of the rows, for messages.
        root: folder that names are relative to.
        task: which parts are wanted, and what a label is.
        label_name: what a label that is a number counts.
        class_names: all there may be, in order; None for those that are there.
        several: whether images may have several labels even if none has.
        split_seed: which fifth is held out where no split is said.
        reading: how the images are read.
        cache: see `scan.scan`.
        progress: called with (images checked, images in all).

    Returns:
        Training examples, evaluation examples, and remarks for the log.

    Raises:
        ValueError: rows that cannot be used, with the first of them.
    """
    if not rows:
        raise ValueError(f"{source} lists no images.")
    reading = reading or image_file.Reading()
    _check_same_image(rows)
    found, rows = _inspected(rows, root, reading, cache, progress)
    remarks = found.remarks()
    number = task.target.kind == "number"
    if task.target.is_number:
        values = np.array([_number(row) for row in rows], np.float32)
        labels, class_names = task.target.apply(values, label_name)
    else:
        several = several or any(len(row.labels) > 1 for row in rows)
        labels, class_names = _numbered(rows, class_names, several, source)
    if not number and len(class_names) < 2:
        raise ValueError(
            f"{source} has only class {class_names[0]!r}: a classifier needs "
            "at least two."
        )
    everything = examples_lib.Examples(
        names=[row.name for row in rows],
        contents=[row.content for row in rows],
        labels=labels,
        class_names=tuple(class_names),
        apply_exif=reading.apply_exif,
        **found.of([row.name for row in rows]),
    )
    train, evaluation, more = _parted(everything, rows, task, split_seed)
    return train, evaluation, remarks + more


def _check_same_image(rows: Sequence[Row]) -> None:
    """Raises ValueError where two rows contradict each other."""
    seen: dict[str, Row] = {}
    for row in rows:
        # "0.png" and "./0.png" are one file.
        same = row.content if isinstance(row.content, str) else row.name
        other = seen.setdefault(same, row)
        if (other.labels, other.split) != (row.labels, row.split):
            raise ValueError(
                f"{row.where}: {row.name} stands in {other.where} already, "
                "with another label or split: keep one of the two."
            )


def _inspected(
    rows: Sequence[Row],
    root: str,
    reading: image_file.Reading,
    cache,
    progress,
) -> tuple[scan.Scan, list[Row]]:
    """Returns what is known of each name, and the rows that can be used.

    Images that are in memory are converted at once.
    """
    if isinstance(rows[0].content, str):
        found = scan.scan(
            list(dict.fromkeys(row.content for row in rows)),
            root=root,
            reading=reading,
            cache=cache,
            progress=progress,
        )
        good = {
            row.name: found.good[row.content]
            for row in rows
            if row.content in found.good
        }
    else:

        def inspect(row):
            info = image_file.inspect(row.content, reading)
            if isinstance(info, str) or not info.converted:
                return info, row
            content = image_file.read(
                row.content, apply_exif=reading.apply_exif
            )
            return (
                dataclasses.replace(info, converted=False),
                dataclasses.replace(row, content=content),
            )

        good, bad, kept = {}, [], []
        with (
            image_file.many(),
            concurrent.futures.ThreadPoolExecutor() as pool,
        ):
            for done, (info, row) in enumerate(pool.map(inspect, rows), 1):
                if isinstance(info, str):
                    bad.append((row.name, info))
                else:
                    good[row.name] = info
                    kept.append(row)
                progress(done, len(rows))
        rows = kept
        scan.refuse(bad, root=root, total=done, reading=reading)
        found = scan.Scan(good=good, bad=bad)
    kept = [row for row in rows if row.name in good]
    if not kept:
        raise ValueError(f"{root}: none of {len(rows)} images can be used.")
    return dataclasses.replace(found, good=good), kept


def _number(row: Row) -> float:
    try:
        (text,) = row.labels
        value = float(text)
        if math.isfinite(value):
            return value
    except ValueError:
        pass
    raise ValueError(
        f"{row.where}: label {'; '.join(row.labels)!r} is not a number, as "
        "--target=number and --target=bins want it."
    )


def _numbered(
    rows: Sequence[Row],
    class_names: Sequence[str] | None,
    several: bool,
    source: str,
) -> tuple[np.ndarray, Sequence[str]]:
    """Returns labels as numbers, and the names of the classes."""
    found = {label for row in rows for label in row.labels}
    for row in rows:
        if not several and not row.labels:
            raise ValueError(f"{row.where}: {row.name} has no label.")
        for label in row.labels:
            if not label.isprintable() or not label:
                raise ValueError(
                    f"{row.where}: label {label!r} is empty or no plain text."
                )
    if class_names is None:
        class_names = examples_lib.class_order(found)
    if not class_names:
        raise ValueError(f"{source} has no labels.")
    number = {name: index for index, name in enumerate(class_names)}
    if len(number) < len(class_names):
        twice = next(n for n in class_names if list(class_names).count(n) > 1)
        raise ValueError(
            f"{source} has two classes called {twice!r}: rename one of them."
        )
    unknown = sorted(found - number.keys())
    if unknown:
        raise ValueError(
            f"{source} has label {unknown[0]!r}, which is not one of its "
            f"{len(class_names)} classes."
        )
    if not several:
        labels = [number[row.labels[0]] for row in rows]
        return np.array(labels, np.int32), class_names
    most = max(1, *(len(row.labels) for row in rows))
    labels = np.full((len(rows), most), -1, np.int32)
    for index, row in enumerate(rows):
        own = sorted({number[label] for label in row.labels})
        labels[index, : len(own)] = own
    return labels, class_names


def _parted(
    everything: examples_lib.Examples,
    rows: Sequence[Row],
    task: tasks.Task,
    split_seed: int,
) -> tuple[examples_lib.Examples, examples_lib.Examples, list[str]]:
    splits = [row.split for row in rows]
    names = sorted({name for name in splits if name is not None})
    if not names:
        for name in (task.train_split, task.eval_split):
            if name:
                raise ValueError(
                    f"{task.name} has no split {name!r}: it says of no image "
                    "which split it is in."
                )
        return holdout.hold_out(everything, split_seed)
    nameless = [row for row in rows if row.split is None]
    if nameless:
        raise ValueError(
            f"{nameless[0].where}: {nameless[0].name} has no split, and "
            "others have one."
        )
    train_name, eval_name = tasks.choose_splits(
        names, task.train_split, task.eval_split, of=task.name
    )
    parts = [
        everything.subset(np.flatnonzero(np.array(splits) == name))
        for name in (train_name, eval_name or train_name)
    ]
    unused = sorted(set(names) - {train_name, eval_name})
    remarks = [f"not used: split {', '.join(unused)}"] if unused else []
    if eval_name is None:
        *parts, more = holdout.hold_out(parts[0], split_seed)
        remarks += more
    return *parts, remarks
