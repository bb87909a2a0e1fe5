"""The flags of a recipe. One that is left out is the recipe's own."""

import dataclasses

import numpy as np
from absl import flags

from bit_tf import examples as examples_lib
from bit_tf import hyperrule
from bit_tf import overrides
from bit_tf import recipe as recipe_lib
from bit_tf import tasks

MAX_INTEGER = 2**31 - 1
NUMBER_CLIP_NORM = 1.0

HYPERRULE = flags.DEFINE_enum(
    "hyperrule",
    "paper",
    list(hyperrule.READINGS),
    "Which reading of the HyperRule: the paper's, or that of the authors' "
    "code.",
)
RESIZE = flags.DEFINE_integer(
    "resize",
    None,
    "Pixels. Default: the recipe decides.",
    lower_bound=1,
    upper_bound=MAX_INTEGER,
)
CROP = flags.DEFINE_integer(
    "crop",
    None,
    "Pixels. Default: the recipe decides.",
    lower_bound=1,
    upper_bound=MAX_INTEGER,
)
MIN_CROP_AREA = flags.DEFINE_integer(
    "min_crop_area",
    None,
    "Percent of the image that a crop has at least, where crops are of all "
    "sizes, as upstream: 5 by default. With few passes over small images more "
    "is learnt from larger ones.",
    lower_bound=1,
    upper_bound=100,
)
BATCH_SIZE = flags.DEFINE_integer(
    "batch_size",
    None,
    "Examples per step, over all devices. Default: the recipe decides.",
    lower_bound=1,
    upper_bound=MAX_INTEGER,
)
SCALE_WITH_BATCH = flags.DEFINE_bool(
    "scale_with_batch",
    False,
    "Scale learning rate and steps with --batch_size, so that as many "
    "examples are seen as the recipe says.",
)
BASE_LR = flags.DEFINE_float(
    "base_lr", None, "Learning rate. Default: the recipe decides."
)
TOTAL_STEPS = flags.DEFINE_integer(
    "total_steps",
    None,
    "Updates; warm-up and decay are stretched with them. Default: the recipe "
    "decides.",
    lower_bound=1,
    upper_bound=MAX_INTEGER,
)
WARMUP_STEPS = flags.DEFINE_integer(
    "warmup_steps",
    None,
    "Updates with a growing rate. Default: the recipe decides.",
    lower_bound=0,
    upper_bound=MAX_INTEGER,
)
MIXUP_ALPHA = flags.DEFINE_float(
    "mixup_alpha", None, "0 for no mixup. Default: the recipe decides."
)
LOSS = flags.DEFINE_enum(
    "loss",
    None,
    list(recipe_lib.LOSSES),
    "softmax for one label per image, sigmoid for several, squared for a "
    "number. Default: the recipe decides, or the labels.",
)
WEIGHT_DECAY = flags.DEFINE_float(
    "weight_decay", None, "0 for none. Default: the recipe decides."
)
WEIGHT_DECAY_KIND = flags.DEFINE_enum(
    "weight_decay_kind",
    None,
    list(recipe_lib.WEIGHT_DECAYS),
    "l2: added to the gradient. decoupled: subtracted from the weight, along "
    "the schedule. Default: the recipe decides.",
)
WEIGHT_DECAY_ON = flags.DEFINE_enum(
    "weight_decay_on",
    None,
    list(recipe_lib.DECAYED),
    "Which weights decay. Default: the recipe decides.",
)
WEIGHT_DECAY_TO = flags.DEFINE_enum(
    "weight_decay_to",
    None,
    list(recipe_lib.DECAY_TARGETS),
    "Where decay pulls the weights: to zero, or to where they started. "
    "Default: the recipe decides.",
)
LABEL_SMOOTHING = flags.DEFINE_float(
    "label_smoothing",
    None,
    "Share of each label that is spread over all classes. Default: the recipe "
    "decides.",
)
CLASS_WEIGHTS = flags.DEFINE_enum(
    "class_weights",
    None,
    list(recipe_lib.CLASS_WEIGHTS),
    "How much more the examples of rare classes weigh: balanced, all classes "
    "alike; effective, less than that. Default: the recipe decides.",
)
DROPOUT = flags.DEFINE_float(
    "dropout",
    None,
    "Share of the pre-logits that is dropped in training. Default: the recipe "
    "decides.",
)
FREEZE = flags.DEFINE_list(
    "freeze",
    None,
    "Parts of the network that are not trained, of "
    f"{', '.join(recipe_lib.FREEZABLE)}; all is all but the head. Default: "
    "none.",
)
CLIP_NORM = flags.DEFINE_float(
    "clip_norm",
    None,
    "Shorten the gradient of the batch to this norm; 0 for never. Default: the "
    "recipe decides.",
)
EMA_DECAY = flags.DEFINE_float(
    "ema_decay",
    None,
    "Evaluate and save a moving average of the weights with this decay, such "
    "as 0.9999; 0 for none. Default: the recipe decides.",
)
HEAD_BIAS = flags.DEFINE_float(
    "head_bias",
    None,
    "Where the bias of a new head starts; big_vision pre-trains with -10 for "
    "--loss=sigmoid. Default: 0.",
)
INITIALIZER = flags.DEFINE_enum(
    "initializer",
    None,
    list(recipe_lib.INITIALIZERS),
    "Of fresh kernels. Default: the recipe decides.",
)
RANDOM_FLIP = flags.DEFINE_bool(
    "random_flip",
    True,
    "Mirror training images at random. Switch it off where left and right "
    "matter.",
)
RANDOM_CROP = flags.DEFINE_bool(
    "random_crop",
    True,
    "Cut training images at random. Switch it off where the place in the "
    "picture or the number of things matters.",
)


