"""A trained model, wherever it comes from: encoded images -> outputs."""

import dataclasses
import functools
import json
import pathlib
import re
from collections.abc import Callable
from collections.abc import Sequence

import keras
import tensorflow as tf

from bit_tf import architecture
from bit_tf import image_file
from bit_tf import preprocessing
from bit_tf import resnet_v2
from bit_tf import weights
from bit_tf import weights_file
from bit_tf import workdir as workdir_lib
from bit_tf import zoo

FACTS = "bit_tf.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Classifier:
    """What is needed to classify images, and to say what came out.

    Args:
        about: the model in words.
        class_names: one per output.
        head: "softmax" if an image has one class, "sigmoid" if several,
            "squared" if the output is a number.
        crop: side of the images it takes, pixels.
        num_features: of the pre-logits.
        preprocess_text: see `preprocessing.parse`; encoded image -> (crop,
            crop, 3).
        logits: (B, crop, crop, 3) -> (B, outputs).
        features: (B, crop, crop, 3) -> (B, features), the pre-logits.
    """

    about: str
    class_names: Sequence[str]
    head: str
    crop: int
    num_features: int
    preprocess_text: str
    logits: Callable[[tf.Tensor], tf.Tensor]
    features: Callable[[tf.Tensor], tf.Tensor]

    def __post_init__(self):
        operation = preprocessing.parse(self.preprocess_text)

        @functools.partial(
            tf.function,
            input_signature=[tf.TensorSpec((), tf.string)],
            autograph=False,
        )
        def preprocess(content):
            image = operation(content, tf.zeros((2,), tf.int64))
            return tf.ensure_shape(image, (self.crop, self.crop, 3))

        # Traced here once, and not by every thread that comes first.
        preprocess = preprocess.get_concrete_function()
        object.__setattr__(self, "_preprocess", preprocess)

    def read(
        self, source: image_file.Source, reading: image_file.Reading
    ) -> tf.Tensor | str:
        """Returns an image ready for the network, or what is wrong with it.

        May be called by several threads at once.
        """
        info = image_file.inspect(source, reading, decode=False)
        if isinstance(info, str):
            return info
        try:
            content = image_file.read(source, apply_exif=reading.apply_exif)
            return self._preprocess(tf.constant(content))
        except Exception as error:
            # Decoders raise whatever comes to them on damaged files.
            return _short(error)


def _short(error: Exception) -> str:
    """Returns what TensorFlow or Pillow says of a damaged image."""
    text = getattr(error, "message", None) or str(error)
    return " ".join(text.splitlines()[0].split())[:80] or type(error).__name__


def with_exif(classifier: Classifier, *, apply_exif: bool) -> Classifier:
    """Returns the model for images that are turned as cameras noted, or not.

    What it was trained with does not matter: it is a matter of the images.
    """
    first, bar, rest = classifier.preprocess_text.partition("|")
    if first in ("decode", "decode(0)", "decode(1)"):
        first = "decode" if apply_exif else "decode(0)"
    return dataclasses.replace(
        classifier, preprocess_text=f"{first}{bar}{rest}"
    )


def with_preprocessing(classifier: Classifier, text: str) -> Classifier:
    """Returns the model with other preprocessing.

    Args:
        classifier: the model.
        text: see `preprocessing.parse`, of an encoded image, without the
            range of values, which the model knows.

    Raises:
        ValueError: it makes no square image of a size that is known.
    """
    values = classifier.preprocess_text.rpartition("|")[2]
    text = f"{text}|{values}"
    sizes = re.findall(r"(?:resize|central_crop)\((\d+)\)", text)
    if not sizes:
        raise ValueError(
            f"preprocessing {text!r} leaves images of any size: end it with "
            "resize(SIZE) or central_crop(SIZE)."
        )
    return dataclasses.replace(
        classifier, preprocess_text=text, crop=int(sizes[-1])
    )


