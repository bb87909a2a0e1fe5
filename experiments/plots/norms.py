"""Draws norms.png from results/grid.jsonl, and prints its table.

python experiments/plots/norms.py

The paper's tables 4 and 5, small: rows of experiments/grid.py.
"""

import json
import pathlib

import numpy as np
from matplotlib import figure

from bit_tf import curves

HERE = pathlib.Path(__file__).parent
RESULTS = HERE.parent / "results" / "grid.jsonl"
NETWORKS = [
    (norm, convolution)
    for norm in ("BatchNorm", "GroupNorm")
    for convolution in ("plain", "standardised")
]
# Within which networks are compared: name in a row -> of the table.
SETTING = {
    "model": "Network",
    "crop": "Pixels",
    "batch_size": "Batch",
    "images_seen": "Images seen",
}
# Rows that have changed anything else are of other comparisons.
USUAL = {
    "examples_per_class": 150,
    "base_lr": 0.03,
    "weight_decay": 1e-4,
    "transfer_steps": 500,
}
JUDGED = {
    "upstream_top1": "Upstream",
    "cifar10": "CIFAR-10",
    "grocery": "Grocery Store",
}


def main() -> None:
    rows = [json.loads(line) for line in RESULTS.read_text().splitlines()]
    print(table(rows))
    found = _percents(rows)
    plot = figure.Figure(figsize=(13, 3.8), layout="constrained")
    panels = plot.subplots(1, len(JUDGED))
    for axes, (name, title) in zip(panels, JUDGED.items(), strict=True):
        for setting, networks in enumerate(found.values()):
            for place, network in enumerate(NETWORKS):
                if network in networks:
                    low, median, high = np.percentile(
                        networks[network][name], (0, 50, 100)
                    )
                    axes.bar(
                        setting + (place - 1.5) / 5,
                        median,
                        width=0.19,
                        yerr=[[median - low], [high - median]],
                        color=curves.COLOURS[place],
                        # For the legend, once.
                        label="_" * bool(setting) + " + ".join(network),
                    )
        axes.set_xticks(
            range(len(found)),
            [
                f"{model}\n{crop} pixels\nbatch {batch}\n{seen // 1000}k seen"
                for model, crop, batch, seen in found
            ],
            fontsize=8,
        )
        curves.finish(axes, title=title, below="")
        axes.grid(visible=False)
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
    lines = [
        f"| {' | '.join(SETTING.values())} | Norm | Kernels | "
        f"{' | '.join(JUDGED.values())} |",
        "|" + "---|" * (len(SETTING) + 2 + len(JUDGED)),
    ]
    for setting, networks in _percents(rows).items():
        for network in NETWORKS:
            if network in networks:
                cells = [spread(networks[network][name]) for name in JUDGED]
                model, *numbers = setting
                given = [model, *(f"{number:,}" for number in numbers)]
                lines.append(f"| {' | '.join([*given, *network, *cells])} |")
    return "\n".join(lines)


def _percents(rows: list[dict]) -> dict[tuple, dict]:
    """Returns accuracies by SETTING, then network, then set.

    Of a setting with one network there is nothing to compare.
    """
    found: dict[tuple, dict] = {}
    for row in rows:
        if all(row[name] == value for name, value in USUAL.items()):
            networks = found.setdefault(tuple(row[k] for k in SETTING), {})
            sets = networks.setdefault((row["norm"], row["convolution"]), {})
            for name in JUDGED:
                sets.setdefault(name, []).extend(np.atleast_1d(row[name]) * 100)
    return {
        setting: found[setting]
        for setting in sorted(found)
        if len(found[setting]) > 1
    }


def spread(percents: list[float]) -> str:
    """Returns the median, and the least and the most in brackets."""
    low, median, high = np.percentile(percents, (0, 50, 100))
    if low == high:
        return f"{median:.1f}"
    return f"{median:.1f} ({low:.1f} to {high:.1f})"


if __name__ == "__main__":
    main()
