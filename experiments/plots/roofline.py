r"""Draws roofline.png: how close each kind of work comes to what the cores can.

python experiments/plots/roofline.py --measure   # writes the rows first

Reads results/speed/roofline.jsonl. A point is a measurement of
`bit_tf.benchmark`; its abscissa is counted, not measured: two FLOP for each
multiplication of the convolutions, over the bytes that have to be moved if
every weight and every activation between two convolutions is read and written
once. The slanted roof is the rate at which NumPy copies memory.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np
from matplotlib import figure

from bit_tf import architecture
from bit_tf import curves
from bit_tf import layout

HERE = pathlib.Path(__file__).parent
ROWS = HERE.parent / "results" / "speed" / "roofline.jsonl"
CLASSES = 1000
# Network, work, batch, side.
CASES = (
    ("R26x0.5", "train", 32, 64),
    ("R50x1", "train", 8, 128),
    ("R50x1", "train", 4, 480),
    ("R50x1", "inference", 8, 224),
    ("R50x1", "export", 1, 224),
    ("R50x1", "export", 8, 224),
    ("R50x1", "export", 32, 224),
)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--measure", action="store_true")
    given = parser.parse_args()
    if given.measure:
        rows = [{"memory_gb_s": copied()}, *(measured(*case) for case in CASES)]
        ROWS.write_text("".join(json.dumps(row) + "\n" for row in rows))
    memory, *rows = map(json.loads, ROWS.read_text().splitlines())
    draw(memory["memory_gb_s"], rows)


def measured(model: str, work: str, batch_size: int, crop: int) -> dict:
    with tempfile.TemporaryDirectory() as directory:
        file = pathlib.Path(directory, "row.json")
        subprocess.run(
            [
                *(sys.executable, "-m", "bit_tf.benchmark", f"--work={work}"),
                *(f"--model={model}", f"--batch_size={batch_size}"),
                *(f"--crop={crop}", f"--json={file}"),
            ],
            check=True,
        )
        return json.loads(file.read_text())


def copied() -> float:
    """Returns GB/s that are read and written when memory is copied."""
    source = np.ones(2**26, np.float32)
    target = np.empty_like(source)
    best = np.inf
    for _ in range(10):
        began = time.perf_counter()
        np.copyto(target, source)
        best = min(best, time.perf_counter() - began)
    return 2 * source.nbytes / best / 1e9


def intensity(row: dict) -> tuple[float, float]:
    """Returns FLOP, and FLOP per byte, of a call."""
    depth, width = architecture.parse_name(row["model"])
    weights = 4 * layout.parameters(layout.shapes(depth, width, CLASSES))
    images = 4 * row["batch_size"]
    activations = images * architecture.activations(row["model"], row["crop"])
    flop = 2 * architecture.multiplications(row["model"], row["crop"])
    flop *= row["batch_size"]
    if row["work"] == "train":
        # Forward, and backward for images and for kernels; of weights also
        # gradient and momentum, read and written.
        return 3 * flop, 3 * flop / (3 * 2 * activations + 7 * weights)
    return flop, flop / (2 * activations + weights)


def draw(memory: float, rows: list[dict]) -> None:
    plot = figure.Figure(figsize=(7.5, 4.6), layout="constrained")
    axes = plot.subplots()
    peak = max(row["gemm_gflops"] for row in rows)
    x = np.geomspace(3, 300, 200)
    axes.plot(x, np.minimum(peak, memory * x), color="black")
    axes.annotate(
        f"product of matrices, {peak:.0f} GFLOP/s",
        (x[-1], peak),
        (0, 4),
        textcoords="offset points",
        ha="right",
    )
    axes.annotate(
        f"copy of memory, {memory:.0f} GB/s",
        (x[0], memory * x[0]),
        (12, 0),
        textcoords="offset points",
    )
    for colour, row in zip(curves.COLOURS, rows, strict=False):
        flop, per_byte = intensity(row)
        reached = flop / row["ms"] / 1e6
        axes.plot(
            per_byte,
            reached,
            "s" if row["work"] == "train" else "o",
            color=colour,
            label=f"{row['model']} {row['work']}, {row['batch_size']} of "
            f"{row['crop']}: {reached:.0f} ({reached / peak:.0%})",
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("FLOP per byte, counted")
    axes.set_ylabel("GFLOP/s, measured")
    axes.legend(loc="lower right", fontsize="small", frameon=False)
    curves.save(HERE / "roofline.png", plot)


if __name__ == "__main__":
    main()
