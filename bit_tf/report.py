"""A run's workdir and evaluation -> report.html, one file that needs no net."""

import importlib.resources
import pathlib
from collections.abc import Sequence

import jinja2
import numpy as np

import bit_tf
from bit_tf import beside
from bit_tf import examples as examples_lib
from bit_tf import outcomes
from bit_tf import pages
from bit_tf import plots
from bit_tf import recipe as recipe_lib
from bit_tf import workdir as workdir_lib

MATRIX_CLASSES = 30
TABLE_CLASSES = 1000
PAIRS = 20
TOP_5_FROM = 5
SHOWN_IMAGES = 16


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
    runs: Sequence[beside.Run] = (),
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
        runs: this one and what is to be put beside it.
    """
    wrong, random = _choose(final)
    details = final.details()
    one_label = isinstance(final, outcomes.OneLabel)
    calibration = details.get("calibration")
    baseline = majority_baseline(train, final) if one_label else None
    page = _template().render(
        verdict=sentence(train, final),
        numbers=_numbers(details, len(final.class_names)),
        facts=_facts(model, evaluation, train, recipe),
        curves=plots.curves(rows, final, baseline) if rows else [],
        runs=runs,
        beside=plots.beside(runs) if runs else None,
        kind={
            outcomes.OneLabel: "one",
            outcomes.SeveralLabels: "several",
            outcomes.Numbers: "number",
        }[type(final)],
        matrix=(
            plots.matrix(final)
            if one_label and len(final.class_names) <= MATRIX_CLASSES
            else None
        ),
        scatter=(
            plots.scatter(final)
            if isinstance(final, outcomes.Numbers)
            else None
        ),
        pairs=final.confused_pairs(PAIRS) if one_label else [],
        calibration=calibration,
        reliability=calibration and plots.reliability(calibration),
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
