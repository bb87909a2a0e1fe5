"""Draws norms.png from results/norms.jsonl, and prints its table.

python experiments/plots/norms.py

The paper's tables 4 and 5, small: rows of experiments/grid.py. Of the rates
that a network was trained with, the best upstream counts.
"""

import json
import pathlib

import numpy as np
from matplotlib import figure

from bit_tf import curves

HERE = pathlib.Path(__file__).parent
RESULTS = HERE.parent / "results" / "norms.jsonl"
NETWORKS = [
    (norm, convolution)
    for norm in ("BatchNorm", "GroupNorm")
    for convolution in ("plain", "standardised")
]


def main() -> None:
    rows = [json.loads(line) for line in RESULTS.read_text().splitlines()]
    batches = sorted({row["batch_size"] for row in rows})
    downstream = [
        name
        for name, value in rows[0].items()
        if type(value) is list and name != "curve"
    ]
    judged = ["upstream_top1", *downstream]
    best = {
        (batch, network): _of_the_best_rate(rows, batch, network)
        for batch in batches
        for network in NETWORKS
    }
    found = {
        (name, *cell): 100 * np.ravel([row[name] for row in own])
        for name in judged
        for cell, own in best.items()
    }
    print(
        "| Batch | Norm | Kernels | Rate | Upstream |",
        " | ".join(downstream),
        "|",
    )
    print("|" + "---|" * (5 + len(downstream)))
    for (batch, network), own in best.items():
        print(
            f"| {batch} | {' | '.join(network)} | {own[0]['base_lr']:g} |",
            " | ".join(spread(found[name, batch, network]) for name in judged),
            "|",
        )
    plot = figure.Figure(figsize=(3.6 * len(judged), 3.4), layout="constrained")
    panels = plot.subplots(1, len(judged))
    for axes, name in zip(panels, judged, strict=True):
        for place, network in enumerate(NETWORKS):
            values = [found[name, batch, network] for batch in batches]
            medians = [np.median(v) for v in values]
            axes.bar(
                np.arange(len(batches)) + (place - 1.5) / 5,
                medians,
                width=0.19,
                yerr=[
                    [m - v.min() for m, v in zip(medians, values, strict=True)],
                    [v.max() - m for m, v in zip(medians, values, strict=True)],
                ],
                color=curves.COLOURS[place],
                label=" + ".join(network),
            )
        axes.set_xticks(
            range(len(batches)), [f"batches of {n}" for n in batches]
        )
        axes.set_title(
            "upstream" if name == "upstream_top1" else name, fontsize=11
        )
        axes.set_ylim(bottom=0)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("top-1 accuracy, %")
    plot.legend(
        *panels[0].get_legend_handles_labels(),
        loc="outside lower center",
        ncols=4,
        fontsize=8,
        frameon=False,
    )
    curves.save(HERE / "norms.png", plot)


def spread(percents: np.ndarray) -> str:
    """Returns the median, and the least and the most in brackets."""
    low, median, high = np.percentile(percents, (0, 50, 100))
    if low == high:
        return f"{median:.1f}"
    return f"{median:.1f} ({low:.1f} to {high:.1f})"


def _of_the_best_rate(rows: list[dict], batch: int, network) -> list[dict]:
    """Returns a network's rows with the rate that did best upstream."""
    names = ("batch_size", "norm", "convolution")
    by_rate: dict[float, list[dict]] = {}
    for row in rows:
        if tuple(row[name] for name in names) == (batch, *network):
            by_rate.setdefault(row["base_lr"], []).append(row)
    return max(
        by_rate.values(),
        key=lambda own: np.median([row["upstream_top1"] for row in own]),
    )


if __name__ == "__main__":
    main()
