"""Draws transfer.png from results/fewshot/*.jsonl: more images upstream.

python experiments/plots/transfer.py

A line per number of examples per class, from no pre-training to all of it.
"""

import pathlib

import fewshot
from matplotlib import figure

from bit_tf import curves

HERE = pathlib.Path(__file__).parent
# Models of the results -> images that they were pre-trained on.
UPSTREAM = {"scratch": 0, "tenth": 3_000, "all": 30_000}


def main() -> None:
    paths = sorted(fewshot.RESULTS.glob("*.jsonl"))
    plot = figure.Figure(figsize=(4.2 * len(paths), 3.8), layout="constrained")
    for axes, path in zip(plot.subplots(1, len(paths)), paths, strict=True):
        found = {
            (group["shots"], group["model"]): group
            for group in fewshot.groups(path)
            if group["method"] == "finetune"
        }
        shots = list(dict.fromkeys(count for count, _ in found))
        shots.sort(key=lambda count: (isinstance(count, str), count))
        for count, colour in zip(shots, curves.COLOURS, strict=False):
            own = [found[count, model] for model in UPSTREAM]
            median, low, high = (
                [100 * group[name] for group in own]
                for name in ("median", "min", "max")
            )
            places = range(len(own))
            axes.plot(
                places, median, marker="o", ms=4, color=colour, label=count
            )
            axes.fill_between(places, low, high, color=colour, alpha=0.15, lw=0)
        axes.set_xticks(
            range(len(UPSTREAM)), [f"{n:,}" for n in UPSTREAM.values()]
        )
        axes.set_xlabel("images upstream")
        axes.set_ylabel("top-1 accuracy, %")
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        axes.set_title(path.stem, fontsize=11)
        axes.spines[["top", "right"]].set_visible(False)
        lines = axes.get_legend_handles_labels()
    plot.legend(
        *lines,
        loc="outside right center",
        fontsize=9,
        frameon=False,
        title="examples\nper class",
    )
    curves.save(HERE / "transfer.png", plot)


if __name__ == "__main__":
    main()