def hyperrule_of(
    train: examples_lib.Images, model_name: str
) -> recipe_lib.Recipe:
    """Returns the rule's recipe for these images."""
    height, width = train.typical_size()
    return hyperrule.recipe(
        num_examples=len(train),
        image_height=height,
        image_width=width,
        model=model_name,
        reading=HYPERRULE.value,
    )


def resolve(
    recipe: recipe_lib.Recipe,
    train: examples_lib.Images,
    *,
    batch_size: int | None = None,
    task: tasks.Task | None = None,
    apply_exif: bool = True,
) -> recipe_lib.Recipe:
    """Returns a recipe with what the flags and the labels decide otherwise.

    Args:
        recipe: what holds otherwise.
        train: what is trained on.
        batch_size: see `overrides.override`; None where the recipe has it.
        task: what else may switch off flips and crops.
        apply_exif: see `overrides.override`.

    Raises:
        ValueError: numbers that are not possible, or another kind of labels
            than the loss is for.
    """
    recipe = overrides.override(
        recipe,
        batch_size=batch_size,
        scale_with_batch=SCALE_WITH_BATCH.value,
        base_lr=BASE_LR.value,
        total_steps=TOTAL_STEPS.value,
        warmup_steps=WARMUP_STEPS.value,
        mixup_alpha=MIXUP_ALPHA.value,
        loss=LOSS.value,
        weight_decay=WEIGHT_DECAY.value,
        weight_decay_kind=WEIGHT_DECAY_KIND.value,
        weight_decay_on=WEIGHT_DECAY_ON.value,
        weight_decay_to=WEIGHT_DECAY_TO.value,
        label_smoothing=LABEL_SMOOTHING.value,
        class_weights=CLASS_WEIGHTS.value,
        dropout=DROPOUT.value,
        freeze=FREEZE.value,
        clip_norm=CLIP_NORM.value,
        ema_decay=EMA_DECAY.value,
        head_bias=HEAD_BIAS.value,
        initializer=INITIALIZER.value,
        resize=RESIZE.value,
        crop=CROP.value,
        min_crop_area=MIN_CROP_AREA.value,
        random_flip=RANDOM_FLIP.value and (not task or task.random_flip),
        random_crop=RANDOM_CROP.value and (not task or task.random_crop),
        pixel_scale=task.pixel_scale if task else 1,
        apply_exif=apply_exif,
    )
    recipe = _with_labels(recipe, train)
    _check_loss(train, recipe)
    for flag in (WEIGHT_DECAY_KIND, WEIGHT_DECAY_ON, WEIGHT_DECAY_TO):
        if flag.value is not None and not recipe.weight_decay:
            raise ValueError(
                f"--{flag.name}={flag.value} does nothing where no weight "
                "decays, as in this recipe: drop it, or give --weight_decay."
            )
    return recipe


def _with_labels(
    recipe: recipe_lib.Recipe, train: examples_lib.Images
) -> recipe_lib.Recipe:
    """Returns the recipe with what the labels decide."""
    changes, source = {}, "one number per image"
    if getattr(train, "is_number", False):
        changes = {
            "loss": "squared",
            "target_mean": float(train.labels.mean(dtype=np.float64)),
            # Of numbers that are all the same there is none.
            "target_scale": float(train.labels.std(dtype=np.float64)) or 1.0,
        }
        if CLIP_NORM.value is None:
            # A squared error has no bound, nor has its gradient.
            changes["clip_norm"] = NUMBER_CLIP_NORM
    elif train.is_multi_label:
        changes, source = {"loss": "sigmoid"}, "several labels per image"
    if LOSS.value is not None:
        changes.pop("loss", None)
    if recipe.loss == changes.get("loss"):
        return recipe
    sources = {**recipe.sources, **dict.fromkeys(changes, source)}
    return dataclasses.replace(recipe, **changes, sources=sources)


def _check_loss(train: examples_lib.Images, recipe: recipe_lib.Recipe) -> None:
    """Raises ValueError if the labels are of another kind than the loss's."""
    is_number = getattr(train, "is_number", False)
    if train.is_multi_label and recipe.loss != "sigmoid":
        raise ValueError(
            f"loss {recipe.loss} has one label per image, and these have "
            "several: drop --loss, or give --loss=sigmoid."
        )
    if is_number != (recipe.loss == "squared"):
        raise ValueError(
            f"loss {recipe.loss} is not for these labels: --loss=squared is "
            "for --target=number, and nothing else is."
        )
    if recipe.class_weights != "none" and train.class_counts() is None:
        raise ValueError(
            f"--class_weights={recipe.class_weights} needs the number of "
            "examples of each class, which is not known of these."
        )
