"""Task: which images, under which names, in which splits."""

import dataclasses

BUILTIN_SETS = ("patches",)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """A labelled image set with a training and an evaluation split.

    Args:
        kind: "folder", "builtin" or "tfds".
        location: a path, the name of a shipped set, or a TFDS name with an
            optional config and version ("oxford_flowers102:2.*").
        train_split: which part trains; a TFDS split string, or the name of a
            sub-folder; None for the usual one.
        eval_split: which part evaluates; the same.
    """

    kind: str
    location: str
    train_split: str | None = None
    eval_split: str | None = None

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
) -> Task:
    """Reads the text of --dataset.

    Args:
        dataset: "folder:PATH", "builtin:patches", or a TFDS name.

    Raises:
        ValueError: empty, an unknown kind, or an unknown shipped set.
    """
    kind, colon, location = dataset.partition(":")
    if kind == "folder" and location:
        return Task(
            kind=kind,
            location=location,
            train_split=train_split,
            eval_split=eval_split,
        )
    if kind == "builtin" and location in BUILTIN_SETS:
        if train_split or eval_split:
            raise ValueError(
                f"{dataset} has fixed splits: drop --train_split and "
                "--eval_split."
            )
        return Task(kind=kind, location=location)
    if kind == "builtin":
        raise ValueError(
            f"unknown shipped set {dataset!r}: allowed is "
            + ", ".join(f"builtin:{name}" for name in BUILTIN_SETS)
            + "."
        )
    # A TFDS name: letters, digits and underscores, maybe /config and :version.
    base = kind.split("/")[0]
    version_like = not colon or location[:1].isdigit()
    if base.replace("_", "").isalnum() and version_like:
        return Task(
            kind="tfds",
            location=dataset,
            train_split=train_split or "train",
            eval_split=eval_split,
        )
    raise ValueError(
        f"dataset {dataset!r} is not understood: allowed are folder:PATH, "
        "builtin:patches, or a TensorFlow Datasets name such as cifar10 or "
        "oxford_flowers102:2.*"
    )
