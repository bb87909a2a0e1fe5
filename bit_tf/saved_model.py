"""The TF-Hub reusable SavedModel: a file that outlives this code."""

import json
import pathlib
import tempfile
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

import bit_tf
from bit_tf import resnet_v2
from bit_tf import weights
from bit_tf import weights_file
from bit_tf import workdir as workdir_lib
from bit_tf import zoo

# Float32 logits before and after; graph rewrites reorder a few sums.
TOLERANCE = 1e-4
# Pixels, where nothing says more: BiT was pre-trained so.
DEFAULT_CROP = 224


def write(
    path: pathlib.Path,
    model: resnet_v2.ResNetV2,
    *,
    class_names: Sequence[str],
    crop: int,
    head: str = "softmax",
    weight_decay: float = 0.0,
    preprocessing: str | None = None,
    training: dict | None = None,
) -> None:
    """Writes a classifier for consumers who do not have bit_tf.

    The root object follows the Reusable SavedModel interface of TF-Hub:
    root(images, training=False) -> logits; `variables`,
    `trainable_variables`, `regularization_losses`; and further
    `features(images)`, `class_names()`, the signatures "serving_default"
    (images -> logits, probabilities) and "features", and the assets
    labels.txt and bit_tf.json. Images are float32 RGB in [0, 1], (B, H, W, 3)
    with any B, H and W.

    Args:
        path: directory, replaced if it is there, complete or untouched.
        model: float32, with a head, outside any strategy's scope.
        class_names: one per output.
        crop: image side the model was evaluated at, pixels; told, not forced.
        head: "softmax" if an image has one class, "sigmoid" if several: what
            makes probabilities of the logits; "squared" if the output is a
            number.
        weight_decay: strength of `regularization_losses`; 0 for none.
        preprocessing: of an encoded image, see `preprocessing.parse`, with
            values in [-1, 1]; None for squashing it to `crop`.
        training: what to tell about the run, JSON types.

    Raises:
        ValueError: names and outputs do not match in number.
        RuntimeError: the file read back gives other logits.
    """
    _check_names(class_names, model.num_classes)
    facts = {
        "architecture": f"R{model.depth}x{model.width:g}",
        "bit_tf_version": bit_tf.__version__,
        "class_names": list(class_names),
        "input": "float32 RGB in [0, 1], (batch, height, width, 3)",
        "image_size": crop,
        "resize": "squash to image_size x image_size, bilinear",
        "preprocessing": (
            preprocessing or f"decode|resize({crop})|value_range(-1,1)"
        ).replace("value_range(-1,1)", "value_range(0,1)"),
        "head": head,
        "output": "the number itself"
        if head == "squared"
        else f"logits; {head} gives probabilities",
        "training": training or {},
    }
    with tempfile.TemporaryDirectory() as assets:
        root, signatures = _root(
            model, facts, pathlib.Path(assets), head, weight_decay
        )

        def save_and_check(temporary):
            tf.saved_model.save(root, str(temporary), signatures=signatures)
            _check(temporary, model, crop)

        workdir_lib.write_directory(path, save_and_check)


def export_run(workdir: workdir_lib.Workdir, path: pathlib.Path) -> None:
    """Writes the final weights of a run as a SavedModel, on one device.

    Args:
        workdir: of a run that has ended.
        path: directory to write, replaced if it is there.

    Raises:
        ValueError: the run is not there or has not ended.
    """
    run = workdir.read_recipe()
    if not workdir.weights.is_file():
        raise ValueError(
            f"the run in {workdir.path} has not ended: it has no weights.npz. "
            "Continue it with the flags in its run.flags."
        )
    training = {
        key: run[key]
        for key in ("name", "total_steps", "batch_size", "base_lr", "data")
    }
    if workdir.evaluation.is_file():
        found = json.loads(workdir.evaluation.read_text())
        training |= {
            name: found[name]
            for name in ("top1", "map", "mae", "r2")
            if name in found
        }
    model = resnet_v2.build(
        run["model"], run["num_classes"], seed=None, dtype="float32"
    )
    weights.load(workdir.weights, model)
    write(
        path,
        model,
        class_names=run["class_names"],
        crop=run["crop"],
        head=run["loss"],
        weight_decay=run["weight_decay"],
        preprocessing=run["eval_preprocessing"],
        training=training,
    )


