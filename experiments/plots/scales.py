"""Draws scales.png from results/grid.jsonl, and prints its table.

python experiments/plots/scales.py

More images upstream, wider networks, other schedules and weight decays: the
paper's figures 5 and 7, small. Rows of experiments/grid.py.
"""

import json
import pathlib

import norms
import numpy as np
from matplotlib import figure

from bit_tf import curves

HERE = pathlib.Path(__file__).parent
CLASSES = 200
ALL = 150
# In every comparison.
FIXED = {
    "norm": "GroupNorm",
    "convolution": "standardised",
    "batch_size": 64,
    "crop": 32,
    "base_lr": 0.03,
    "seed": 0,
    "transfer_steps": 500,
}
# Of which a comparison changes one or two.
USUAL = {
    "model": "R26x0.5",
    "examples_per_class": ALL,
    "images_seen": 300_000,
    "weight_decay": 1e-4,
}


def main() -> None:
    rows = [json.loads(line) for line in norms.RESULTS.read_text().splitlines()]
    print(table(rows))
    rows = _own(rows)
    plot = figure.Figure(figsize=(10, 6.6), layout="constrained")
    (wide, transferred), (long, decayed) = plot.subplots(2, 2)

    widths = _but(rows, "model", "examples_per_class")
    for model in dict.fromkeys(row["model"] for row in widths):
        own = [row for row in widths if row["model"] == model]
        images = [CLASSES * row["examples_per_class"] for row in own]
        _line(wide, images, [row["upstream_top1"] for row in own], model)
        _line(transferred, images, [row["cifar10"] for row in own], model)
    images = [
        CLASSES * n for n in {row["examples_per_class"] for row in widths}
    ]
    for axes in (wide, transferred):
        axes.set_xscale("log")
        axes.set_xticks(images, [f"{n:,}" for n in images])
        axes.minorticks_off()
    _finish(wide, "Images, upstream", "images upstream")
    _finish(transferred, "Images, CIFAR-10 with 10 a class", "images upstream")

    schedules = _but(rows, "images_seen", "examples_per_class")
    for count in (15, ALL):
        own = [row for row in schedules if row["examples_per_class"] == count]
        seen = [row["images_seen"] for row in own]
        _line(
            long,
            seen,
            [row["upstream_top1"] for row in own],
            f"{CLASSES * count:,} images",
        )
    long.set_xscale("log")
    long.set_xticks(seen, [f"{n:,}" for n in seen])
    long.minorticks_off()
    _finish(long, "Length of the schedule, upstream", "images seen")

    for row in _but(rows, "weight_decay"):
        updates, values = zip(*row["curve"], strict=True)
        _line(decayed, updates, values, f"{row['weight_decay']:g}")
    _finish(decayed, "Weight decay, upstream", "updates")
    curves.save(HERE / "scales.png", plot)


def table(rows: list[dict]) -> str:
    """Returns the accuracies as the README has them."""
    lines = [
        "| Network | Images upstream | Images seen | Weight decay | "
        f"{' | '.join(norms.JUDGED.values())} | Minutes |",
        "|" + "---|" * (5 + len(norms.JUDGED)),
    ]
    for row in _own(rows):
        cells = [
            norms.spread(100 * np.atleast_1d(row[name]))
            for name in norms.JUDGED
        ]
        lines.append(
            f"| {row['model']} | {CLASSES * row['examples_per_class']:,} | "
            f"{row['images_seen']:,} | {row['weight_decay']:g} | "
            f"{' | '.join(cells)} | {row['minutes']:.0f} |"
        )
    return "\n".join(lines)


def _own(rows: list[dict]) -> list[dict]:
    """Returns the rows of these comparisons, sorted by what they change."""
    own = [
        row
        for row in rows
        if all(row[name] == value for name, value in FIXED.items())
    ]
    return sorted(own, key=lambda row: [row[name] for name in USUAL])


def _but(rows: list[dict], *changed: str) -> list[dict]:
    """Returns the rows that are as usual in all but what is named."""
    return [
        row
        for row in rows
        if all(row[k] == v for k, v in USUAL.items() if k not in changed)
    ]


def _line(axes, places, values, label: str) -> None:
    groups = [
        {"min": np.min(v), "median": np.median(v), "max": np.max(v)}
        for v in values
    ]
    colour = curves.COLOURS[len(axes.lines)]
    curves.band(axes, places, groups, color=colour, label=label)


def _finish(axes, title: str, below: str) -> None:
    curves.finish(axes, title=title, below=below)
    axes.legend(fontsize=9, frameon=False)


if __name__ == "__main__":
    main()
