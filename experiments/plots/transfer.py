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
            curves.band(axes, range(len(own)), own, color=colour, label=count)
        axes.set_xticks(
            range(len(UPSTREAM)), [f"{n:,}" for n in UPSTREAM.values()]
        )
        curves.finish(
            axes, title=fewshot.NAMES[path.stem], below="images upstream"
        )
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
