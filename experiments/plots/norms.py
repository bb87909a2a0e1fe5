"""Draws norms.png from results/norms.jsonl, and prints its table.

python experiments/plots/norms.py

The paper's tables 4 and 5, small: rows of experiments/grid.py.
"""

import itertools
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
# The same for all; other rates were tried with one of them.
BASE_LR = 0.03
JUDGED = {
    "upstream_top1": "Upstream",
    "cifar10": "CIFAR-10",
    "grocery": "Grocery Store",
}


def main() -> None:
    rows = [json.loads(line) for line in RESULTS.read_text().splitlines()]
    print(table(rows))
    batches, found = _percents(rows)
    plot = figure.Figure(figsize=(3.6 * len(JUDGED), 3.4), layout="constrained")
    panels = plot.subplots(1, len(JUDGED))
    for axes, name in zip(panels, JUDGED, strict=True):
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
        axes.set_title(JUDGED[name], fontsize=11)
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


def table(rows: list[dict]) -> str:
    """Returns the accuracies as the README has them."""
    batches, found = _percents(rows)
    lines = [
        f"| Batch | Norm | Kernels | {' | '.join(JUDGED.values())} |",
        "|" + "---|" * (3 + len(JUDGED)),
    ]
    for batch, network in itertools.product(batches, NETWORKS):
        cells = [spread(found[name, batch, network]) for name in JUDGED]
        lines.append(f"| {batch} | {' | '.join([*network, *cells])} |")
    return "\n".join(lines)


def _percents(rows: list[dict]) -> tuple[list[int], dict]:
    """Returns the batches, and accuracies by (set, batch, network)."""
    found: dict[tuple, list[float]] = {}
    for row in rows:
        if row["base_lr"] == BASE_LR:
            network = row["norm"], row["convolution"]
            for name in JUDGED:
                found.setdefault((name, row["batch_size"], network), []).extend(
                    100 * np.atleast_1d(row[name])
                )
    return (
        sorted({batch for _, batch, _ in found}),
        {cell: np.array(values) for cell, values in found.items()},
    )


def spread(percents: np.ndarray) -> str:
    """Returns the median, and the least and the most in brackets."""
    low, median, high = np.percentile(percents, (0, 50, 100))
    if low == high:
        return f"{median:.1f}"
    return f"{median:.1f} ({low:.1f} to {high:.1f})"


if __name__ == "__main__":
    main()
