"""Writes the class names of ImageNet that the package brings.

python experiments/imagenet_synsets.py OUTPUT.tsv.gz

From the lists in timm (extra `parity`): its imagenet21k_goog_synsets.txt has
the 21,843 classes of BiT-M in their order, imagenet_synsets.txt the 1,000 of
ILSVRC-2012, and imagenet_synset_to_lemma.txt their names in WordNet. Both
orders are that of the WordNet ids, so one sorted list with marks holds both.
"""

import gzip
import pathlib
import sys

import timm

INFO = pathlib.Path(timm.__file__).parent / "data" / "_info"


def lines(name: str) -> list[str]:
    return (INFO / name).read_text(encoding="utf-8").splitlines()


def main() -> None:
    in_21k = lines("imagenet21k_goog_synsets.txt")
    in_1k = lines("imagenet_synsets.txt")
    if in_21k != sorted(in_21k) or in_1k != sorted(in_1k):
        sys.exit("a list is not sorted: one list with marks cannot hold it")
    lemmas = dict(
        line.split("\t", 1) for line in lines("imagenet_synset_to_lemma.txt")
    )
    members = {"s": set(in_1k), "m": set(in_21k)}
    text = ""
    for synset in sorted(members["s"] | members["m"]):
        marks = "".join(m for m in members if synset in members[m])
        text += f"{synset}\t{marks}\t{lemmas[synset]}\n"
    # No time stamp: the same lists give the same file.
    pathlib.Path(sys.argv[1]).write_bytes(
        gzip.compress(text.encode(), 9, mtime=0)
    )


if __name__ == "__main__":
    main()
