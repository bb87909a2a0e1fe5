"""A run's workdir and evaluation -> report.html, one file that needs no net."""

import importlib.resources
import pathlib
from collections.abc import Sequence

import jinja2
import numpy as np
from matplotlib import figure
from matplotlib import font_manager

import bit_tf
from bit_tf import examples as examples_lib
from bit_tf import outcomes
from bit_tf import pages
from bit_tf import recipe as recipe_lib
from bit_tf import workdir as workdir_lib

MATRIX_CLASSES = 30
TABLE_CLASSES = 1000
PAIRS = 20
TOP_5_FROM = 5
# Of a bar, as a share of the axis, to be written into.
TEXT_FITS = 0.15
SHOWN_IMAGES = 16
# Colour-blind safe (Okabe & Ito).
BLUE, ORANGE = "#0072B2", "#D55E00"


def write(
    path: pathlib.Path,
    *,
    model: str,
    evaluation: examples_lib.Images,
    final: outcomes.Outcome,
    command: str,
    train: examples_lib.Images | None = None,
    recipe: recipe_lib.Recipe | None = None,
    rows: Sequence[dict] = (),
) -> None:
    """Writes the report of a run, or of an evaluation alone.

    Args:
        path: of the page.
        model: the network in words.
        evaluation: what was evaluated on, in the order of `final`.
        final: the last evaluation.
        command: what repeats it.
        train: what was trained on.
        recipe: what was run, with the source of each number.
        rows: of the run's metrics.
    """
    wrong, random = _choose(final)
    details = final.details()
    one_label = isinstance(final, outcomes.OneLabel)
    calibration = details.get("calibration")
    page = _template().render(
        verdict=sentence(train, final),
        numbers=_numbers(details, len(final.class_names)),
        facts=_facts(model, evaluation, train, recipe),
        curves=_curves(rows, train, final) if rows else [],
        kind={
            outcomes.OneLabel: "one",
            outcomes.SeveralLabels: "several",
            outcomes.Numbers: "number",
        }[type(final)],
        matrix=(
            _matrix(final)
            if one_label and len(final.class_names) <= MATRIX_CLASSES
            else None
        ),
        scatter=(
            _scatter(final) if isinstance(final, outcomes.Numbers) else None
        ),
        pairs=final.confused_pairs(PAIRS) if one_label else [],
        calibration=calibration,
        reliability=calibration and _reliability(calibration),
        num_classes=len(final.class_names),
        per_class=_worst(details.get("per_class", [])),
        wrong=[_shown(i, evaluation, final) for i in wrong],
        random=[_shown(i, evaluation, final) for i in random],
        left_out=getattr(evaluation, "left_out", ()),
        recipe=_recipe_rows(recipe) if recipe else [],
        command=command,
        version=bit_tf.__version__,
    )
    workdir_lib.write_text(path, page)


def sentence(train: examples_lib.Images | None, final: outcomes.Outcome) -> str:
    """Returns one sentence: how good, how sure, against what."""
    summary = final.summary()
    if isinstance(final, outcomes.OneLabel):
        return verdict(summary, majority_baseline(train, final))
    if isinstance(final, outcomes.Numbers):
        centre = (final.labels if train is None else train.labels).mean()
        chance = float(np.abs(final.labels - centre).mean())
        return (
            f"Off by {summary['mae']:.3g} on average over "
            f"{summary['examples']:,} images; always saying the mean, "
            f"{centre:.3g}, is off by {chance:.3g}."
        )
    if summary.get("map") is None:
        return (
            f"The likeliest class is a right one for "
            f"{pages.percent(summary['top1'])} of {summary['examples']:,} "
            "images."
        )
    share = (final.targets > 0).mean(axis=0)
    chance = float(share[share > 0].mean())
    return (
        f"Mean average precision {pages.percent(summary['map'])} over "
        f"{int((share > 0).sum()):,} classes and {summary['examples']:,} "
        f"images; guessing gets {pages.percent(chance)}."
    )


def _numbers(details: dict, num_classes: int) -> list[tuple[str, str]]:
    """Returns what stands large at the top, as (value, what it is)."""
    found = []

    def add(name, text, show=pages.percent):
        if details.get(name) is not None:
            found.append((show(details[name]), text))

    def plain(value):
        return f"{value:.4g}"

    add("map", "mean average precision")
    if "map" in details:
        add("f1", "F1 of all labels, at one half")
        add("top1", "likeliest class is right")
    else:
        add("top1", "top-1 accuracy")
        if num_classes > TOP_5_FROM:
            add("top5", "true class among the first five")
    add("mae", "mean absolute error", plain)
    add("rmse", "root mean square error", plain)
    add("r2", "of the variance is explained")
    add("loss", "loss (cross-entropy, nats)", lambda value: f"{value:.3f}")
    add("examples", "images evaluated", "{:,}".format)
    return found


def majority_baseline(
    train: examples_lib.Images | None, final: outcomes.OneLabel
) -> float:
    """Returns the accuracy of always naming the largest class.

    That of the training images, or of the evaluated ones where the others'
    labels have not been counted.
    """
    counts = train.class_counts() if train else None
    if counts is None:
        counts = np.bincount(final.labels)
    return float(np.mean(final.labels == int(np.argmax(counts))))