def load(
    path: str | pathlib.Path, *, image_size: int | None = None
) -> Classifier:
    """Loads a run, a SavedModel of this package, or a weights file.

    Args:
        path: the run's workdir, the SavedModel's directory, or see
            `weights_file.opened`.
        image_size: side to resize images to, pixels; None for what belongs to
            the model.

    Raises:
        ValueError: it is none of them, or has no head.
    """
    path = pathlib.Path(path)
    if (path / "recipe.json").is_file():
        return _of_run(workdir_lib.Workdir(path), image_size)
    if (path / "saved_model.pb").is_file():
        return _of_saved_model(path, image_size)
    if path.name == "weights.npz" and (path.parent / "recipe.json").is_file():
        # Of a run, which knows more than its weights say.
        return _of_run(workdir_lib.Workdir(path.parent), image_size)
    return _of_weights(path, image_size)


def _of_run(workdir: workdir_lib.Workdir, image_size: int | None) -> Classifier:
    run = workdir.read_recipe()
    if not workdir.weights.is_file():
        raise ValueError(
            f"the run in {workdir.path} has not ended: it has no weights.npz. "
            "Continue it with the flags in its run.flags."
        )
    text = run["eval_preprocessing"]
    return _of_network(
        workdir.weights,
        run["model"],
        run["class_names"],
        head=run["loss"],
        crop=image_size or run["crop"],
        text=_resized(text, run["crop"], image_size),
        about=f"{run['model']} of {workdir.path}",
    )


def _of_weights(path: pathlib.Path, image_size: int | None) -> Classifier:
    with weights_file.opened(path) as stored:
        name, num_classes = stored.architecture, stored.num_classes
    if num_classes is None:
        raise ValueError(
            f"weights file {path} has no head: there is nothing to classify "
            "with. Fine-tune it first."
        )
    entry = zoo.by_file(path, architecture=name, num_classes=num_classes)
    crop = image_size or (entry.resolution if entry else zoo.DEFAULT_RESOLUTION)
    return _of_network(
        path,
        name,
        zoo.class_names(entry, num_classes),
        head=entry.head if entry else "softmax",
        crop=crop,
        text=f"decode|resize({crop})|value_range(-1,1)",
        about=f"{entry.name if entry else name} of {path.name}",
    )


def _of_network(
    path, name, class_names, *, head, crop, text, about
) -> Classifier:
    model = resnet_v2.build(name, len(class_names), seed=None, dtype="float32")
    weights.load(path, model)
    features = keras.Model(model.input, model.endpoints["pre_logits"])
    return Classifier(
        about=f"{about}, {model.count_params():,} parameters",
        class_names=class_names,
        head=head,
        crop=crop,
        num_features=architecture.num_features(model.width),
        preprocess_text=text,
        logits=tf.function(
            lambda images: model(images, training=False), autograph=False
        ),
        features=tf.function(
            lambda images: features(images, training=False), autograph=False
        ),
    )


def _of_saved_model(path: pathlib.Path, image_size: int | None) -> Classifier:
    try:
        facts = json.loads((path / "assets" / FACTS).read_text())
        crop, head = facts["image_size"], facts["head"]
        text, names = facts["preprocessing"], facts["class_names"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is not a SavedModel of this package: its assets/{FACTS} "
            f"is missing or lacks {error}."
        ) from error
    if head is None:
        raise ValueError(
            f"{path} is a feature vector: there is nothing to classify with."
        )
    _, width = architecture.parse_name(facts["architecture"])
    root = tf.saved_model.load(str(path))
    return Classifier(
        about=f"{facts['architecture']} of {path}",
        class_names=names,
        head=head,
        crop=image_size or crop,
        num_features=architecture.num_features(width),
        preprocess_text=_resized(text, crop, image_size),
        logits=root,
        features=root.features,
    )


def _resized(text: str, crop: int, image_size: int | None) -> str:
    """Returns preprocessing for another size than the model's own."""
    if image_size is None:
        return text
    return text.replace(f"resize({crop})", f"resize({image_size})")
