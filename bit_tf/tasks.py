"""Task: which images, under which names, in which splits; what a label is."""

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np

from bit_tf import labelling

BUILTIN_SETS = ("patches",)
# What stands before the colon of --dataset, and what it takes.
KINDS = {
    "folder": "PATH of train/ and test/ with a sub-folder per class",
    "csv": "FILE with columns path, label and maybe split",
    "jsonl": "FILE with objects of path, label and maybe split",
    "npz": "FILE with x_train, y_train, x_test, y_test",
    "parquet": "FILE or folder with columns image and label",
    "tar": "FILE, folder or pattern of webdataset shards",
    "tfds": "NAME of a TensorFlow data set, or the path of a prepared one",
    "builtin": "patches",
}
# Of sub-folders, of files and of the split that a row names; in this order.
TRAIN_NAMES = ("train", "training")
EVAL_NAMES = (
    "test",
    "testing",
    "val",
    "validation",
    "valid",
    "eval",
    "dev",
)


@dataclasses.dataclass(frozen=True)
class Target:
    """What the label of an image is.

    Args:
        kind: "class", "number", or "bins": a number, of which the class is
            the interval between two edges.
        edges: of "bins", rising.
    """

    kind: str = "class"
    edges: tuple[float, ...] = ()

    @property
    def is_number(self) -> bool:
        """Whether labels are given as numbers."""
        return self.kind != "class"

    def apply(
        self, values: np.ndarray, name: str
    ) -> tuple[np.ndarray, tuple[str, ...]]:
        """Returns the labels of (N,) numbers, and the names of the classes.

        A number that equals an edge belongs to the interval above it.

        Args:
            values: (N,) float32.
            name: of what the numbers count; the one output's name.
        """
        if self.kind == "number":
            return values, (name,)
        labels = np.digitize(values, np.array(self.edges, np.float32))
        texts = [f"{edge:g}" for edge in self.edges]
        between = [
            f"{low} to {high}" for low, high in itertools.pairwise(texts)
        ]
        names = (f"below {texts[0]}", *between, f"{texts[-1]} and more")
        return labels.astype(np.int32), names


def parse_target(text: str) -> Target:
    """Reads the text of --target: class, number, or bins:8,20.

    Raises:
        ValueError: it is none of them, or the edges do not rise.
    """
    kind, _, rest = text.partition(":")
    if kind in ("class", "number") and not rest:
        return Target(kind)
    if kind == "bins":
        try:
            edges = tuple(float(word) for word in rest.split(","))
        except ValueError:
            edges = ()
        # Also false for what is not a number.
        with_ends = (-np.inf, *edges, np.inf)
        if edges and all(a < b for a, b in itertools.pairwise(with_ends)):
            return Target(kind, edges)
    raise ValueError(
        f"target {text!r} is not understood: allowed are class, number, and "
        "bins:EDGES with rising numbers, such as bins:8,20"
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """A labelled image set with a training and an evaluation split.

    Args:
        kind: one of KINDS.
        location: a path, the name of a shipped set, or a TFDS name with an
            optional config and version ("oxford_flowers102:2.*").
        train_split: which part trains; a TFDS split string, or the name of a
            sub-folder or split; None for the usual one.
        eval_split: which part evaluates; the same.
        target: what a label is.
        rule: how a label comes from stored features; None for the set's own.
        random_flip: False where left and right matter.
        random_crop: False where the place in the picture matters.
        pixel_scale: by which stored pixels are multiplied.
    """

    kind: str
    location: str
    train_split: str | None = None
    eval_split: str | None = None
    target: Target = Target()
    rule: labelling.Rule | None = None
    random_flip: bool = True
    random_crop: bool = True
    pixel_scale: int = 1

    @property
    def name(self) -> str:
        if self.kind == "tfds":
            return self.location
        return f"{self.kind}:{self.location}"


def parse(
    dataset: str,
    *,
    train_split: str | None = None,
    eval_split: str | None = None,
    target: str = "class",
) -> Task:
    """Reads the text of --dataset.

    Args:
        dataset: "KIND:LOCATION", see KINDS, or a TFDS name.
        train_split: see `Task`.
        eval_split: see `Task`.
        target: see `parse_target`.

    Raises:
        ValueError: empty, an unknown kind, or an unknown shipped set.
    """
    parsed = parse_target(target)
    kind, colon, location = dataset.partition(":")
    if kind == "builtin" and location not in BUILTIN_SETS:
        raise ValueError(
            f"unknown shipped set {dataset!r}: allowed is "
            + ", ".join(f"builtin:{name}" for name in BUILTIN_SETS)
            + "."
        )
    if kind == "builtin" and (train_split or eval_split):
        raise ValueError(
            f"{dataset} has fixed splits: drop --train_split and --eval_split."
        )
    # A TFDS name: letters, digits and underscores, maybe /config and :version.
    base = kind.split("/")[0]
    version_like = not colon or location[:1].isdigit()
    if kind in KINDS and location:
        found = kind
    elif base.replace("_", "").isalnum() and version_like:
        found, location = "tfds", dataset
    else:
        raise ValueError(
            f"dataset {dataset!r} is not understood: allowed are "
            + ", ".join(
                f"{k}:{what.split()[0].rstrip(',')}"
                for k, what in KINDS.items()
            )
            + ", or a TensorFlow Datasets name such as cifar10 or "
            "oxford_flowers102:2.*"
        )
    if parsed.is_number and found not in ("csv", "jsonl", "npz", "parquet"):
        raise ValueError(
            f"--target={target} is for sets that give numbers: csv:, jsonl:, "
            "npz: and parquet:."
        )
    if found == "tfds":
        train_split = train_split or "train"
    return Task(
        kind=found,
        location=location,
        train_split=train_split,
        eval_split=eval_split,
        target=parsed,
    )


def choose_splits(
    names: Sequence[str],
    train_split: str | None,
    eval_split: str | None,
    *,
    of: str,
) -> tuple[str, str | None]:
    """Returns which split trains, and which evaluates if there is one.

    Args:
        names: of the splits that are there.
        train_split: the one that is wanted; None for the usual.
        eval_split: the same.
        of: the set, for messages.

    Raises:
        ValueError: one is not there, or both are the same.
    """
    for name in (train_split, eval_split):
        if name and name not in names:
            raise ValueError(
                f"{of} has no split {name!r}: it has {', '.join(names[:8])}."
            )
    if train_split and train_split == eval_split:
        raise ValueError(
            f"--train_split and --eval_split are both {train_split!r}: "
            "evaluating on the training images says nothing."
        )
    usual = {name.lower(): name for name in reversed(names)}

    def first(candidates: Sequence[str]) -> str | None:
        found = (usual[name] for name in candidates if name in usual)
        return next((n for n in found if n != train_split), None)

    train_name = train_split or first(TRAIN_NAMES)
    if not train_name:
        raise ValueError(
            f"{of} has {', '.join(names[:8])} but no train: say which one to "
            "train on with --train_split."
        )
    eval_name = eval_split or first(EVAL_NAMES)
    if eval_name == train_name:
        raise ValueError(
            f"{of}: both splits are {train_name!r}: evaluating on the training "
            "images says nothing. Give --train_split too."
        )
    return train_name, eval_name
