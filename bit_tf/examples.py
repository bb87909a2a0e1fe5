"""Examples: a labelled image set with random access, still encoded."""

import dataclasses
import hashlib
from collections.abc import Iterable
from collections.abc import Sequence
from typing import Protocol

import numpy as np


class Images(Protocol):
    """What all labelled image sets can tell, wherever the images are."""

    class_names: tuple[str, ...]
    is_multi_label: bool

    def __len__(self) -> int: ...

    def typical_size(self) -> tuple[int, int]: ...

    def class_counts(self) -> np.ndarray | None: ...

    def fingerprint(self) -> str: ...


def joined(first: "Examples", second: "Examples") -> "Examples":
    """Returns the examples of two parts of one set.

    Raises:
        ValueError: they cannot be joined.
    """
    if not (isinstance(first, Examples) and isinstance(second, Examples)):
        raise ValueError(
            "parts that are read from their files cannot be joined: choose one "
            "with --part, or name a split that holds both."
        )

    def both(name):
        values = [getattr(part, name) for part in (first, second)]
        if all(value is None for value in values):
            return None
        return np.concatenate(values)

    if first.is_multi_label:
        most = max(part.labels.shape[1] for part in (first, second))
        first, second = (
            dataclasses.replace(
                part,
                labels=np.pad(
                    part.labels,
                    ((0, 0), (0, most - part.labels.shape[1])),
                    constant_values=-1,
                ),
            )
            for part in (first, second)
        )
    return dataclasses.replace(
        first,
        names=[*first.names, *second.names],
        contents=[*first.contents, *second.contents],
        labels=both("labels"),
        sizes=both("sizes"),
        converted=both("converted"),
    )


def left_out(images: Images) -> list[dict]:
    """Returns what could not be used, for JSON: "file" and "reason"."""
    return [
        {"file": name, "reason": reason}
        for name, reason in getattr(images, "left_out", ())
    ]


def class_order(names: Iterable[str]) -> tuple[str, ...]:
    """Returns the different names in the order in which they are numbered.

    By number where all are whole numbers: 2 before 10. Otherwise by letters.
    """
    different = set(names)
    if all(name.isdecimal() for name in different):
        return tuple(sorted(different, key=lambda name: (int(name), name)))
    return tuple(sorted(different))


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Examples:
    """N labelled images in a fixed order.

    Args:
        names: N texts that identify the images, e.g. "cats/001.jpg".
        contents: N file paths (str) or N encoded images (bytes).
        labels: (N,) integers in [0, classes); or (N, most labels of an image),
            filled up with -1, where images may have several; or (N,) float32,
            where the label is a number.
        sizes: (N, 2) heights and widths, pixels.
        class_names: one per class; of numbers, what they count.
        converted: (N,) booleans: which files TensorFlow would not decode
            right, see `image_file`; None for none of them.
        apply_exif: whether images are turned as their EXIF data says.
        left_out: (name, reason) of images that could not be used.
    """

    names: Sequence[str]
    contents: Sequence[str] | Sequence[bytes]
    labels: np.ndarray
    sizes: np.ndarray
    class_names: tuple[str, ...]
    converted: np.ndarray | None = None
    apply_exif: bool = True
    left_out: tuple[tuple[str, str], ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def in_memory(self) -> bool:
        """Whether `contents` are the images, not their paths."""
        return len(self) > 0 and isinstance(self.contents[0], bytes)

    @property
    def is_multi_label(self) -> bool:
        """Whether an image may have several labels."""
        return self.labels.ndim > 1

    @property
    def is_number(self) -> bool:
        """Whether labels are numbers, not classes."""
        return self.labels.dtype.kind == "f"

    def subset(self, indices: np.ndarray) -> "Examples":
        """Returns the examples at `indices`, in that order."""
        return dataclasses.replace(
            self,
            names=[self.names[i] for i in indices],
            contents=[self.contents[i] for i in indices],
            labels=self.labels[indices],
            sizes=self.sizes[indices],
            converted=None
            if self.converted is None
            else self.converted[indices],
        )

    def typical_size(self) -> tuple[int, int]:
        """Returns (height, width) of the image with the median area."""
        areas = self.sizes[:, 0] * self.sizes[:, 1]
        middle = np.argsort(areas, kind="stable")[len(areas) // 2]
        return int(self.sizes[middle, 0]), int(self.sizes[middle, 1])

    def class_counts(self) -> np.ndarray | None:
        """Returns (classes,) example counts; None if there are no classes."""
        if self.is_number:
            return None
        labels = self.labels[self.labels >= 0]
        return np.bincount(labels, minlength=len(self.class_names))

    def fingerprint(self) -> str:
        """Returns a hash of names, labels and classes, to know them again."""
        digest = hashlib.sha256()
        for name in self.class_names:
            digest.update(name.encode() + b"\0")
        for name, label in zip(self.names, self.labels, strict=True):
            text = " ".join(map(str, np.atleast_1d(label)))
            digest.update(f"{name}\0{text}\n".encode())
        return digest.hexdigest()[:16]
