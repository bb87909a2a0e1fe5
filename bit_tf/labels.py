"""The classes of ImageNet, in the order in which the released models have them.

All orders are those of the WordNet ids, without a background class: the 1,000
of ILSVRC-2012, and the 21,843 of BiT-M, which are those of the fall 2011
release and two more (google-research/big_transfer issue 18). Tiny ImageNet has
200 of the 1,000.
"""

import functools
import gzip
import importlib.resources

LABELS = ("ilsvrc2012", "imagenet21k", "tiny_imagenet")
# What the table marks a row with.
_MARKS = {"ilsvrc2012": "s", "imagenet21k": "m"}


@functools.cache
def synsets(labels: str) -> tuple[tuple[str, str], ...]:
    """Returns WordNet id and names of every class.

    Args:
        labels: one of LABELS.

    Returns:
        Pairs such as ("n01440764", "tench, Tinca tinca").

    Raises:
        ValueError: another set.
    """
    if labels not in LABELS:
        raise ValueError(
            f"label set {labels!r}: allowed are {', '.join(LABELS)}."
        )
    assets = importlib.resources.files("bit_tf") / "assets"
    if labels == "tiny_imagenet":
        names = dict(synsets("ilsvrc2012"))
        members = (assets / "tiny_imagenet.txt").read_text().split()
        return tuple((synset, names[synset]) for synset in members)
    packed = (assets / "imagenet_synsets.tsv.gz").read_bytes()
    rows = (
        line.split("\t")
        for line in gzip.decompress(packed).decode("utf-8").splitlines()
    )
    return tuple(
        (synset, names)
        for synset, marks, names in rows
        if _MARKS[labels] in marks
    )


def class_names(labels: str) -> tuple[str, ...]:
    """Returns the names alone, such as "tench, Tinca tinca"."""
    return tuple(names for _, names in synsets(labels))
