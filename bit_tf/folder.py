"""Folders of images: find, check and split them before anything trains."""

import os
import pathlib
from collections.abc import Callable
from collections.abc import Sequence

import numpy as np

from bit_tf import examples as examples_lib
from bit_tf import holdout
from bit_tf import image_file
from bit_tf import listed_files
from bit_tf import scan
from bit_tf import tasks


def load(
    path: str,
    *,
    train_split: str | None = None,
    eval_split: str | None = None,
    split_seed: int = 0,
    reading: image_file.Reading | None = None,
    cache: str | os.PathLike | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[examples_lib.Examples, examples_lib.Examples, list[str]]:
    """Reads PATH/{train,test}/CLASS/* or PATH/CLASS/*.

    Without an evaluation folder, a fifth of every class
    is held out, chosen by `split_seed` and the file's name.

    Args:
        path: the folder.
        train_split: name of the training sub-folder; "train" if None.
        eval_split: name of the evaluation sub-folder; the first of test, val,
            validation, valid if None.
        split_seed: which fifth is held out.
        reading: how the images are read.
        cache: see `scan.scan`.
        progress: called with (files checked, files in all).

    Returns:
        Training examples, evaluation examples, and remarks for the log.

    Raises:
        ValueError: no such folder, no or one class, a class without images,
            files that are not readable images, classes that do not match.
    """
    root = pathlib.Path(path).expanduser()
    if not root.is_dir():
        what = "is not a folder" if root.exists() else "does not exist"
        raise ValueError(
            f"folder {path} {what}: give a folder with one sub-folder of "
            "images per class, or with train/ and test/ of that kind."
        )
    train_root, eval_root = _layout(root, train_split, eval_split)
    train_names = examples_lib.class_order(_subfolders(train_root))
    if len(train_names) < 2:
        found = f"only class {train_names[0]!r}" if train_names else "no class"
        raise ValueError(
            f"folder {train_root} has {found}: a classifier needs at least "
            "two sub-folders of images, one per class."
        )
    files = {"train": _list_files(train_root, train_names)}
    if eval_root is not None:
        eval_names = _subfolders(eval_root)
        unknown = sorted(set(eval_names) - set(train_names))
        if unknown:
            raise ValueError(
                f"folder {eval_root} has class {unknown[0]!r}, which "
                f"{train_root} does not have: both need the same classes."
            )
        if not eval_names:
            raise ValueError(
                f"folder {eval_root} has no class: give it sub-folders as in "
                f"{train_root}, or remove it to hold out a fifth."
            )
        files["eval"] = _list_files(eval_root, eval_names)
    reading = reading or image_file.Reading()
    found = scan.scan(
        [str(file.absolute()) for part in files.values() for file, _ in part],
        root=str(root.absolute()),
        reading=reading,
        cache=cache,
        progress=progress,
    )
    train = _examples(train_root, files["train"], found, train_names, reading)
    remarks = found.remarks()
    if eval_root is None:
        *parts, more = holdout.hold_out(train, split_seed)
        return *parts, remarks + more
    evaluation = _examples(
        eval_root, files["eval"], found, train_names, reading
    )
    missing = [
        name
        for name, count in zip(
            train_names, evaluation.class_counts(), strict=True
        )
        if not count
    ]
    if missing:
        remarks.append(
            f"{len(missing)} of {len(train_names)} classes are not in "
            f"{eval_root} and will not be evaluated, {missing[0]!r} first"
        )
    return train, evaluation, remarks


def _layout(
    root: pathlib.Path, train_split: str | None, eval_split: str | None
) -> tuple[pathlib.Path, pathlib.Path | None]:
    """Returns the training root, and the evaluation root if there is one."""
    subfolders = _subfolders(root)
    train_split, eval_split = (
        name and name.rstrip("/") for name in (train_split, eval_split)
    )
    usual = {name.lower() for name in subfolders}
    known = {*tasks.TRAIN_NAMES, *tasks.EVAL_NAMES}
    # "train" may also be a class, of vehicles say; as a split it has classes.
    is_split = bool(train_split or eval_split or (usual and usual <= known))
    for name in subfolders:
        if name.lower() in tasks.TRAIN_NAMES and _subfolders(root / name):
            is_split = True
    if not is_split:
        return root, None
    train_name, eval_name = tasks.choose_splits(
        subfolders,
        train_split,
        eval_split,
        of=f"folder {root}",
    )
    return root / train_name, root / eval_name if eval_name else None


def _subfolders(root: pathlib.Path) -> list[str]:
    return sorted(
        entry.name
        for entry in os.scandir(root)
        if entry.is_dir() and not entry.name.startswith(".")
    )


def _list_files(
    root: pathlib.Path, class_names: Sequence[str]
) -> list[tuple[pathlib.Path, str]]:
    """Returns (file, class name), sorted by class, then by path."""
    found = []
    empty = []
    for name in class_names:
        before = len(found)
        if not name.isprintable():
            raise ValueError(
                f"folder {root}: class {name!r} has characters that are not "
                "UTF-8 text: rename it."
            )
        for directory, folders, files in os.walk(root / name, onerror=_raise):
            folders.sort()
            folders[:] = [f for f in folders if not f.startswith(".")]
            found += [
                (pathlib.Path(directory) / file, name)
                for file in sorted(files)
                if listed_files.is_image_name(file)
            ]
        if len(found) == before:
            empty.append(name)
    if empty:
        shown = ", ".join(map(repr, empty[:5]))
        raise ValueError(
            f"folder {root}: {len(empty)} of {len(class_names)} classes have "
            f"no images: {shown}. Add images or remove the folders."
        )
    return found


def _raise(error: OSError) -> None:
    """Makes os.walk stop at a folder that cannot be read."""
    raise error


def _examples(
    root: pathlib.Path,
    files: Sequence[tuple[pathlib.Path, str]],
    found: scan.Scan,
    class_names: Sequence[str],
    reading: image_file.Reading,
) -> examples_lib.Examples:
    label_of = {name: label for label, name in enumerate(class_names)}
    kept = [
        (file, name)
        for file, name in files
        if str(file.absolute()) in found.good
    ]
    empty = sorted({name for _, name in files} - {name for _, name in kept})
    if empty:
        raise ValueError(
            f"folder {root}: no image of class {empty[0]!r} can be used, "
            f"{found.bad[0][0]} ({found.bad[0][1]}) first."
        )
    return examples_lib.Examples(
        names=[file.relative_to(root).as_posix() for file, _ in kept],
        contents=[str(file.absolute()) for file, _ in kept],
        labels=np.array([label_of[name] for _, name in kept], np.int32),
        class_names=tuple(class_names),
        **found.of([str(file.absolute()) for file, _ in kept]),
        apply_exif=reading.apply_exif,
    )