def verdict(summary: dict, baseline: float) -> str:
    """Returns one sentence: how good, how sure, against what."""
    if summary["top1_low"] > baseline:
        judged = "better than"
    elif summary["top1_high"] < baseline:
        judged = "worse than"
    else:
        judged = "not distinguishable from"
    return (
        f"{pages.percent(summary['top1'])} of {summary['examples']:,} images "
        f"right (95 % interval {pages.percent(summary['top1_low'])} to "
        f"{pages.percent(summary['top1_high'])}): {judged} always naming the "
        f"largest class, which gets {pages.percent(baseline)}."
    )


def _template() -> jinja2.Template:
    source = importlib.resources.files("bit_tf") / "assets" / "report.html.j2"
    return pages.template(source.read_text())


def _facts(
    model: str,
    evaluation: examples_lib.Images,
    train: examples_lib.Images | None,
    recipe: recipe_lib.Recipe | None,
) -> list[tuple[str, str]]:
    height, width = (train or evaluation).typical_size()
    facts = [("Network", model)]
    if train:
        counts = train.class_counts()
        text = f"{len(train):,}"
        if not getattr(train, "is_number", False):
            text += f" in {len(train.class_names):,} classes"
        if counts is not None:
            low, high = int(counts.min()), int(counts.max())
            shown = f"{low:,} to {high:,}" if low < high else f"{low:,}"
            text += f", {shown} per class"
        facts.append(("Training images", text))
    facts.append(("Evaluated images", f"{len(evaluation):,}, each once"))
    facts.append(("Median image size", f"{height} x {width} pixels"))
    if train and recipe:
        passes = recipe.total_steps * recipe.batch_size / len(train)
        facts.append(("Passes over the training images", f"{passes:.1f}"))
    return facts


def _recipe_rows(recipe: recipe_lib.Recipe) -> list[tuple[str, str, str]]:
    rows = []
    for field, source in recipe.sources.items():
        value = getattr(recipe, field)
        if isinstance(value, tuple):
            value = ", ".join(map(str, value))
        rows.append((field, value, source))
    rows.append(("training images", recipe.train_preprocessing, ""))
    rows.append(("evaluated images", recipe.eval_preprocessing, ""))
    return rows


def _curves(
    rows: Sequence[dict],
    train: examples_lib.Images | None,
    final: outcomes.Outcome,
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
        baseline = majority_baseline(train, final)
        shares = [draw("Top-1 accuracy", "train_accuracy", "top1", baseline)]
    return [
        draw("Loss", "train_loss", "loss"),
        *shares,
        draw("Learning rate", "lr"),
    ]


def _reliability(calibration: dict) -> str:
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


def _scatter(final: outcomes.Numbers) -> str:
    """Returns predicted against true numbers, as PNG."""
    plot = figure.Figure(figsize=(4.6, 4.4), layout="constrained")
    axes = plot.subplots()
    axes.scatter(
        final.labels, final.predicted, s=8, color=BLUE, alpha=0.5, lw=0
    )
    ends = [final.labels.min(), final.labels.max()]
    axes.plot(ends, ends, color="0.5", ls=":", lw=1)
    name = _plottable(final.class_names[0], 0)
    axes.set_xlabel(f"{name}, true")
    axes.set_ylabel(f"{name}, predicted")
    axes.spines[["top", "right"]].set_visible(False)
    return pages.png(plot)


def _matrix(final: outcomes.OneLabel) -> str:
    """Returns the confusion matrix, rows normalised, as PNG."""
    counts = final.confusion()
    totals = np.maximum(counts.sum(axis=1, keepdims=True), 1)
    classes = len(counts)
    side = 2 + 0.28 * classes
    plot = figure.Figure(figsize=(side, side), layout="constrained")
    axes = plot.subplots()
    axes.imshow(counts / totals, cmap="Blues", vmin=0, vmax=1)
    names = [
        _plottable(name, index) for index, name in enumerate(final.class_names)
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


def _plottable(name: str, index: int) -> str:
    """Returns a class name for a plot, or its number if letters are missing."""
    font = font_manager.get_font(font_manager.findfont("DejaVu Sans"))
    if not all(font.get_char_index(ord(letter)) for letter in name):
        return f"class {index}"
    name = name if len(name) <= 18 else name[:17] + "…"
    # matplotlib would read "$" as mathematics.
    return name.replace("$", r"\$")


def _worst(rows: list[dict]) -> list[dict]:
    """Returns as many rows of classes as a page can bear, in their order."""
    if len(rows) <= TABLE_CLASSES:
        return rows
    by_f1 = sorted(
        range(len(rows)),
        key=lambda i: 2 if rows[i]["f1"] is None else rows[i]["f1"],
    )
    return [rows[i] for i in sorted(by_f1[:TABLE_CLASSES])]


def _choose(final: outcomes.Outcome) -> tuple[np.ndarray, np.ndarray]:
    """Returns indices of the most wrong and of some random predictions."""
    total = final.summary()["examples"]
    random = np.random.default_rng(0).permutation(total)[:SHOWN_IMAGES]
    return final.worst_first()[:SHOWN_IMAGES], random


def _shown(
    index: int,
    examples: examples_lib.Images,
    final: outcomes.Outcome,
) -> dict:
    return {
        "image": pages.thumbnail(examples.contents[index]),
        "name": examples.names[index],
        **final.said(index),
    }
