r"""How much memory an update takes, and what follows for a batch of 512.

python experiments/speed/memory.py > experiments/results/speed/memory.jsonl
python experiments/speed/memory.py \
    --table=experiments/results/speed/memory.jsonl

The first measures small batches at 480 pixels, each in a process of its own;
the second extends them: an update of b images at once takes A + b * B bytes.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

CROP = 480
BATCH = 512
# Network -> batches that two cores and 24 GB can compute.
CASES = {"R50x1": (1, 4), "R101x3": (1, 2), "R152x4": (1,)}
DEVICES_GB = (16, 24, 40, 80)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--table")
    parser.add_argument("--models", default=",".join(CASES))
    given = parser.parse_args()
    if given.table:
        lines = pathlib.Path(given.table).read_text().splitlines()
        print(table([json.loads(line) for line in lines]))
        return
    for model in given.models.split(","):
        for remat in (False, True):
            for batch_size in CASES[model]:
                row = measured(model, batch_size, remat)
                print(json.dumps(row), flush=True)


def measured(model: str, batch_size: int, remat: bool) -> dict:
    with tempfile.TemporaryDirectory() as directory:
        file = pathlib.Path(directory, "row.json")
        done = subprocess.run(
            [
                *(sys.executable, "-m", "bit_tf.benchmark", "--work=train"),
                *(f"--model={model}", f"--batch_size={batch_size}"),
                *(f"--crop={CROP}", "--calls=2", f"--json={file}"),
                "--remat" if remat else "--noremat",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        row = {"model": model, "batch_size": batch_size, "remat": remat}
        if done.returncode:
            return {**row, "failed": done.returncode}
        found = json.loads(file.read_text())
        return {**row, "peak_memory_mb": round(found["peak_memory_mb"])}


def table(rows: list[dict]) -> str:
    """Returns Markdown: of every network, what fits on which device."""
    lines = [
        "| Network | `--remat` | GB without images | GB an image | "
        + " | ".join(f"{gb} GB" for gb in DEVICES_GB)
        + " |",
        "|" + " --- |" * (4 + len(DEVICES_GB)),
    ]
    for model in dict.fromkeys(row["model"] for row in rows):
        for remat in (False, True):
            found = {
                row["batch_size"]: row["peak_memory_mb"] / 1e3
                for row in rows
                if (row["model"], row["remat"]) == (model, remat)
                and "peak_memory_mb" in row
            }
            if len(found) == 1:
                ((_, all_of_it),) = found.items()
                switch = "yes" if remat else ""
                lines.append(
                    f"| {model} | {switch} | {all_of_it:.1f} with one image |"
                    + " |" * (1 + len(DEVICES_GB))
                )
                continue
            if not found:
                continue
            (few, less), *_, (many, more) = sorted(found.items())
            each = (more - less) / (many - few)
            fixed = less - few * each
            cells = [
                model,
                "yes" if remat else "",
                f"{fixed:.1f}",
                f"{each:.2f}",
                *(_fitting(gb, fixed, each) for gb in DEVICES_GB),
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _fitting(gb: float, fixed: float, each: float) -> str:
    """Returns how many images of BATCH are computed at once, in how many parts.

    As `--accumulate_steps` does, which divides the batch.
    """
    sizes = [n for n in range(1, BATCH + 1) if BATCH % n == 0]
    fitting = [n for n in sizes if fixed + n * each <= gb]
    if not fitting:
        return "no"
    return f"{fitting[-1]} in {BATCH // fitting[-1]}"


if __name__ == "__main__":
    main()
