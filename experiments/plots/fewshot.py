"""Draws fewshot.png from results/fewshot/*.jsonl, and prints its numbers.

python experiments/plots/fewshot.py
"""

import json
import pathlib

from matplotlib import figure

from bit_tf import curves

HERE = pathlib.Path(__file__).parent
RESULTS = HERE.parent / "results" / "fewshot"
BY = ("model", "method", "shots")


def groups(path: pathlib.Path) -> list[dict]:
    """Returns min, median and max of a set's results, without its first line.

    That says what they are about.
    """
    _, *lines = path.read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    rows.sort(key=lambda row: [row[name] for name in BY])
    return curves.summarize(rows, BY)


def main() -> None:
    paths = sorted(RESULTS.glob("*.jsonl"))
    plot = figure.Figure(figsize=(4.2 * len(paths), 3.8), layout="constrained")
    for axes, path in zip(plot.subplots(1, len(paths)), paths, strict=True):
        found = groups(path)
        print(path.stem)
        print(curves.table(found, BY), end="\n\n")
        curves.panel(axes, found, title=path.stem)
    curves.save(HERE / "fewshot.png", plot)


if __name__ == "__main__":
    main()
