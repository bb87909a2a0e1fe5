"""Folders of images: find, check and split them before anything trains."""

import concurrent.futures
import hashlib
import os
import pathlib
from collections.abc import Callable
from collections.abc import Sequence

import numpy as np

from bit_tf import examples as examples_lib
from bit_tf import image_file

TRAIN_FOLDERS = ("train", "training")
EVAL_FOLDERS = (
    "test",
    "testing",
    "val",
    "validation",
    "valid",
    "eval",
    "dev",
)
IGNORED_FILES = ("thumbs.db", "desktop.ini")
EVAL_FRACTION = 0.2


def load(
    path: str,
    *,
    train_split: str | None = None,
    eval_split: str | None = None,
    split_seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[examples_lib.Examples, examples_lib.Examples, list[str]]:
    """Reads PATH/{train,test}/CLASS/* or PATH/CLASS/*.

    Every file is opened and decoded once, so that a broken one is named now
    and not after an hour. Without an evaluation folder, a fifth of every class
    is held out, chosen by `split_seed` and the file's name.

    Args:
        path: the folder.
        train_split: name of the training sub-folder; "train" if None.
        eval_split: name of the evaluation sub-folder; the first of test, val,
            validation, valid if None.
        split_seed: which fifth is held out.
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
    train_names = _subfolders(train_root)
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
    everything = [file for part in files.values() for file, _ in part]
    sizes = _check_images(root, everything, progress)
    train = _examples(train_root, files["train"], sizes, train_names)
    if eval_root is None:
        return _hold_out(train, split_seed)
    evaluation = _examples(eval_root, files["eval"], sizes, train_names)
    remarks = []
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
    for name in (train_split, eval_split):
        if name and name not in subfolders:
            raise ValueError(
                f"folder {root} has no sub-folder {name!r}: it has "
                f"{', '.join(subfolders[:8]) or 'none'}."
            )
    if train_split and train_split == eval_split:
        raise ValueError(
            f"--train_split and --eval_split are both {train_split!r}: "
            "evaluating on the training images says nothing."
        )
    usual = {name.lower(): name for name in reversed(subfolders)}

    def first(names: Sequence[str]) -> str | None:
        found = (usual[name] for name in names if name in usual)
        return next((name for name in found if name != train_split), None)

    train_name = train_split or first(TRAIN_FOLDERS)
    # "train" may also be a class, of vehicles say; as a split it has classes.
    split = bool(train_split) or (
        bool(subfolders)
        and (
            usual.keys() <= {*TRAIN_FOLDERS, *EVAL_FOLDERS}
            or bool(train_name and _subfolders(root / train_name))
        )
    )
    if not split and not eval_split:
        return root, None
    if not train_name:
        raise ValueError(
            f"folder {root} has {', '.join(subfolders[:8])}/ but no train/: "
            "name the training sub-folder with --train_split."
        )
    eval_name = eval_split or first(EVAL_FOLDERS)
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
                if not file.startswith(".")
                and file.lower() not in IGNORED_FILES
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


def _check_images(
    root: pathlib.Path,
    files: Sequence[pathlib.Path],
    progress: Callable[[int, int], None],
) -> dict[pathlib.Path, tuple[int, int]]:
    """Decodes every file once; returns heights and widths."""
    sizes = {}
    broken = []
    with concurrent.futures.ThreadPoolExecutor() as pool:
        results = pool.map(image_file.inspect, files)
        for done, (file, result) in enumerate(
            zip(files, results, strict=True), start=1
        ):
            if isinstance(result, str):
                name = os.fsencode(file.relative_to(root))
                broken.append(f"{name.decode(errors='replace')} ({result})")
            else:
                sizes[file] = result
            progress(done, len(files))
    if broken:
        shown = ", ".join(broken[:3]) + (", ..." if len(broken) > 3 else "")
        raise ValueError(
            f"folder {root}: {len(broken)} of {len(files)} files are not "
            f"images that can be read: {shown}. Allowed are JPEG, PNG, GIF "
            "and BMP: convert or remove them."
        )
    return sizes


def _examples(
    root: pathlib.Path,
    files: Sequence[tuple[pathlib.Path, str]],
    sizes: dict[pathlib.Path, tuple[int, int]],
    class_names: Sequence[str],
) -> examples_lib.Examples:
    label_of = {name: label for label, name in enumerate(class_names)}
    return examples_lib.Examples(
        names=[file.relative_to(root).as_posix() for file, _ in files],
        contents=[str(file.absolute()) for file, _ in files],
        labels=np.array([label_of[name] for _, name in files], np.int32),
        sizes=np.array([sizes[file] for file, _ in files], np.int64),
        class_names=tuple(class_names),
    )


def _hold_out(
    everything: examples_lib.Examples, split_seed: int
) -> tuple[examples_lib.Examples, examples_lib.Examples, list[str]]:
    """Splits off a fifth of every class, at least one image if it has two.

    Images are ranked by a hash of their names: adding some moves few others.
    """
    held = []
    single = []
    for label, name in enumerate(everything.class_names):
        members = np.flatnonzero(everything.labels == label)
        ranked = sorted(
            members,
            key=lambda index: hashlib.sha256(
                f"{split_seed}/{everything.names[index]}".encode()
            ).digest(),
        )
        if len(members) == 1:
            single.append(name)
            continue
        held += ranked[: max(1, round(EVAL_FRACTION * len(members)))]
    if not held:
        raise ValueError(
            "every class has one image, so that none is left to evaluate on: "
            "add images, or give train/ and test/ folders."
        )
    is_held = np.zeros(len(everything), bool)
    is_held[held] = True
    remarks = [
        f"no evaluation folder: {len(held)} of {len(everything)} images are "
        f"held out, a fifth of every class (--split_seed={split_seed})"
    ]
    if single:
        remarks.append(
            f"{len(single)} classes have one image, which trains and is not "
            f"evaluated, {single[0]!r} first"
        )
    return (
        everything.subset(np.flatnonzero(~is_held)),
        everything.subset(np.flatnonzero(is_held)),
        remarks,
    )
