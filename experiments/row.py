"""Prints a line of JSON about a run: what it was given, and what it got.

python experiments/row.py WORKDIR >> experiments/results/upstream.jsonl
"""

import json
import pathlib
import sys

from bit_tf import workdir as workdir_lib

GIVEN = (
    "model",
    "init_from",
    "total_steps",
    "batch_size",
    "base_lr",
    "weight_decay",
    "crop",
    "min_crop_area",
    "seed",
)
GOT = ("examples", "top1", "top1_low", "top1_high", "top5", "loss")


def row(path: str) -> dict:
    """Returns the line of a run that has ended."""
    workdir = workdir_lib.Workdir(path)
    recipe = workdir.read_recipe()
    found = json.loads(workdir.evaluation.read_text())
    seconds, before, curve = 0.0, 0, []
    for entry in workdir_lib.read_metrics(workdir.path):
        if "top1" in entry:
            curve.append([entry["step"], entry["top1"]])
        else:
            images = (entry["step"] - before) * recipe["batch_size"]
            seconds += images / entry["images_per_second"]
            before = entry["step"]
    return {
        "run": workdir.path.name,
        "dataset": pathlib.Path(recipe["data"]["dataset"]).name,
        "train_examples": recipe["data"]["train_examples"],
        **{name: recipe.get(name) for name in GIVEN},
        **{name: found[name] for name in GOT},
        # Of the updates alone, on the machine that the table names.
        "training_minutes": round(seconds / 60, 1),
        "curve": curve,
    }


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        print(json.dumps(row(argument)))
