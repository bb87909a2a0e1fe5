"""Draws ablation.png from results/ablation.jsonl, and prints its table.

python experiments/plots/ablation.py

The paper's tables 4 and 5, small; see experiments/ablation.py.
"""

import json
import pathlib

import numpy as np
from matplotlib import figure

from bit_tf import curves

HERE = pathlib.Path(__file__).parent
RESULTS = HERE.parent / "results" / "ablation.jsonl"
CELLS = [
    (norm, convolution)
    for norm in ("BatchNorm", "GroupNorm")
    for convolution in ("plain", "standardised")
]


def main() -> None:
    rows = [json.loads(line) for line in RESULTS.read_text().splitlines()]
    batches = sorted({row["batch_size"] for row in rows})
    sets = [name for name, value in rows[0].items() if type(value) is list]
    found = {
        (row["batch_size"], row["norm"], row["convolution"]): row
        for row in rows
    }
    print("| Batch | Norm | Kernels | Upstream |", " | ".join(sets), "|")
    print("|" + "---|" * (4 + len(sets)))
    for batch in batches:
        for cell in CELLS:
            row = found[batch, *cell]
            print(
                f"| {batch} | {cell[0]} | {cell[1]} | "
                f"{100 * row['upstream_top1']:.1f} |",
                " | ".join(_spread(row[name]) for name in sets),
                "|",
            )
    plot = figure.Figure(
        figsize=(3.6 * (1 + len(sets)), 3.4), layout="constrained"
    )
    panels = plot.subplots(1, 1 + len(sets))
    for axes, name in zip(panels, ["upstream_top1", *sets], strict=True):
        for place, cell in enumerate(CELLS):
            values = [
                100 * np.atleast_1d(found[batch, *cell][name])
                for batch in batches
            ]
            medians = [np.median(v) for v in values]
            spans = [
                [m - v.min() for m, v in zip(medians, values, strict=True)],
                [v.max() - m for m, v in zip(medians, values, strict=True)],
            ]
            axes.bar(
                np.arange(len(batches)) + (place - 1.5) / 5,
                medians,
                width=0.19,
                yerr=spans if name != "upstream_top1" else None,
                color=curves.COLOURS[place],
                label=" + ".join(cell),
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
    curves.save(HERE / "ablation.png", plot)


def _spread(values: list[float]) -> str:
    low, median, high = np.percentile(100 * np.array(values), (0, 50, 100))
    return f"{median:.1f} ({low:.1f} to {high:.1f})"


if __name__ == "__main__":
    main()
