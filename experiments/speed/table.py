"""Prints what compare.py measured, a table for each processor.

python experiments/speed/table.py [ROWS.jsonl]

Median ratios to timm as it comes, of time and, in brackets, of peak memory. The
last column is the quotient of bit_tf's and the Keras layers' median times.
"""

import json
import math
import pathlib
import sys

RESULTS = pathlib.Path(__file__).parent.parent / "results" / "speed"
WORK = {"train": "update", "infer": "exported"}
COLUMNS = {
    "timm_channels_last": "timm, channels last",
    "timm_compiled": "timm, compiled",
    "transformers": "transformers",
    "keras_naive": "Keras layers",
}
# Answers are those of the exported form.
OWN = {"train": "bit_tf", "infer": "bit_tf_export"}


def main(path: str | pathlib.Path = RESULTS / "peers.jsonl") -> None:
    rows = list(map(json.loads, pathlib.Path(path).read_text().splitlines()))
    for processor in dict.fromkeys(row["processor"] for row in rows):
        print(f"{processor}\n\n{table(rows, processor)}\n")


def table(rows: list[dict], processor: str) -> str:
    """Returns the rows of a processor as a table of docs/speed.md."""
    found: dict[str, dict] = {}
    for row in rows:
        if row["processor"] == processor:
            found.setdefault(row["work"], {})[row["contender"]] = row
    lines = [
        f"| | {' | '.join(COLUMNS.values())} | bit_tf | "
        "bit_tf to Keras layers |",
        "|" + "---|" * (len(COLUMNS) + 3),
    ]
    for work, contenders in found.items():
        kind, batch, pixels = work.split(":")
        if kind not in WORK:
            continue
        # Those with other logits have no ratio, and no place here.
        ours, keras = contenders[OWN[kind]], contenders["keras_naive"]
        compared = [contenders.get(name, {}) for name in (*COLUMNS, OWN[kind])]
        least = min(row.get("ratio", math.inf) for row in compared)
        cells = [
            _cell(row["ratio"], row["peak_ratio"], bold=row["ratio"] == least)
            if "ratio" in row
            else ""
            for row in compared
        ]
        cells.append(
            _cell(ours["ms"] / keras["ms"], ours["peak_mb"] / keras["peak_mb"])
        )
        lines.append(
            f"| {WORK[kind]}, {batch} of {pixels} pixels | "
            f"{' | '.join(cells)} |"
        )
    return "\n".join(lines)


def _cell(time: float, memory: float, *, bold: bool = False) -> str:
    return f"{f'**{time:.2f}**' if bold else f'{time:.2f}'} ({memory:.2f})"


if __name__ == "__main__":
    main(*sys.argv[1:])
