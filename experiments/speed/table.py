"""Prints what compare.py and input.py measured, tables for each processor.

python experiments/speed/table.py [ROWS.jsonl ...]

Median ratios to timm as it comes, of time and, in brackets, of peak memory. The
last column is the quotient of bit_tf's and the Keras layers' median times. Of
starts a table of their own, with ratios to Keras layers as they come; and of
images one with ratios to the official order of the same work.
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
STARTS = {
    "keras_as_it_comes": "Keras layers, imported as one imports them",
    "keras_alone": "the same without scikit-learn, which Keras imports "
    "where it is",
    "keras_naive": "the same imported as bit_tf's programs do",
    "bit_tf": "bit_tf",
}
INPUT = {
    "official": "official order",
    "torchvision": "torchvision, resized in bytes",
    "bit_tf": "bit_tf",
    "bit_tf, kept": "bit_tf, `--cache_mb`",
    "official, mixup": "official order, mixup",
    "bit_tf, mixup": "bit_tf, mixup",
    "decode(0)": "`decode`, EXIF data not looked for",
}
# Answers are those of the exported form.
OWN = {"train": "bit_tf", "infer": "bit_tf_export"}


def main(*paths: str | pathlib.Path) -> None:
    for path in paths or (RESULTS / "peers.jsonl", RESULTS / "input.jsonl"):
        rows = read(path)
        for processor in dict.fromkeys(row["processor"] for row in rows):
            print(f"{processor}\n")
            if "pipeline" in rows[0]:
                print(f"{images(rows, processor)}\n")
                continue
            print(f"{table(rows, processor)}\n")
            if any(
                work.startswith("start") for work in _by_work(rows, processor)
            ):
                print(f"{starts(rows, processor)}\n")


def read(path: str | pathlib.Path) -> list[dict]:
    """Returns the rows of a file."""
    return list(map(json.loads, pathlib.Path(path).read_text().splitlines()))


def table(rows: list[dict], processor: str) -> str:
    """Returns updates and answers of a processor as docs/speed.md has them.

    Of a contender that was not there, or had other logits, there is nothing.
    """
    lines = [
        f"| | {' | '.join(COLUMNS.values())} | bit_tf | "
        "bit_tf to Keras layers |",
        "|" + "---|" * (len(COLUMNS) + 3),
    ]
    for work, contenders in _by_work(rows, processor).items():
        kind, batch, pixels = work.split(":")
        if kind not in WORK:
            continue
        compared = [contenders.get(name, {}) for name in (*COLUMNS, OWN[kind])]
        least = min(row.get("ratio", math.inf) for row in compared)
        cells = [
            _cell(row["ratio"], row["peak_ratio"], bold=row["ratio"] == least)
            if "ratio" in row
            else ""
            for row in compared
        ]
        *_, keras, ours = compared
        cells.append(
            _cell(ours["ms"] / keras["ms"], ours["peak_mb"] / keras["peak_mb"])
            if keras and ours
            else ""
        )
        lines.append(
            f"| {WORK[kind]}, {batch} of {pixels} pixels | "
            f"{' | '.join(cells)} |"
        )
    return "\n".join(lines)


def starts(rows: list[dict], processor: str) -> str:
    """Returns what starts took on a processor as docs/speed.md has it."""
    lines = ["| | Seconds | Time | Memory |", "|---|---|---|---|"]
    for work, contenders in _by_work(rows, processor).items():
        if not work.startswith("start"):
            continue
        for name in STARTS:
            row = contenders.get(name, {})
            if "ratio" not in row:
                continue
            spread = f"{row['ratio_min']:.2f} to {row['ratio_max']:.2f}"
            lines.append(
                f"| {STARTS[name]} | {row['ms'] / 1e3:.1f} | "
                f"{row['ratio']:.2f} ({spread}) | {row['peak_ratio']:.2f} |"
            )
    return "\n".join(lines)


def images(rows: list[dict], processor: str) -> str:
    """Returns what images took on a processor as docs/speed.md has it."""
    lines = [
        "| | Photos, 512 to 480 | | 32 x 32, 160 to 128 | |",
        "|---|---|---|---|---|",
    ]
    found: dict[str, dict] = {}
    for row in rows:
        if row["processor"] == processor:
            name = _of_input(row["pipeline"])
            found.setdefault(name, {})[row["images"]] = row
    order = [*INPUT.values(), *found]
    for name in sorted(found, key=order.index):
        kinds = found[name]
        cells = [
            f"{row['images_per_second']:,} | {row['ratio']:.2f} "
            f"({row['ratio_min']:.2f} to {row['ratio_max']:.2f})"
            if (row := kinds.get(kind))
            else " | "
            for kind in ("photos", "small")
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _of_input(pipeline: str) -> str:
    *before, last = pipeline.split("|")
    last = f"`{last.split('(')[0]}`"
    return INPUT.get(pipeline) or (f"up to {last}" if before else last)


def _by_work(rows: list[dict], processor: str) -> dict[str, dict]:
    """Returns the rows of a processor by work, then contender."""
    found: dict[str, dict] = {}
    for row in rows:
        if row["processor"] == processor:
            found.setdefault(row["work"], {})[row["contender"]] = row
    return found


def _cell(time: float, memory: float, *, bold: bool = False) -> str:
    return f"{f'**{time:.2f}**' if bold else f'{time:.2f}'} ({memory:.2f})"


if __name__ == "__main__":
    main(*sys.argv[1:])
