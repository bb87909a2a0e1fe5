"""A model and all that is told with it, whatever the file it goes into."""

import dataclasses
import json
import pathlib
import re
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

import bit_tf
from bit_tf import preprocessing
from bit_tf import resnet_v2
from bit_tf import weights
from bit_tf import weights_file
from bit_tf import workdir as workdir_lib
from bit_tf import zoo

PUBLISHED_LICENSE = "apache-2.0"
# What hubs call a licence that they do not know.
OTHER_LICENSE = "other"
_RANGE = preprocessing.OWN_RANGE
_OUTPUTS = {
    "softmax": "logits; softmax gives probabilities",
    "sigmoid": "logits; sigmoid gives probabilities",
    "squared": "the number itself",
    None: "features, before any head",
}
# Of a recipe, what is told of a run.
_TOLD = ("name", "total_steps", "batch_size", "base_lr", "mixup_alpha", "data")
_SCORES = ("top1", "map", "mae", "r2")


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Exportable:
    """What is written.

    Args:
        model: float32, outside any strategy's scope.
        class_names: one per output; none for a network without a head.
        crop: image side the model was evaluated at, pixels; told, not forced.
        head: "softmax" if an image has one class, "sigmoid" if several: what
            makes probabilities of the logits; "squared" if the output is a
            number.
        preprocessing: of an encoded image, see `preprocessing.parse`; None
            for squashing it to `crop`.
        weight_decay: it was trained with; 0 for none.
        training: what to tell about the run, JSON types.
        source: the file of the weights, or their published name.
        sha256: of that file.
        license: as model hubs name it, such as apache-2.0.

    Raises:
        ValueError: names and outputs do not match in number, the licence is
            not such a name, or images would come in another range.
    """

    model: resnet_v2.ResNetV2
    class_names: Sequence[str]
    crop: int
    head: str = "softmax"
    preprocessing: str | None = None
    weight_decay: float = 0.0
    training: dict = dataclasses.field(default_factory=dict)
    source: str = "memory"
    sha256: str = ""
    license: str = OTHER_LICENSE

    def __post_init__(self):
        check_names(self.class_names, self.model.num_classes or 0)
        if not re.fullmatch(r"[\w.+-]+", self.license):
            raise ValueError(
                f"license={self.license!r}: give it as model hubs name it, "
                "such as apache-2.0, cc-by-4.0 or other."
            )
        if not (self.preprocessing or _RANGE).endswith(_RANGE):
            raise ValueError(
                f"preprocessing={self.preprocessing!r}: it has to end with "
                f"{_RANGE}, the range that the network knows."
            )

    @property
    def has_head(self) -> bool:
        return self.model.num_classes is not None

    @property
    def output(self) -> str:
        """What the network's output is called."""
        if not self.has_head:
            return "features"
        return "numbers" if self.head == "squared" else "logits"

    @property
    def unit_preprocessing(self) -> str:
        """Encoded image -> (crop, crop, 3) in [0, 1], see `preprocessing`."""
        text = self.preprocessing or f"decode|resize({self.crop}){_RANGE}"
        return f"{text.removesuffix(_RANGE)}|value_range(0,1)"

    def facts(self, **more) -> dict:
        """Returns what bit_tf.json says of it, JSON types."""
        head = self.head if self.has_head else None
        return {
            "architecture": f"R{self.model.depth}x{self.model.width:g}",
            "bit_tf_version": bit_tf.__version__,
            "class_names": list(self.class_names),
            "input": "float32 RGB in [0, 1], (batch, height, width, 3)",
            "image_size": self.crop,
            "resize": "squash to image_size x image_size, bilinear",
            "preprocessing": self.unit_preprocessing,
            "head": head,
            "output": _OUTPUTS[head],
            "weights": {"source": self.source, "sha256": self.sha256},
            "license": self.license,
            "training": self.training,
            **more,
        }


