"""NumPy .npz files that hold images and labels."""

import io
import pathlib
import zipfile

import numpy as np
from PIL import Image

from bit_tf import rows

# Names of images and labels per split, as Keras and MedMNIST write them.
_LAYOUTS = (
    ("x_{}", "y_{}"),
    ("{}_images", "{}_labels"),
    ("images_{}", "labels_{}"),
)
_SPLITS = ("train", "val", "validation", "valid", "test")
_UNSPLIT = (("x", "y"), ("images", "labels"))
_NAMES = "class_names"


def read(path: str) -> tuple[list[rows.Row], tuple[str, ...] | None, bool]:
    """Reads x_train, y_train, x_test, y_test, or x and y alone.

    Images are uint8, (N, H, W), (N, H, W, 1) or (N, H, W, 3). Labels are (N,)
    or (N, 1) whole numbers or numbers, or (N, classes) zeros and ones where an
    image may have several. An array class_names may name the classes.

    Args:
        path: of the file.

    Returns:
        Rows with encoded images; the names of the classes, None if they are
        not there; whether images may have several labels.

    Raises:
        ValueError: it is not such a file.
        OSError: it cannot be read.
    """
    file = pathlib.Path(path).expanduser()
    try:
        # Never what a stranger has pickled.
        stored = np.load(file, allow_pickle=False)
        if not isinstance(stored, np.lib.npyio.NpzFile):
            raise ValueError("it holds one array: several with names are .npz.")
        with stored:
            names = set(stored.files)
            parts = _parts(names)
            if not parts:
                raise ValueError(
                    f"it has {', '.join(sorted(names)[:8]) or 'nothing'}, and "
                    "not x_train and y_train, or x and y."
                )
            class_names = None
            if _NAMES in names:
                class_names = tuple(map(str, stored[_NAMES].tolist()))
            arrays = {
                split: (stored[images], stored[labels])
                for split, images, labels in parts
            }
    except (ValueError, zipfile.BadZipFile, EOFError) as error:
        raise ValueError(f"{path} is not usable: {error}") from error
    found: list[rows.Row] = []
    several = False
    for split, (images, labels) in arrays.items():
        part, is_several = _rows(file.name, split, images, labels, class_names)
        found += part
        several |= is_several
        if is_several and class_names is None:
            class_names = tuple(map(str, range(labels.shape[1])))
    return found, class_names, several


def _parts(names: set[str]) -> list[tuple[str | None, str, str]]:
    """Returns (split, name of images, name of labels) of what is there."""
    for images, labels in _LAYOUTS:
        parts = [
            (split, images.format(split), labels.format(split))
            for split in _SPLITS
            if {images.format(split), labels.format(split)} <= names
        ]
        if parts:
            return parts
    return [(None, *pair) for pair in _UNSPLIT if set(pair) <= names][:1]


def _rows(name, split, images, labels, class_names):
    what = f"{name}, {split or 'images'}"
    if (
        images.dtype != np.uint8
        or images.ndim not in (3, 4)
        or (images.ndim == 4 and images.shape[3] not in (1, 3))
    ):
        raise ValueError(
            f"{what}: images of shape {images.shape} and {images.dtype}: "
            "allowed are (N, H, W), (N, H, W, 1) and (N, H, W, 3), uint8."
        )
    if len(labels) != len(images):
        raise ValueError(
            f"{what}: {len(images)} images and {len(labels)} labels."
        )
    if images.ndim == 4 and images.shape[3] == 1:
        images = images[..., 0]
    several = labels.ndim == 2 and labels.shape[1] > 1
    if several:
        if not np.isin(labels, (0, 1)).all():
            raise ValueError(
                f"{what}: labels of shape {labels.shape} that are not 0 or 1."
            )
        texts = [
            tuple(_named(i, class_names, what) for i in np.flatnonzero(row))
            for row in labels
        ]
    else:
        if labels.dtype.kind not in "iuf" or labels.size != len(labels):
            raise ValueError(
                f"{what}: labels of shape {labels.shape} and {labels.dtype}: "
                "allowed are (N,) numbers, or (N, classes) zeros and ones."
            )
        whole = labels.dtype.kind in "iu"
        texts = [
            (_named(int(v), class_names, what) if whole else repr(float(v)),)
            for v in labels.reshape(-1)
        ]
    found = [
        rows.Row(
            where=f"{what}, image {index}",
            name=f"{split or 'images'}/{index}",
            content=_encoded(image),
            labels=labels,
            split=split,
        )
        for index, (image, labels) in enumerate(zip(images, texts, strict=True))
    ]
    return found, several


def _named(number: int, class_names, what: str) -> str:
    if class_names is None:
        return str(number)
    if not 0 <= number < len(class_names):
        raise ValueError(
            f"{what}: label {number} with {len(class_names)} class names."
        )
    return class_names[number]


def _encoded(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()