def export_weights(
    source: pathlib.Path,
    path: pathlib.Path,
    *,
    class_names: Sequence[str] | None = None,
    image_size: int | None = None,
) -> None:
    """Writes the SavedModel of a weights file, on one device.

    Architecture, width and classes are read from its tensors; what is known
    of a published file is taken by its name.

    Args:
        source: see `weights_file.opened`.
        path: directory to write, replaced if it is there.
        class_names: one per class; None for the published order, or numbers.
        image_size: side to resize to, pixels; None for that of the published
            file, or 224.

    Raises:
        ValueError: the file cannot be used, has no head, or another number of
            classes.
    """
    with weights_file.opened(source) as stored:
        name, num_classes = stored.architecture, stored.num_classes
    if num_classes is None:
        raise ValueError(
            f"weights file {source} has no head: there is nothing to classify "
            "with. Fine-tune it first."
        )
    entry = zoo.by_file(source, architecture=name, num_classes=num_classes)
    if class_names is None:
        class_names = zoo.class_names(entry, num_classes)
    _check_names(class_names, num_classes)
    model = resnet_v2.build(name, num_classes, seed=None, dtype="float32")
    weights.load(source, model)
    write(
        path,
        model,
        class_names=class_names,
        crop=image_size or (entry.resolution if entry else DEFAULT_CROP),
        head=entry.head if entry else "softmax",
        training={"weights": entry.name if entry else source.name},
    )


def _check_names(class_names: Sequence[str], num_classes: int) -> None:
    if len(class_names) != num_classes:
        raise ValueError(
            f"{len(class_names)} class names for {num_classes} outputs: give "
            "one name per output."
        )


def _root(
    model: resnet_v2.ResNetV2,
    facts: dict,
    assets: pathlib.Path,
    head: str,
    weight_decay: float,
):
    """Returns the object to save, free of Keras, and its signatures."""
    classifier = keras.Model(
        model.input,
        {
            "logits": model.endpoints["logits"],
            "features": model.endpoints["pre_logits"],
        },
    )
    names = list(facts["class_names"])
    # What belongs to the outputs beside them.
    more = {
        "softmax": lambda logits: {"probabilities": tf.nn.softmax(logits)},
        "sigmoid": lambda logits: {"probabilities": tf.nn.sigmoid(logits)},
        "squared": lambda numbers: {"numbers": tf.identity(numbers)},
    }[head]

    images = tf.TensorSpec((None, None, None, 3), tf.float32, name="images")

    # Traced once; everything below calls it, so the file holds one network.
    @tf.function(input_signature=[images])
    def network(images):
        # The network's own range is [-1, 1].
        return classifier(images * 2.0 - 1.0)

    @tf.function
    def call(images, training=False):
        # Nothing in a BiT network differs between training and inference.
        del training
        return network(images)["logits"]

    for arguments in ({}, {"training": False}, {"training": True}):
        call.get_concrete_function(images, **arguments)

    @tf.function(input_signature=[images])
    def features(images):
        return network(images)["features"]

    @tf.function(input_signature=[images])
    def serve(images):
        logits = network(images)["logits"]
        return {"logits": logits, **more(logits)}

    @tf.function(input_signature=[images])
    def serve_features(images):
        return {"features": network(images)["features"]}

    @tf.function(input_signature=[])
    def class_names():
        return tf.constant(names)

    def penalty(kernel):
        @tf.function(input_signature=[])
        def loss():
            return weight_decay * tf.nn.l2_loss(kernel)

        return loss

    labels_file = assets / "labels.txt"
    labels_file.write_text("".join(f"{name}\n" for name in names))
    facts_file = assets / "bit_tf.json"
    facts_file.write_text(json.dumps(facts, indent=1) + "\n")

    root = tf.train.Checkpoint()
    root.variables = [v.value for v in model.variables]
    root.trainable_variables = [v.value for v in model.trainable_variables]
    root.regularization_losses = (
        [
            penalty(v.value)
            for v in model.trainable_variables
            if v.path.endswith("kernel")
        ]
        if weight_decay
        else []
    )
    root.__call__ = call
    root.features = features
    root.class_names = class_names
    root.labels_file = tf.saved_model.Asset(str(labels_file))
    root.facts_file = tf.saved_model.Asset(str(facts_file))
    return root, {"serving_default": serve, "features": serve_features}


def _check(path: pathlib.Path, model: keras.Model, crop: int) -> None:
    """Raises unless the file gives the model's own logits."""
    images = np.random.default_rng(0).uniform(size=(2, crop, crop, 3))
    images = images.astype(np.float32)
    wanted = model(images * 2 - 1, training=False).numpy()
    found = tf.saved_model.load(str(path))(images).numpy()
    error = np.abs(found - wanted).max() / max(1e-6, np.abs(wanted).max())
    if not error <= TOLERANCE:
        raise RuntimeError(
            f"the SavedModel's logits differ from the model's by {error:.1e} "
            f"of the largest; at most {TOLERANCE:.0e} is rounding."
        )
