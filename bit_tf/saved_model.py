"""The TF-Hub reusable SavedModel: a file that outlives this code."""

import json
import pathlib
import tempfile

import numpy as np
import tensorflow as tf

from bit_tf import exportable as exportable_lib
from bit_tf import model_card
from bit_tf import serving
from bit_tf import warmup
from bit_tf import workdir as workdir_lib

# Float32 logits before and after; graph rewrites reorder a few sums.
TOLERANCE = 1e-4
FORMS = ("fine_tunable", "inference")


def write(
    path: pathlib.Path,
    exportable: exportable_lib.Exportable,
    *,
    form: str = "fine_tunable",
) -> None:
    """Writes a classifier, or a feature vector, that does not need bit_tf.

    The root object follows the Reusable SavedModel interface of TF-Hub:
    root(images, training=False) -> logits, or features without a head;
    `variables`, `trainable_variables`, `regularization_losses`. Further
    `features(images)`, `preprocess(image_bytes)`, `class_names()`, and `serve`
    and `serve_training` for Keras 3's TFSMLayer. Images are float32 RGB in
    [0, 1], (B, H, W, 3) with any B, H and W.

    Signatures: "serving_default" of `image_bytes`, (N,) strings;
    "image_tensor" and "features" of `images`; see `serving.reusable`.

    Beside it: assets/labels.txt, assets/bit_tf.json, README.md (a model card)
    and requests that warm TensorFlow Serving up.

    Args:
        path: directory, replaced if it is there, complete or untouched.
        exportable: what to write.
        form: one of FORMS: with raw kernels, or with kernels that are
            standardised now, which computes less and cannot be trained.

    Raises:
        ValueError: an unknown form.
        RuntimeError: the file read back gives other numbers.
    """
    if form not in FORMS:
        raise ValueError(f"form={form!r}: allowed are {', '.join(FORMS)}.")
    facts = exportable.facts(form=form)
    root, signatures = serving.reusable(
        exportable.model,
        class_names=exportable.class_names,
        head=exportable.head,
        preprocess=exportable.unit_preprocessing,
        size=exportable.crop,
        inference=form == "inference",
        weight_decay=exportable.weight_decay,
    )
    pictures = exportable_lib.pictures(exportable.crop)
    with tempfile.TemporaryDirectory() as assets:
        labels_file = pathlib.Path(assets, "labels.txt")
        labels_file.write_text(
            "".join(f"{name}\n" for name in exportable.class_names)
        )
        facts_file = pathlib.Path(assets, "bit_tf.json")
        facts_file.write_text(json.dumps(facts, indent=1) + "\n")
        root.labels_file = tf.saved_model.Asset(str(labels_file))
        root.facts_file = tf.saved_model.Asset(str(facts_file))

        def save_and_check(temporary):
            tf.saved_model.save(root, str(temporary), signatures=signatures)
            (temporary / "README.md").write_text(model_card.write(facts))
            warmup.write(temporary, pictures)
            _check(temporary, exportable, pictures)

        workdir_lib.write_directory(path, save_and_check)


def _check(
    path: pathlib.Path,
    exportable: exportable_lib.Exportable,
    pictures: list[bytes],
) -> None:
    """Raises unless the file gives the model's own numbers, either way in."""
    loaded = tf.saved_model.load(str(path))
    images = loaded.preprocess(tf.constant(pictures))
    wanted = exportable.model(images * 2 - 1, training=False).numpy()
    served = loaded.signatures["serving_default"](
        image_bytes=tf.constant(pictures)
    )
    for found in (loaded(images), served[exportable.output]):
        difference = np.abs(found.numpy() - wanted).max()
        error = difference / max(1e-6, np.abs(wanted).max())
        if not error <= TOLERANCE:
            raise RuntimeError(
                f"the SavedModel's outputs differ from the model's by "
                f"{error:.1e} of the largest; at most {TOLERANCE:.0e} is "
                "rounding."
            )
