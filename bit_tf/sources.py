"""Task -> training and evaluation Examples, wherever the images lie."""

import importlib.resources
import io
import os
import zipfile
from collections.abc import Callable

from bit_tf import archives
from bit_tf import arrays
from bit_tf import encoded
from bit_tf import examples as examples_lib
from bit_tf import folder
from bit_tf import image_file
from bit_tf import listing
from bit_tf import rows
from bit_tf import tasks
from bit_tf import tfds_sets


def load(
    task: tasks.Task,
    *,
    data_dir: str | None = None,
    split_seed: int = 0,
    reading: image_file.Reading | None = None,
    cache: str | os.PathLike | None = None,
    log: Callable[[str], None] = print,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[examples_lib.Images, examples_lib.Images]:
    """Finds the images of a task.

    Args:
        task: what to load.
        data_dir: where TFDS keeps its sets; its own default if None.
        split_seed: for sets without an evaluation part.
        reading: how images of the user's own are read.
        cache: see `scan.scan`.
        log: called with remarks, one line each.
        progress: called with (images checked, images in all).

    Raises:
        ValueError: the data is not there or not usable; the text says what
            to do.
    """
    if task.kind == "builtin":
        return _builtin(task.location)
    if task.kind == "tfds":
        return tfds_sets.load(task, data_dir=data_dir, log=log)
    how = {
        "split_seed": split_seed,
        "reading": reading,
        "cache": cache,
        "progress": progress,
    }
    if task.kind == "folder":
        train, evaluation, remarks = folder.load(
            task.location,
            train_split=task.train_split,
            eval_split=task.eval_split,
            **how,
        )
    else:
        train, evaluation, remarks = rows.load(
            **_listed(task), task=task, source=task.name, **how
        )
    for remark in remarks:
        log(remark)
    return train, evaluation


def _listed(task: tasks.Task) -> dict:
    """Returns the rows of a set, and what its kind says of them."""
    path = os.path.expanduser(task.location)
    root = os.path.dirname(os.path.abspath(path))
    if task.kind in ("csv", "jsonl"):
        found, label_name = listing.read(task.kind, path)
        return {"rows": found, "label_name": label_name, "root": root}
    if task.kind == "npz":
        found, class_names, several = arrays.read(path)
        return {
            "rows": found,
            "class_names": class_names,
            "several": several,
            "root": path,
        }
    found, class_names, label_name = archives.read(task.kind, path)
    return {
        "rows": found,
        "class_names": class_names,
        "label_name": label_name,
        "root": path,
    }


def _builtin(name: str) -> tuple[examples_lib.Examples, examples_lib.Examples]:
    """Reads a shipped set, a zip of {train,test}/CLASS/*.jpg."""
    packed = importlib.resources.files("bit_tf") / "assets" / f"{name}.zip"
    splits: dict[str, list[tuple[str, bytes]]] = {"train": [], "test": []}
    with zipfile.ZipFile(io.BytesIO(packed.read_bytes())) as archive:
        for path in sorted(archive.namelist()):
            split, _, rest = path.partition("/")
            if rest and split in splits:
                splits[split].append((rest, archive.read(path)))
    class_names = sorted({path.split("/")[0] for path, _ in splits["train"]})
    train, evaluation = (
        encoded.examples(
            names=[path for path, _ in rows],
            contents=[content for _, content in rows],
            labels=[class_names.index(path.split("/")[0]) for path, _ in rows],
            class_names=class_names,
        )
        for rows in splits.values()
    )
    return train, evaluation
