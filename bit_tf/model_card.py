"""What is known of a model -> a model card, Markdown that hubs read."""

import json

# Of the front matter, https://huggingface.co/docs/hub/model-cards.
_TASK = "image-classification"
_FEATURE_TASK = "image-feature-extraction"
# What a run tells of its accuracy -> the hubs' name of it, and in words.
_METRICS = {
    "top1": ("accuracy", "Top-1 accuracy"),
    "map": ("mean_average_precision", "Mean average precision"),
    "mae": ("mae", "Mean absolute error"),
    "r2": ("r_squared", "R2"),
}
_SHOWN_CLASSES = 20


def write(facts: dict) -> str:
    """Returns the card of a SavedModel.

    Args:
        facts: of its assets/bit_tf.json, see `saved_model.write`.
    """
    return f"---\n{_front_matter(facts)}---\n\n{_body(facts)}"


def _front_matter(facts: dict) -> str:
    """Returns the YAML that hubs read; JSON strings are YAML too."""
    is_classifier = facts["head"] is not None
    training = facts["training"]
    lines = [
        f"license: {facts['license']}",
        "library_name: tensorflow",
        f"pipeline_tag: {_TASK if is_classifier else _FEATURE_TASK}",
        "tags:",
        *(f"- {tag}" for tag in ("big-transfer", "bit", "resnet-v2")),
    ]
    if training.get("init_from"):
        lines.append(f"base_model: {json.dumps(training['init_from'])}")
    found = [name for name in _METRICS if training.get(name) is not None]
    dataset = (training.get("data") or {}).get("dataset")
    if found and dataset:
        lines += [
            "model-index:",
            f"- name: {json.dumps(facts['architecture'])}",
            "  results:",
            "  - task:",
            f"      type: {_TASK}",
            "    dataset:",
            f"      name: {json.dumps(dataset, ensure_ascii=False)}",
            f"      type: {json.dumps(dataset, ensure_ascii=False)}",
            "    metrics:",
        ]
        for name in found:
            lines += [
                f"    - type: {_METRICS[name][0]}",
                f"      value: {training[name]:.6g}",
            ]
    return "".join(f"{line}\n" for line in lines)


def _body(facts: dict) -> str:
    size, names = facts["image_size"], facts["class_names"]
    training, weights = facts["training"], facts["weights"]
    is_classifier = facts["head"] is not None
    what = "a classifier" if is_classifier else "a feature vector"
    parts = [
        f"# {facts['architecture']}, {what}",
        "A Big Transfer network (ResNet-v2 with GroupNorm and weight "
        "standardisation, [arXiv 1912.11370](https://arxiv.org/abs/1912.11370))"
        f" as a TensorFlow SavedModel, written by bit_tf "
        f"{facts['bit_tf_version']}. It needs TensorFlow and nothing else.",
    ]
    if is_classifier and facts["head"] != "squared":
        shown = ", ".join(map(_escaped, names[:_SHOWN_CLASSES]))
        more = len(names) - _SHOWN_CLASSES
        parts.append(
            f"**Classes** ({len(names)}): {shown}"
            + (f", and {more} more in assets/labels.txt" if more > 0 else "")
        )
    rows = [
        ("Input", "encoded JPEG, PNG, GIF or BMP, or " + facts["input"]),
        ("Image size", f"{size} x {size} pixels; any other works"),
        ("Preprocessing", f"{_code(facts['preprocessing'])}, inside"),
        ("Output", facts["output"]),
        (
            "Form",
            "inference: kernels are standardised already, and it cannot be "
            "trained"
            if facts["form"] == "inference"
            else "fine-tunable",
        ),
        ("Weights", _escaped(weights["source"])),
        ("Licence", facts["license"]),
    ]
    if weights["sha256"]:
        rows.append(("SHA-256 of the weights", _code(weights["sha256"])))
    for name, (_, text) in _METRICS.items():
        if training.get(name) is not None:
            rows.append((text, f"{training[name]:.4g}"))
    data = training.get("data") or {}
    if data:
        rows += [
            ("Data", _escaped(data["dataset"])),
            ("Trained on", f"{data['train_examples']:,} images"),
            ("Evaluated on", f"{data['eval_examples']:,} images"),
        ]
    if "base_lr" in training:
        rows.append(
            (
                "Recipe",
                f"{training['name']}: {training['total_steps']:,} steps of "
                f"{training['batch_size']} images, learning rate "
                f"{training['base_lr']:g}, mixup {training['mixup_alpha']:g}",
            )
        )
    parts.append(
        "| | |\n|---|---|\n"
        + "\n".join(f"| {name} | {value} |" for name, value in rows)
    )
    parts.append(f"## Use\n\n```python\n{_use(facts)}```")
    parts.append(
        "## Limits\n\nWhat the model says of images unlike those it was "
        "trained on means little, and its probabilities are not calibrated "
        "for them. A class of the training data is all it knows: it never "
        'answers "none of these".'
        if is_classifier
        else "## Limits\n\nFeatures carry what the training data had in them, "
        "its biases included."
    )
    return "\n\n".join(parts) + "\n"


def _use(facts: dict) -> str:
    lines = [
        "import tensorflow as tf",
        "",
        'model = tf.saved_model.load("PATH")',
        'content = tf.io.read_file("image.jpg")',
        'found = model.signatures["serving_default"](',
        "    image_bytes=tf.constant([content.numpy()])",
        ")",
    ]
    if facts["head"] is None:
        lines.append('print(found["features"].shape)')
    elif facts["head"] == "squared":
        lines.append('print(found["numbers"][0].numpy())')
    else:
        lines.append(
            'print(found["classes"][0].numpy(), found["scores"][0].numpy())'
        )
    return "".join(f"{line}\n" for line in lines)


def _code(text: str) -> str:
    """Returns text in fixed width, within a table."""
    return "`" + text.replace("|", "\\|") + "`"


def _escaped(text: str) -> str:
    """Returns text as Markdown shows it, also within a table."""
    for mark in "\\`*_{}[]<>#|~":
        text = text.replace(mark, f"\\{mark}")
    return " ".join(text.split())
