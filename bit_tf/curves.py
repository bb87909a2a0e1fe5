"""Accuracy against examples per class, for several models: the paper's plot."""

import io
import pathlib
from collections.abc import Sequence

import numpy as np
from matplotlib import figure
from matplotlib import ticker

from bit_tf import subsets
from bit_tf import workdir

# Colour-blind safe (Okabe & Ito).
COLOURS = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#000000",
)
STYLES = {"finetune": "-", "linear": "--", "knn": ":"}


def summarize(rows: Sequence[dict], by: Sequence[str]) -> list[dict]:
    """Returns min, median and max of "top1" over the rows of each group.

    Args:
        rows: with "top1" and the fields `by`.
        by: what makes a group, in the order of which groups come.
    """
    groups: dict[tuple, list[float]] = {}
    for row in rows:
        key = tuple(row[name] for name in by)
        groups.setdefault(key, []).append(row["top1"])
    return [
        {
            **dict(zip(by, key, strict=True)),
            "min": min(values),
            "median": float(np.median(values)),
            "max": max(values),
            "runs": len(values),
        }
        for key, values in groups.items()
    ]


def table(groups: Sequence[dict], by: Sequence[str]) -> str:
    """Returns groups as text, min, median and max in percent."""
    lines = [[*by, "min", "median", "max", "runs"]]
    for group in groups:
        numbers = [f"{100 * group[n]:.1f}" for n in ("min", "median", "max")]
        lines.append(
            [*(str(group[name]) for name in by), *numbers, str(group["runs"])]
        )
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i < len(by) else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def draw(path: pathlib.Path, groups: Sequence[dict], *, title: str) -> None:
    """Writes the figure: median lines, and bands from min to max.

    Args:
        path: of the PNG.
        groups: see `summarize`, with "model", "method" and "shots".
        title: above it.
    """
    plot = figure.Figure(figsize=(6.4, 4.4), layout="constrained")
    panel(plot.subplots(), groups, title=title)
    save(path, plot)


def panel(axes, groups: Sequence[dict], *, title: str) -> None:
    """Draws the lines and bands into axes of matplotlib's; see `draw`."""
    models = list(dict.fromkeys(group["model"] for group in groups))
    methods = list(dict.fromkeys(group["method"] for group in groups))
    places = _places({group["shots"] for group in groups})
    for model in models:
        for method in methods:
            own = sorted(
                (
                    group
                    for group in groups
                    if (group["model"], group["method"]) == (model, method)
                ),
                key=lambda group: places[group["shots"]],
            )
            if not own:
                continue
            band(
                axes,
                [places[group["shots"]] for group in own],
                own,
                color=COLOURS[models.index(model) % len(COLOURS)],
                ls=STYLES.get(method, "-"),
                label=model if len(methods) == 1 else f"{model}, {method}",
            )
    axes.set_xscale("log")
    axes.set_xticks(list(places.values()), [str(count) for count in places])
    axes.xaxis.set_minor_locator(ticker.NullLocator())
    finish(axes, title=title, below="training examples per class")
    axes.legend(fontsize=8, frameon=False)


def band(
    axes, places: Sequence[float], groups: Sequence[dict], *, color: str, **line
) -> None:
    """Draws medians as a line, and lighter what lies from min to max.

    Args:
        axes: of matplotlib's.
        places: where each group stands.
        groups: with "min", "median" and "max", shares of 1.
        color: of both.
        **line: what else matplotlib's plot takes.
    """
    low, median, high = (
        [100 * group[name] for group in groups]
        for name in ("min", "median", "max")
    )
    axes.plot(places, median, color=color, marker="o", ms=4, **line)
    axes.fill_between(places, low, high, color=color, alpha=0.15, lw=0)


def finish(axes, *, title: str, below: str) -> None:
    """Labels axes that have accuracies in percent, from 0 on."""
    axes.set_title(title, fontsize=11)
    axes.set_xlabel(below)
    axes.set_ylabel("top-1 accuracy, %")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def _places(shots: set[int | str]) -> dict[int | str, float]:
    """Returns where on the axis each number of examples stands.

    "all", of which each class may have another number, comes after the rest.
    """
    counts = sorted(shots - {subsets.ALL})
    places = {count: float(count) for count in counts}
    if subsets.ALL in shots:
        places[subsets.ALL] = 3 * max(places.values(), default=1.0)
    return places


def save(path: pathlib.Path, plot: figure.Figure) -> None:
    """Writes a figure as PNG, whole or not at all."""
    buffer = io.BytesIO()
    plot.savefig(buffer, format="png", dpi=144)
    workdir.write_file(
        path, lambda temporary: temporary.write_bytes(buffer.getvalue())
    )


# Published with the weights: natural, specialized, structured, mean of all;
# and the paper's means (tables 1 and 2).
VTAB_REFERENCES = {
    "BiT-M R152x4, released": (0.8077, 0.8567, 0.6108, 0.7351),
    "BiT-M R101x3, released": (0.8029, 0.8575, 0.5940, 0.7265),
}
VTAB_PAPER_MEANS = {
    "BiT-L R152x4": 0.7629,
    "BiT-M R152x4": 0.7064,
    "BiT-S R152x4": 0.6687,
}


def draw_vtab(
    path: pathlib.Path, medians: dict, scores: dict, *, title: str
) -> None:
    """Writes the figure: a bar per task and per group, marks of others.

    Args:
        path: of the PNG.
        medians: task -> accuracy.
        scores: group, or "mean" -> accuracy; of those that are complete.
        title: above it.
    """
    plot = figure.Figure(figsize=(9.6, 4.6), layout="constrained")
    tasks, groups = plot.subplots(1, 2, width_ratios=(2.4, 1.2))
    tasks.bar(
        range(len(medians)),
        [100 * value for value in medians.values()],
        color=COLOURS[0],
    )
    tasks.set_xticks(
        range(len(medians)), list(medians), rotation=60, ha="right", fontsize=8
    )
    tasks.set_ylabel("top-1 accuracy, %")
    tasks.set_title(title, fontsize=11)
    names = ("natural", "specialized", "structured", "mean")
    groups.bar(
        range(len(names)),
        [100 * scores.get(name, 0.0) for name in names],
        color=COLOURS[0],
    )
    for marker, (label, values) in zip(
        "^v", VTAB_REFERENCES.items(), strict=True
    ):
        groups.plot(
            range(len(names)),
            [100 * value for value in values],
            marker,
            color="black",
            label=label,
            mfc="none",
        )
    for marker, (label, value) in zip(
        "ds.", VTAB_PAPER_MEANS.items(), strict=True
    ):
        groups.plot(
            [len(names) - 1],
            [100 * value],
            marker,
            color=COLOURS[1],
            label=f"{label}, paper",
            mfc="none",
        )
    groups.set_xticks(range(len(names)), names, rotation=60, ha="right")
    groups.legend(fontsize=7, frameon=False, loc="upper left")
    groups.set_title("groups", fontsize=11)
    for axes in (tasks, groups):
        axes.set_ylim(0, 119 if axes is groups else 100)
        axes.spines[["top", "right"]].set_visible(False)
    save(path, plot)
