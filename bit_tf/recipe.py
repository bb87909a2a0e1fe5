"""Recipe: one training run as frozen data, with the source of every number."""

import dataclasses
import math
from collections.abc import Mapping
from types import MappingProxyType

HYPERRULE_TRAIN = (
    "decode|resize({resize})|to_uint8|random_crop({crop})|random_flip|"
    "value_range(-1,1)"
)
INCEPTION_TRAIN = (
    "decode_and_inception_crop({crop},{min_crop_area})|to_uint8|random_flip|"
    "value_range(-1,1)"
)
# What is minimised: cross-entropy of one distribution over all classes, for
# images with one label, or of one per class, summed, for images with several;
# or half the squared error, for a number.
LOSSES = ("softmax", "sigmoid", "squared")
# "l2" adds decay * weight to the gradient, so that momentum and rate act on
# it; "decoupled" subtracts decay * weight itself, following the schedule but
# not the rate (Loshchilov & Hutter, arXiv 1711.05101).
WEIGHT_DECAYS = ("l2", "decoupled")
# "kernels" are those of the convolutions and the head; "all" adds scales,
# shifts and the head's bias.
DECAYED = ("kernels", "all")
# Where decay pulls: to zero, or to the weights that the run started with
# (paper, appendix A).
DECAY_TARGETS = ("zero", "start")
# "balanced" weighs a class by the inverse of its number of examples;
# "effective" by that of the effective number (Cui et al., arXiv 1901.05555).
CLASS_WEIGHTS = ("none", "balanced", "effective")
# Parts of the network that can be kept as they are; "all" is all but the head.
FREEZABLE = (
    "root_block",
    "block1",
    "block2",
    "block3",
    "block4",
    "group_norm",
    "all",
)
# Of raw convolution kernels, as Keras names them: the first is what the
# official TF2 code got from Keras, the second what its JAX code got from flax.
INITIALIZERS = ("glorot_uniform", "lecun_normal", "he_normal")
SQUASH_EVAL = "decode|resize({crop})|value_range(-1,1)"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """The numbers of one training run.

    Args:
        name: the rule that made it, e.g. "hyperrule/paper".
        total_steps: optimizer updates in the whole run.
        batch_size: examples per update, over all devices.
        base_lr: learning rate after the warm-up.
        warmup_steps: updates during which the rate grows linearly from 0.
        decay_steps: steps after which the rate is multiplied by
            `decay_factor`, in rising order.
        decay_factor: in (0, 1].
        momentum: in [0, 1).
        loss: one of LOSSES.
        weight_decay: strength; 0 for none.
        weight_decay_kind: one of WEIGHT_DECAYS.
        weight_decay_on: one of DECAYED.
        weight_decay_to: one of DECAY_TARGETS.
        clip_norm: gradients of the loss are shortened to this global norm,
            before weight decay; 0 for never.
        ema_decay: the evaluated and saved weights are a moving average with
            this decay, in [0, 1); 0 for the weights themselves.
        head_bias: where the bias of a new head starts.
        initializer: one of INITIALIZERS.
        mixup_alpha: alpha of Beta(alpha, alpha); 0 for no mixup.
        label_smoothing: share of a label that is spread over all classes, in
            [0, 1).
        class_weights: one of CLASS_WEIGHTS.
        dropout: share of the pre-logits that is dropped in training, [0, 1).
        freeze: parts of the network that are not trained, of FREEZABLE.
        target_mean: of training labels that are numbers; what is learned is
            (label - target_mean) / target_scale.
        target_scale: their standard deviation.
        resize: training images are squashed to this square, pixels; None
            where the preprocessing does not resize first.
        crop: side of the square the network sees, pixels.
        min_crop_area: percent of the image that an Inception crop has at
            least; None where there is none.
        train_template: preprocessing string for training, with {resize},
            {crop} and {min_crop_area} still open.
        eval_template: the same for evaluation.
        sources: field name -> where its value comes from.

    Raises:
        ValueError: a value is out of range; the text names the field.
    """

    name: str
    total_steps: int
    batch_size: int
    base_lr: float
    warmup_steps: int
    decay_steps: tuple[int, ...]
    crop: int
    resize: int | None = None
    min_crop_area: int | None = None
    decay_factor: float = 0.1
    momentum: float = 0.9
    loss: str = "softmax"
    weight_decay: float = 0.0
    weight_decay_kind: str = "l2"
    weight_decay_on: str = "kernels"
    weight_decay_to: str = "zero"
    clip_norm: float = 0.0
    ema_decay: float = 0.0
    head_bias: float = 0.0
    initializer: str = "glorot_uniform"
    mixup_alpha: float = 0.0
    label_smoothing: float = 0.0
    class_weights: str = "none"
    dropout: float = 0.0
    freeze: tuple[str, ...] = ()
    target_mean: float = 0.0
    target_scale: float = 1.0
    train_template: str = HYPERRULE_TRAIN
    eval_template: str = SQUASH_EVAL
    sources: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        object.__setattr__(
            self, "sources", MappingProxyType(dict(self.sources))
        )
        for field in ("total_steps", "batch_size", "crop"):
            _require(
                getattr(self, field) >= 1, field, self, "a whole number >= 1"
            )
        _require(
            math.isfinite(self.base_lr) and self.base_lr > 0,
            "base_lr",
            self,
            "a finite number > 0",
        )
        _require(
            0 <= self.warmup_steps < self.total_steps,
            "warmup_steps",
            self,
            f"from 0 to total_steps - 1 = {self.total_steps - 1}; give "
            "--warmup_steps (or more --total_steps)",
        )
        _require(
            math.isfinite(self.mixup_alpha) and self.mixup_alpha >= 0,
            "mixup_alpha",
            self,
            "0 (no mixup) or a finite number > 0",
        )
        for field in ("weight_decay", "clip_norm"):
            value = getattr(self, field)
            _require(
                math.isfinite(value) and value >= 0,
                field,
                self,
                "0 (none) or a finite number > 0",
            )
        _require(
            0 <= self.ema_decay < 1,
            "ema_decay",
            self,
            "0 (no average) or a number below 1",
        )
        _require(
            math.isfinite(self.head_bias), "head_bias", self, "a finite number"
        )
        for field, names in (
            ("loss", LOSSES),
            ("weight_decay_kind", WEIGHT_DECAYS),
            ("weight_decay_on", DECAYED),
            ("weight_decay_to", DECAY_TARGETS),
            ("class_weights", CLASS_WEIGHTS),
            ("initializer", INITIALIZERS),
        ):
            allowed = " or ".join(names)
            _require(getattr(self, field) in names, field, self, allowed)
        for field in ("label_smoothing", "dropout"):
            _require(
                0 <= getattr(self, field) < 1,
                field,
                self,
                "0 (none) or a number below 1",
            )
        _require(
            not (self.loss == "squared" and self.label_smoothing),
            "label_smoothing",
            self,
            "0 where the label is a number",
        )
        _require(
            set(self.freeze) <= set(FREEZABLE),
            "freeze",
            self,
            f"a list of {', '.join(FREEZABLE)}",
        )
        if self.resize is not None:
            _require(
                self.resize >= self.crop,
                "resize",
                self,
                f"at least crop = {self.crop}",
            )
        if self.min_crop_area is not None:
            _require(
                1 <= self.min_crop_area <= 100,
                "min_crop_area",
                self,
                "1 to 100 percent",
            )

    @property
    def train_preprocessing(self) -> str:
        return self._filled(self.train_template)

    @property
    def eval_preprocessing(self) -> str:
        return self._filled(self.eval_template)

    def _filled(self, template: str) -> str:
        return template.format(
            resize=self.resize,
            crop=self.crop,
            min_crop_area=self.min_crop_area,
        )

    def to_dict(self) -> dict:
        """Returns the recipe as plain JSON types, sources included."""
        values = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
        }
        values["decay_steps"] = list(self.decay_steps)
        values["freeze"] = list(self.freeze)
        values["sources"] = dict(self.sources)
        values["train_preprocessing"] = self.train_preprocessing
        values["eval_preprocessing"] = self.eval_preprocessing
        return values