def of_run(
    workdir: workdir_lib.Workdir, *, license: str | None = None
) -> Exportable:
    """Returns the final model of a run, on one device.

    Args:
        workdir: of a run that has ended.
        license: of the weights; None where it is not known.

    Raises:
        ValueError: the run is not there or has not ended.
    """
    run = workdir.read_recipe()
    if not workdir.weights.is_file():
        raise ValueError(
            f"the run in {workdir.path} has not ended: it has no weights.npz. "
            "Continue it with the flags in its run.flags."
        )
    training = {key: run[key] for key in _TOLD}
    training["init_from"] = run["init_from"]
    if workdir.evaluation.is_file():
        found = json.loads(workdir.evaluation.read_text())
        training |= {name: found[name] for name in _SCORES if name in found}
    model = resnet_v2.build(
        run["model"], run["num_classes"], seed=None, dtype="float32"
    )
    weights.load(workdir.weights, model)
    return Exportable(
        model=model,
        class_names=run["class_names"],
        crop=run["crop"],
        head=run["loss"],
        preprocessing=run["eval_preprocessing"],
        weight_decay=run["weight_decay"],
        training=training,
        source=f"{workdir.weights.name} of a run",
        sha256=workdir_lib.sha256(workdir.weights),
        license=license or OTHER_LICENSE,
    )


def of_weights(
    source: pathlib.Path,
    *,
    class_names: Sequence[str] | None = None,
    image_size: int | None = None,
    license: str | None = None,
) -> Exportable:
    """Returns the model of a weights file, on one device.

    Architecture, width and classes are read from its tensors; what is known
    of a published file is taken by its name.

    Args:
        source: see `weights_file.opened`.
        class_names: one per class; None for the published order, or numbers.
        image_size: side to resize to, pixels; None for that of the published
            file, or 224.
        license: of the weights; None for that of the authors' files, and
            OTHER_LICENSE for all others.

    Raises:
        ValueError: the file cannot be used, or has another number of classes.
    """
    with weights_file.opened(source) as stored:
        name, num_classes = stored.architecture, stored.num_classes
    entry = zoo.by_file(source, architecture=name, num_classes=num_classes)
    if class_names is None:
        class_names = zoo.class_names(entry, num_classes) if num_classes else ()
    check_names(class_names, num_classes or 0)
    model = resnet_v2.build(name, num_classes, seed=None, dtype="float32")
    weights.load(source, model)
    return Exportable(
        model=model,
        class_names=class_names,
        crop=image_size
        or (entry.resolution if entry else zoo.DEFAULT_RESOLUTION),
        head=entry.head if entry else "softmax",
        training={"weights": entry.name if entry else source.name},
        source=entry.name if entry else source.name,
        sha256=workdir_lib.sha256(source) if source.is_file() else "",
        license=license
        or (
            PUBLISHED_LICENSE
            if entry and not entry.is_shipped
            else OTHER_LICENSE
        ),
    )


def without_head(exportable: Exportable) -> Exportable:
    """Returns the same network as a feature vector."""
    own = exportable.model
    if own.num_classes is None:
        return exportable
    model = resnet_v2.build(own.name, None, seed=None, dtype="float32")
    values = {v.path: v for v in own.variables}
    for variable in model.variables:
        variable.assign(values[variable.path])
    return dataclasses.replace(exportable, model=model, class_names=())


def check_names(class_names: Sequence[str], num_classes: int) -> None:
    """Raises ValueError unless there is a name for each output."""
    if len(class_names) != num_classes:
        raise ValueError(
            f"{len(class_names)} class names for {num_classes} outputs: give "
            "one name per output."
        )


def pictures(crop: int) -> list[bytes]:
    """Returns two encoded pictures to try a model with, one of an odd size."""
    random = np.random.default_rng(0)
    found = []
    for encode, height, width in (
        (tf.io.encode_jpeg, crop, crop),
        (tf.io.encode_png, crop // 2 + 3, crop + 5),
    ):
        # Blots, as noise would make the largest file there is.
        coarse = random.integers(0, 256, (6, 6, 3))
        pixels = tf.image.resize(coarse, (height, width), "bicubic")
        found.append(encode(tf.saturate_cast(pixels, tf.uint8)).numpy())
    return found
