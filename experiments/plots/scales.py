"""Draws scales.png from results/scales.jsonl, and prints its table.

python experiments/plots/scales.py

More images upstream, a wider network, longer schedules and other weight decays:
the paper's section 4, small. Rows of experiments/grid.py.
"""

import json
import pathlib

import norms
import numpy as np
from matplotlib import figure

from bit_tf import curves

HERE = pathlib.Path(__file__).parent
RESULTS = HERE.parent / "results" / "scales.jsonl"
CLASSES = 200
ALL = 150
# Of which a comparison changes one or two.
USUAL = {
    "model": "R26x0.5",
    "images_seen": 300_000,
    "weight_decay": 1e-4,
    "examples_per_class": ALL,
}


def main() -> None:
    rows = [json.loads(line) for line in RESULTS.read_text().splitlines()]
    rows.sort(key=lambda row: [row[name] for name in USUAL])
    _print_table(rows)
    plot = figure.Figure(figsize=(10, 6.6), layout="constrained")
    (wide, transferred), (long, decayed) = plot.subplots(2, 2)

    widths = _but(rows, "model", "examples_per_class")
    for model in dict.fromkeys(row["model"] for row in widths):
        own = [row for row in widths if row["model"] == model]
        images = [CLASSES * row["examples_per_class"] for row in own]
        _line(wide, images, [row["upstream_top1"] for row in own], model)
        _line(transferred, images, [row["cifar10"] for row in own], model)
    _finish(wide, "Width, upstream", "images upstream", "log")
    _finish(
        transferred, "Width, CIFAR-10 with 10 a class", "images upstream", "log"
    )

    schedules = _but(rows, "images_seen", "examples_per_class")
    for count in (15, ALL):
        own = [row for row in schedules if row["examples_per_class"] == count]
        _line(
            long,
            [row["images_seen"] for row in own],
            [row["upstream_top1"] for row in own],
            f"{CLASSES * count:,} images",
        )
    _finish(long, "Length of the schedule, upstream", "images seen", "log")

    for row in _but(rows, "weight_decay"):
        updates, values = zip(*row["curve"], strict=True)
        _line(decayed, updates, values, f"{row['weight_decay']:g}")
    _finish(decayed, "Weight decay, upstream", "updates", "linear")
    curves.save(HERE / "scales.png", plot)


def _print_table(rows: list[dict]) -> None:
    downstream = [
        name
        for name, value in rows[0].items()
        if type(value) is list and name != "curve"
    ]
    print(
        "| Network | Images upstream | Images seen | Weight decay | Upstream |",
        " | ".join(downstream),
        "| Minutes |",
    )
    print("|" + "---|" * (6 + len(downstream)))
    for row in rows:
        print(
            f"| {row['model']} | {CLASSES * row['examples_per_class']:,} | "
            f"{row['images_seen']:,} | {row['weight_decay']:g} | "
            f"{100 * row['upstream_top1']:.1f} |",
            " | ".join(
                norms.spread(100 * np.array(row[name])) for name in downstream
            ),
            f"| {row['minutes']:.0f} |",
        )


def _but(rows: list[dict], *changed: str) -> list[dict]:
    """Returns the rows that are as usual in all but what is named."""
    return [
        row
        for row in rows
        if all(row[k] == v for k, v in USUAL.items() if k not in changed)
    ]


def _line(axes, places, values, label: str) -> None:
    """Draws medians, and in lighter colour from the least to the most."""
    rows = [100 * np.atleast_1d(value) for value in values]
    colour = curves.COLOURS[len(axes.lines)]
    axes.plot(
        places,
        [np.median(row) for row in rows],
        marker="o",
        ms=4,
        color=colour,
        label=label,
    )
    axes.fill_between(
        places,
        [row.min() for row in rows],
        [row.max() for row in rows],
        color=colour,
        alpha=0.15,
        lw=0,
    )


def _finish(axes, title: str, below: str, scale: str) -> None:
    axes.set_title(title, fontsize=11)
    axes.set_xlabel(below)
    axes.set_xscale(scale)
    axes.set_ylabel("top-1 accuracy, %")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=9, frameon=False)


if __name__ == "__main__":
    main()