def _require(holds: bool, field: str, recipe: Recipe, allowed: str) -> None:
    if not holds:
        raise ValueError(
            f"{field}={getattr(recipe, field)!r} is not possible with recipe "
            f"{recipe.name}: allowed is {allowed}."
        )


def table(recipe: Recipe) -> str:
    """Returns the resolved recipe as text, one "field value source" a line."""
    shown = [
        "total_steps",
        "batch_size",
        "base_lr",
        "warmup_steps",
        "decay_steps",
        "decay_factor",
        "momentum",
        "loss",
        "weight_decay",
        "weight_decay_kind",
        "weight_decay_on",
        "weight_decay_to",
        "clip_norm",
        "ema_decay",
        "head_bias",
        "initializer",
        "mixup_alpha",
        "label_smoothing",
        "class_weights",
        "dropout",
        "freeze",
        "resize",
        "crop",
        "min_crop_area",
    ]
    rows = []
    for field in shown:
        value = getattr(recipe, field)
        if value is None or field not in recipe.sources:
            continue
        if isinstance(value, tuple):
            value = ", ".join(map(str, value))
        elif isinstance(value, float):
            value = f"{value:.6g}"
        rows.append((field, str(value), recipe.sources[field]))
    wide = max(len(value) for _, value, _ in rows)
    name = max(13, max(len(field) for field, _, _ in rows))
    lines = [f"recipe {recipe.name}"]
    lines += [f"  {f:<{name}} {v:<{wide}}  {s}".rstrip() for f, v, s in rows]
    lines.append(f"  {'train':<{name}} {recipe.train_preprocessing}")
    lines.append(f"  {'evaluation':<{name}} {recipe.eval_preprocessing}")
    return "\n".join(lines)
