"""A run's workdir and evaluation -> report.html, one file that needs no net."""

import base64
import importlib.resources
import io

import jinja2
import numpy as np
from matplotlib import figure
from matplotlib import font_manager
from PIL import Image

import bit_tf
from bit_tf import evaluation as evaluation_lib
from bit_tf import examples as examples_lib
from bit_tf import recipe as recipe_lib
from bit_tf import workdir as workdir_lib

MATRIX_CLASSES = 30
TABLE_CLASSES = 1000
PAIRS = 20
SHOWN_IMAGES = 16
THUMBNAIL_PIXELS = 112
# Colour-blind safe (Okabe & Ito).
BLUE, ORANGE = "#0072B2", "#D55E00"


def write(
    workdir: workdir_lib.Workdir,
    *,
    recipe: recipe_lib.Recipe,
    model: str,
    train: examples_lib.Examples,
    evaluation: examples_lib.Examples,
    final: evaluation_lib.Evaluation,
    command: str,
) -> None:
    """Writes the report of a run.

    Args:
        workdir: where the metrics are and the report goes.
        recipe: what was run, with the source of each number.
        model: the network in words.
        train: what was trained on.
        evaluation: what was evaluated on, in the order of `final`.
        final: the last evaluation.
        command: what repeats the run.
    """
    rows = workdir_lib.read_metrics(workdir.path)
    baseline = majority_baseline(train, final)
    wrong, random = _choose(final)
    page = _template().render(
        verdict=verdict(final.summary(), baseline),
        summary=final.summary(),
        facts=_facts(recipe, model, train, evaluation),
        recipe=_recipe_rows(recipe),
        curves=_curves(rows, baseline),
        matrix=(
            _matrix(final) if len(final.class_names) <= MATRIX_CLASSES else None
        ),
        pairs=final.confused_pairs(PAIRS),
        num_classes=len(final.class_names),
        per_class=_worst(final.per_class()),
        wrong=[_shown(i, evaluation, final) for i in wrong],
        random=[_shown(i, evaluation, final) for i in random],
        command=command,
        version=bit_tf.__version__,
    )
    workdir_lib.write_text(workdir.report, page)


def majority_baseline(
    train: examples_lib.Examples, final: evaluation_lib.Evaluation
) -> float:
    """Returns the accuracy of always naming the largest class.

    That of the training images, or of the evaluated ones where the others'
    labels have not been counted.
    """
    counts = train.class_counts()
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
        f"{_percent(summary['top1'])} of {summary['examples']:,} images right "
        f"(95 % interval {_percent(summary['top1_low'])} to "
        f"{_percent(summary['top1_high'])}): {judged} always naming the "
        f"largest class, which gets {_percent(baseline)}."
    )


def _percent(value: float | None) -> str:
    # The space does not break: the sign stays with its number.
    return "-" if value is None else f"{100 * value:.1f}\N{NO-BREAK SPACE}%"


def _template() -> jinja2.Template:
    source = importlib.resources.files("bit_tf") / "assets" / "report.html.j2"
    environment = jinja2.Environment(
        # Class and file names are somebody else's text.
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = _percent
    return environment.from_string(source.read_text())


def _facts(recipe, model, train, evaluation) -> list[tuple[str, str]]:
    height, width = train.typical_size()
    counts = train.class_counts()
    per_class = ""
    if counts is not None:
        low, high = int(counts.min()), int(counts.max())
        shown = f"{low:,} to {high:,}" if low < high else f"{low:,}"
        per_class = f", {shown} per class"
    return [
        ("Network", model),
        (
            "Training images",
            f"{len(train):,} in {len(train.class_names):,} classes{per_class}",
        ),
        ("Evaluated images", f"{len(evaluation):,}, each once"),
        ("Median image size", f"{height} x {width} pixels"),
        (
            "Passes over the training images",
            f"{recipe.total_steps * recipe.batch_size / len(train):.1f}",
        ),
    ]


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


def _png(plot: figure.Figure) -> str:
    buffer = io.BytesIO()
    plot.savefig(buffer, format="png", dpi=144, bbox_inches="tight")
    return base64.b64encode(buffer.getvalue()).decode()


def _curves(rows: list[dict], baseline: float) -> list[tuple[str, str]]:
    """Returns (name, PNG) of loss, accuracy and rate against steps."""
    training = [row for row in rows if "train_loss" in row]
    evaluated = [row for row in rows if "top1" in row]

    def draw(title, of_training, of_evaluation=None, line=None):
        plot = figure.Figure(figsize=(3.6, 2.8), layout="constrained")
        axes = plot.subplots()
        for source, name, style in (
            (training, of_training, {"color": BLUE, "lw": 1}),
            (evaluated, of_evaluation, {"color": ORANGE, "marker": "."}),
        ):
            if name:
                steps = [row["step"] for row in source]
                axes.plot(steps, [row[name] for row in source], **style)
        if line is not None:
            axes.axhline(line, color="0.5", ls=":", lw=1)
            axes.set_ylim(0, 1.02)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("step")
        axes.spines[["top", "right"]].set_visible(False)
        return title, _png(plot)

    return [
        draw("Loss", "train_loss", "loss"),
        draw("Top-1 accuracy", "train_accuracy", "top1", baseline),
        draw("Learning rate", "lr"),
    ]


def _matrix(final: evaluation_lib.Evaluation) -> str:
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
    return _png(plot)


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


def _choose(
    final: evaluation_lib.Evaluation,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns indices of the most wrong and of some random predictions."""
    wrong = np.flatnonzero(~final.correct)
    order = np.argsort(final.label_probability[wrong], kind="stable")
    total = len(final.labels)
    random = np.random.default_rng(0).permutation(total)[:SHOWN_IMAGES]
    return wrong[order[:SHOWN_IMAGES]], random


def _shown(
    index: int,
    examples: examples_lib.Examples,
    final: evaluation_lib.Evaluation,
) -> dict:
    return {
        "image": _thumbnail(examples.contents[index]),
        "name": examples.names[index],
        "label": final.class_names[final.labels[index]],
        "predicted": final.class_names[final.predicted[index]],
        "confidence": float(final.confidence[index]),
        "correct": bool(final.correct[index]),
    }


def _thumbnail(content: str | bytes) -> str:
    file = io.BytesIO(content) if isinstance(content, bytes) else content
    with Image.open(file) as image:
        small = image.convert("RGB")
    small.thumbnail((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))
    buffer = io.BytesIO()
    small.save(buffer, format="JPEG", quality=85)
    return base64.b64encode(buffer.getvalue()).decode()
