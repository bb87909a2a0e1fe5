"""Draws fewshot.png from results/fewshot/*.jsonl, and prints its table.

python experiments/plots/fewshot.py

Fine-tuning from no pre-training, from a tenth of it and from all; and what
linear probes and neighbours make of the features of all.
"""

import json
import pathlib

from matplotlib import figure

from bit_tf import curves

HERE = pathlib.Path(__file__).parent
RESULTS = HERE.parent / "results" / "fewshot"
NAMES = {
    "cifar10": "CIFAR-10",
    "grocery": "Grocery Store",
    "sign_digits": "Digits",
}
BY = ("model", "method", "shots")
SHOWN = [
    ("scratch", "finetune"),
    ("tenth", "finetune"),
    ("all", "finetune"),
    ("all", "linear"),
    ("all", "knn"),
]


def groups(path: pathlib.Path) -> list[dict]:
    """Returns min, median and max of a set's results, without its first line.

    That says what they are about.
    """
    _, *lines = path.read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    rows.sort(key=lambda row: (isinstance(row["shots"], str), row["shots"]))
    found = curves.summarize(rows, BY)
    return sorted(
        (g for g in found if (g["model"], g["method"]) in SHOWN),
        key=lambda group: SHOWN.index((group["model"], group["method"])),
    )


def table_rows(path: pathlib.Path) -> list[str]:
    """Returns a set's rows of the README's table.

    Medians in percent, and in brackets the least and the most.
    """
    found = groups(path)
    cells = {
        (group["shots"], group["model"], group["method"]): (
            f"{100 * group['median']:.1f} "
            f"({100 * group['min']:.1f} to {100 * group['max']:.1f})"
        )
        for group in found
    }
    rows = []
    for shots in dict.fromkeys(group["shots"] for group in found):
        row = [cells.get((shots, *shown), "") for shown in SHOWN]
        rows.append(f"| {NAMES[path.stem]}, {shots} | {' | '.join(row)} |")
    return rows


def main() -> None:
    paths = sorted(RESULTS.glob("*.jsonl"))
    plot = figure.Figure(figsize=(4.2 * len(paths), 3.8), layout="constrained")
    print("| | " + " | ".join(", ".join(shown) for shown in SHOWN) + " |")
    print("|---" * (1 + len(SHOWN)) + "|")
    for axes, path in zip(plot.subplots(1, len(paths)), paths, strict=True):
        print(*table_rows(path), sep="\n")
        curves.panel(axes, groups(path), title=NAMES[path.stem])
        lines = axes.get_legend_handles_labels()
        axes.get_legend().remove()
    plot.legend(
        *lines, loc="outside lower center", ncols=5, fontsize=9, frameon=False
    )
    curves.save(HERE / "fewshot.png", plot)


if __name__ == "__main__":
    main()
