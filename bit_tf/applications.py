"""The six released networks for notebooks, in the habit of keras.applications.

model = bit_tf.BiT_R50x1()
scores = model.predict(images)  # RGB in [0, 255]
bit_tf.decode_predictions(scores, top=3)
"""

import os
import pathlib
from collections.abc import Callable

import numpy as np

from bit_tf import architecture as architecture_lib
from bit_tf import labels
from bit_tf import pretrained
from bit_tf import resnet_v2
from bit_tf import weights as weights_lib
from bit_tf import weights_file
from bit_tf import zoo

# What keras.applications calls its weights -> the published ones.
_ALIASES = {
    "imagenet": "BiT-M-{architecture}-ILSVRC2012",
    "imagenet21k": "BiT-M-{architecture}",
}
_DOC = """Builds the {architecture}, by default with weights for ILSVRC-2012.

    Input: (B, H, W, 3) RGB in [0, 255]; without preprocessing in [-1, 1].

    Args:
        include_top: whether to have the classifier.
        weights: "imagenet" for BiT-M fine-tuned on ILSVRC-2012, "imagenet21k"
            for BiT-M as pre-trained, a published name of this architecture, or
            a file of any format that bit_tf.convert reads. None for fresh
            weights. What is not on this machine is fetched, from
            $BIT_TF_MIRROR if that is set, to $KERAS_HOME/models/bit_tf.
        classes: outputs of the classifier; None for those of the weights, or
            1000. Another number than theirs gets a new classifier of zeros.
        pooling: without the classifier: None for the last map
            (B, H/32, W/32, {features}), "avg" or "max" for
            (B, {features}).
        classifier_activation: as Keras names it; None for logits; "auto" for
            what the weights were trained with: sigmoid for "imagenet21k",
            whose images have several labels, softmax for all others.
        include_preprocessing: whether the input is in [0, 255]; otherwise it
            has been through `preprocess_input`.
        input_shape: (height, width, 3); None for images of any size.
        name: of the model.

    Returns:
        A keras.Model, with `endpoints` and `pyramid_outputs`.

    Raises:
        ValueError: an argument is not one of these, or the weights are not
            of this architecture or cannot be fetched.
    """


def _application(architecture: str) -> Callable[..., resnet_v2.ResNetV2]:
    def build(
        *,
        include_top: bool = True,
        weights: str | os.PathLike | None = "imagenet",
        classes: int | None = None,
        pooling: str | None = None,
        classifier_activation: str | None = "auto",
        include_preprocessing: bool = True,
        input_shape: tuple[int | None, int | None, int] | None = None,
        name: str = f"BiT_{architecture}",
    ) -> resnet_v2.ResNetV2:
        if include_top and pooling not in (None, "avg"):
            raise ValueError(
                f"pooling={pooling!r} is for include_top=False: the "
                "classifier follows an average."
            )
        if not include_top and classes is not None:
            raise ValueError(
                f"classes={classes} is for include_top=True: there is no "
                "classifier without it."
            )
        path, entry, stored_classes = _find(weights, architecture)
        if classifier_activation == "auto":
            classifier_activation = entry.head if entry else "softmax"
        if include_top:
            classes = classes or stored_classes or 1000
        depth, width = architecture_lib.parse_name(architecture)
        model = resnet_v2.ResNetV2(
            depth=depth,
            width=width,
            num_classes=classes,
            pooling="avg" if include_top else pooling,
            classifier_activation=classifier_activation,
            include_preprocessing=include_preprocessing,
            input_shape=input_shape or (None, None, 3),
            seed=0 if path is None else None,
            name=name,
        )
        if path is not None:
            remark = weights_lib.load(path, model)
            if remark:
                print(remark)
        return model

    build.__name__ = build.__qualname__ = f"BiT_{architecture}"
    _, width = architecture_lib.parse_name(architecture)
    build.__doc__ = _DOC.format(
        architecture=architecture,
        features=int(32 * architecture_lib.BASE_CHANNELS * width),
    )
    return build


def _find(
    weights: str | os.PathLike | None, architecture: str
) -> tuple[pathlib.Path | None, zoo.Entry | None, int | None]:
    """Returns file, what is published of it, and its classes."""
    if weights is None:
        return None, None, None
    source = os.fspath(weights)
    source = _ALIASES.get(source, source).format(architecture=architecture)
    path = pretrained.resolve(
        source,
        cache=pretrained.cache_directory(os.environ),
        mirror=os.environ.get(pretrained.MIRROR_VARIABLE),
    )
    with weights_file.opened(path, expected=architecture) as stored:
        classes = stored.num_classes
    entry = zoo.by_file(path, architecture=architecture, num_classes=classes)
    return path, entry, classes


BiT_R50x1 = _application("R50x1")
BiT_R101x1 = _application("R101x1")
BiT_R50x3 = _application("R50x3")
BiT_R101x3 = _application("R101x3")
BiT_R152x2 = _application("R152x2")
BiT_R152x4 = _application("R152x4")


def preprocess_input(x):
    """Scales images for models with include_preprocessing=False.

    Args:
        x: RGB in [0, 255], any shape and dtype, array or tensor.

    Returns:
        The same shape, floating point in [-1, 1]: (x - 127.5) / 127.5.
    """
    if isinstance(x, np.ndarray | list):
        x = np.asarray(x)
        if not np.issubdtype(x.dtype, np.floating):
            x = x.astype(np.float32)
        return (x - 127.5) / 127.5
    from keras import ops

    if not ops.is_tensor(x):
        raise ValueError(f"x is a {type(x).__name__}: give images.")
    if "float" not in str(x.dtype):
        x = ops.cast(x, "float32")
    return (x - 127.5) / 127.5


def decode_predictions(
    preds, top: int = 5
) -> list[list[tuple[str, str, float]]]:
    """Names the classes with the highest scores.

    Args:
        preds: (B, 1000) for ILSVRC-2012 or (B, 21843) for ImageNet-21k;
            probabilities or logits.
        top: how many classes per image.

    Returns:
        Per image, best first: (WordNet id, names, score).

    Raises:
        ValueError: another number of classes, or of classes asked for.
    """
    preds = np.asarray(preds)
    by_count = {1000: "ilsvrc2012", 21843: "imagenet21k"}
    if preds.ndim != 2 or preds.shape[1] not in by_count:
        raise ValueError(
            f"predictions of shape {preds.shape}: allowed are (images, 1000) "
            "for ILSVRC-2012 and (images, 21843) for ImageNet-21k."
        )
    if not 1 <= top <= preds.shape[1]:
        raise ValueError(f"top={top}: allowed are 1 to {preds.shape[1]}.")
    synsets = labels.synsets(by_count[preds.shape[1]])
    return [
        [(*synsets[i], float(row[i])) for i in np.argsort(-row)[:top]]
        for row in preds
    ]
