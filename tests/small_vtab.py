"""bit_tf.vtab, knowing of two small tasks instead of 19.

python -m tests.small_vtab [flags of bit_tf.vtab]; with $SMALL_VTAB_GONE the
first cannot be loaded, with $SMALL_VTAB_DRAW the search draws what fits.
"""

import dataclasses
import os

from bit_tf import catalogue
from bit_tf import program
from bit_tf import search

KITTI = dataclasses.replace(
    catalogue.find("vtab:kitti_distance"),
    location="tiny_kitti:3.*",
    train_split="train[:8]+train[8:]",
    eval_split="test",
)
SPRITES = dataclasses.replace(
    catalogue.find("vtab:dsprites_location"),
    location="tiny_sprites:2.*",
    train_split="train[:16]+train[20:24]",
    eval_split="train[24:]",
)


def draw(index, max_steps=None):
    return {
        "base_lr": 0.01 * (index + 1),
        "total_steps": max_steps,
        "crop": 32,
    }


if __name__ == "__main__":
    from bit_tf import vtab

    first = KITTI
    if "SMALL_VTAB_GONE" in os.environ:
        first = dataclasses.replace(KITTI, name="gone", location="no_such_set")
    if "SMALL_VTAB_DRAW" in os.environ:
        search.draw = draw
    catalogue.VTAB = (first, SPRITES)
    catalogue.KINDS["vtab"] = {entry.name: entry for entry in catalogue.VTAB}
    program.run(vtab.main)
