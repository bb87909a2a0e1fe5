"""Few-shot subsets are those that were written down, whoever draws them."""

import hashlib
import json
import os
import subprocess
import sys

import numpy as np

from bit_tf import subsets

SHOTS = (1, 5, 10, 25, 100)
# SHA-256, shortened, of the draws of two seeds and all shots: a change of
# them changes every result that was published.
GOLDEN = {
    "ten classes in turn": "266c84f22c405c69",
    "in order": "cda835fde2d6011c",
    "long tail": "2067434aeddd202a",
    "two classes": "b9d0e7afdc689b45",
    "a thousand classes": "5223a959d092c3b8",
    "one class": "1c0ba3f20bcfb7a1",
}
# Of the processes that draw: nothing of it may matter.
ENVIRONMENTS = (
    {"PYTHONHASHSEED": "1", "OMP_NUM_THREADS": "1"},
    {"PYTHONHASHSEED": "2", "OMP_NUM_THREADS": "16", "TZ": "Asia/Tokyo"},
    {"PYTHONHASHSEED": "3", "LC_ALL": "C", "PYTHONOPTIMIZE": "1"},
)


def label_sets() -> dict[str, np.ndarray]:
    tail = [100 // (1 + label) + 1 for label in range(20)]
    return {
        "ten classes in turn": np.arange(2_000) % 10,
        "in order": np.repeat(np.arange(37), 110),
        # Some have fewer than is asked for.
        "long tail": np.repeat(np.arange(20), tail)[::-1],
        "two classes": np.arange(300) % 7 % 2,
        "a thousand classes": np.arange(5_000) * 7 % 1_000,
        "one class": np.zeros(150, np.int64),
    }


def draws(seeds: int) -> dict[str, str]:
    """Returns the sum of every draw; "set/shots/seed" -> SHA-256."""
    found = {}
    for name, labels in label_sets().items():
        names = [str(label) for label in range(labels.max() + 1)]
        for shots in SHOTS:
            for seed in range(seeds):
                chosen = subsets.sample(
                    labels,
                    class_names=names,
                    examples_per_class=shots,
                    seed=seed,
                    allow_missing=True,
                )
                found[f"{name}/{shots}/{seed}"] = hashlib.sha256(
                    chosen.astype("<i8").tobytes()
                ).hexdigest()
    return found


def test_a_draw_is_the_same_wherever_it_is_drawn(campaign, count):
    seeds = count(2, 10)
    elsewhere = [
        json.loads(
            subprocess.run(
                [sys.executable, "-m", __name__, str(seeds)],
                env=os.environ | environment,
                check=True,
                capture_output=True,
                text=True,
            ).stdout
        )
        for environment in ENVIRONMENTS
    ]
    here = draws(seeds)
    demanded = "alike under any hash seed, threads, locale; as written down"
    with campaign("R14 few-shot draws", demanded) as row:
        for case, found in here.items():
            row.check(all(other[case] == found for other in elsewhere), case)
        for name, wanted in GOLDEN.items():
            found = "".join(
                here[f"{name}/{shots}/{seed}"]
                for shots in SHOTS
                for seed in range(2)
            )
            found = hashlib.sha256(found.encode()).hexdigest()[:16]
            row.check(found == wanted, f"{name}: {found}")


def test_classes_with_too_few_are_named(campaign):
    labels = label_sets()["long tail"]
    have = np.bincount(labels)
    with campaign("R14 classes with too few", "refused by name") as row:
        for shots in range(2, have.max() + 2):
            try:
                subsets.sample(
                    labels,
                    class_names=[f"class {i}" for i in range(len(have))],
                    examples_per_class=shots,
                    seed=0,
                )
                said = ""
            except ValueError as error:
                said = str(error)
            short = np.flatnonzero(have < shots)
            first = f"class {short[0]} ({have[short[0]]})" if len(short) else ""
            row.check(first in said and bool(said) == bool(first), said)


if __name__ == "__main__":
    print(json.dumps(draws(int(sys.argv[1]))))
