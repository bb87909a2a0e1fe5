"""Pictures of a run and an evaluation, as PNG for a page."""

from collections.abc import Sequence

import numpy as np
from matplotlib import figure
from matplotlib import font_manager

from bit_tf import beside as beside_lib
from bit_tf import outcomes
from bit_tf import pages

# Of a bar, as a share of the axis, to be written into.
TEXT_FITS = 0.15
# Colour-blind safe (Okabe & Ito).
BLUE, ORANGE = "#0072B2", "#D55E00"
COLOURS = (ORANGE, BLUE, "#009E73", "#CC79A7", "#000000")


def curves(
    rows: Sequence[dict],
    final: outcomes.Outcome,
    baseline: float | None,
) -> list[tuple[str, str]]:
    """Returns (name, PNG) of loss, accuracy and rate against steps."""
    training = [row for row in rows if "train_loss" in row]
    evaluated = [row for row in rows if "examples" in row]

    def draw(title, of_training, of_evaluation=None, line=None):
        plot = figure.Figure(figsize=(3.6, 2.8), layout="constrained")
        axes = plot.subplots()
        for source, name, style in (
            (training, of_training, {"color": BLUE, "lw": 1}),
            (evaluated, of_evaluation, {"color": ORANGE, "marker": "."}),
        ):
            if name:
                known = [r for r in source if r.get(name) is not None]
                steps = [row["step"] for row in known]
                axes.plot(steps, [row[name] for row in known], **style)
        if line is not None:
            axes.axhline(line, color="0.5", ls=":", lw=1)
            axes.set_ylim(0, 1.02)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("step")
        axes.spines[["top", "right"]].set_visible(False)
        return title, pages.png(plot)

    if isinstance(final, outcomes.Numbers):
        return [
            draw("Loss, in units of the labels' variance", "train_loss"),
            draw("Mean absolute error", None, "mae"),
            draw("Learning rate", "lr"),
        ]
    if isinstance(final, outcomes.SeveralLabels):
        shares = [
            draw("Likeliest class is right", "train_accuracy", "top1", 0.0)
        ]
        if final.is_complete:
            shares.append(draw("Mean average precision", None, "map", 0.0))
    else:
        shares = [draw("Top-1 accuracy", "train_accuracy", "top1", baseline)]
    return [
        draw("Loss", "train_loss", "loss"),
        *shares,
        draw("Learning rate", "lr"),
    ]


def beside(runs: Sequence[beside_lib.Run]) -> str:
    """Returns accuracy against updates of all of them, as PNG."""
    plot = figure.Figure(figsize=(5.4, 3.4), layout="constrained")
    axes = plot.subplots()
    for number, run in enumerate(runs):
        axes.plot(
            [step for step, _ in run.curve],
            [top1 for _, top1 in run.curve],
            color=COLOURS[number],
            marker=".",
            label=_plottable(run.name, f"run {number}"),
        )
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("update")
    axes.set_ylabel("top-1 accuracy")
    axes.legend(frameon=False, fontsize=9, loc="lower right")
    axes.spines[["top", "right"]].set_visible(False)
    return pages.png(plot)


def reliability(calibration: dict) -> str:
    """Returns accuracy against confidence, with how many images, as PNG."""
    bins = calibration["bins"]
    plot = figure.Figure(figsize=(4.2, 3.4), layout="constrained")
    axes = plot.subplots()
    width = bins[0]["high"] - bins[0]["low"]
    middles = [(row["low"] + row["high"]) / 2 for row in bins]
    axes.bar(
        middles,
        [row["accuracy"] for row in bins],
        width=0.92 * width,
        color=BLUE,
    )
    axes.plot([0, 1], [0, 1], color="0.5", ls=":", lw=1)
    axes.plot(
        [row["confidence"] for row in bins],
        [row["accuracy"] for row in bins],
        color=ORANGE,
        marker=".",
        lw=0,
    )
    for x, row in zip(middles, bins, strict=True):
        axes.text(
            x,
            0.01,
            f"{row['examples']:,}",
            rotation=90,
            ha="center",
            va="bottom",
            fontsize=6,
            color="white" if row["accuracy"] > TEXT_FITS else "black",
        )
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_xlabel("confidence")
    axes.set_ylabel("accuracy")
    axes.spines[["top", "right"]].set_visible(False)
    return pages.png(plot)


def scatter(final: outcomes.Numbers) -> str:
    """Returns predicted against true numbers, as PNG."""
    plot = figure.Figure(figsize=(4.6, 4.4), layout="constrained")
    axes = plot.subplots()
    axes.scatter(
        final.labels, final.predicted, s=8, color=BLUE, alpha=0.5, lw=0
    )
    ends = [final.labels.min(), final.labels.max()]
    axes.plot(ends, ends, color="0.5", ls=":", lw=1)
    name = _plottable(final.class_names[0], "number")
    axes.set_xlabel(f"{name}, true")
    axes.set_ylabel(f"{name}, predicted")
    axes.spines[["top", "right"]].set_visible(False)
    return pages.png(plot)


def matrix(final: outcomes.OneLabel) -> str:
    """Returns the confusion matrix, rows normalised, as PNG."""
    counts = final.confusion()
    totals = np.maximum(counts.sum(axis=1, keepdims=True), 1)
    classes = len(counts)
    side = 2 + 0.28 * classes
    plot = figure.Figure(figsize=(side, side), layout="constrained")
    axes = plot.subplots()
    axes.imshow(counts / totals, cmap="Blues", vmin=0, vmax=1)
    names = [
        _plottable(name, f"class {index}")
        for index, name in enumerate(final.class_names)
    ]
    axes.set_xticks(range(classes), names, rotation=90, fontsize=8)
    axes.set_yticks(range(classes), names, fontsize=8)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    for i, j in zip(*np.nonzero(counts), strict=True):
        dark = counts[i, j] / totals[i, 0] > 0.5
        axes.text(
            j,
            i,
            counts[i, j],
            ha="center",
            va="center",
            fontsize=6,
            color="white" if dark else "black",
        )
    return pages.png(plot)


def _plottable(name: str, otherwise: str) -> str:
    """Returns a name for a plot, or another if the font misses letters."""
    font = font_manager.get_font(font_manager.findfont("DejaVu Sans"))
    if not all(font.get_char_index(ord(letter)) for letter in name):
        return otherwise
    name = name if len(name) <= 18 else name[:17] + "…"
    # matplotlib would read "$" as mathematics.
    return name.replace("$", r"\$")
