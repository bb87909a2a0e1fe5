"""Upstream pre-training (sections 3.1 and 3.3): examples -> Recipe."""

import dataclasses

from bit_tf import recipe as recipe_lib

_PAPER = "BiT paper, section 3.3"


@dataclasses.dataclass(frozen=True)
class Upstream:
    """One of the paper's pre-trainings.

    Args:
        data: what it was pre-trained on.
        num_examples: images in it, rounded as the paper does.
        num_classes: classes in it.
        epochs: passes over the data.
        decay_epochs: after which the rate drops tenfold.
        loss: one of `recipe.LOSSES`.
        loss_source: where that is said.
    """

    data: str
    num_examples: int
    num_classes: int
    epochs: int
    decay_epochs: tuple[int, ...]
    loss: str
    loss_source: str


_SIGMOID = "google-research/big_transfer issues 26 and 29"
UPSTREAMS = {
    "BiT-S": Upstream(
        data="ILSVRC-2012",
        num_examples=1_281_167,
        num_classes=1_000,
        epochs=90,
        decay_epochs=(30, 60, 80),
        loss="softmax",
        loss_source="one label per image",
    ),
    "BiT-M": Upstream(
        data="ImageNet-21k",
        num_examples=14_200_000,
        num_classes=21_843,
        epochs=90,
        decay_epochs=(30, 60, 80),
        loss="sigmoid",
        loss_source=f"{_SIGMOID}: several labels per image",
    ),
    "BiT-L": Upstream(
        data="JFT-300M",
        num_examples=300_000_000,
        num_classes=18_291,
        epochs=40,
        decay_epochs=(10, 23, 30, 37),
        loss="sigmoid",
        loss_source=f"as BiT-M ({_SIGMOID}); 1.26 labels per image",
    ),
}
BATCH_SIZE = 4096
LR_PER_256_EXAMPLES = 0.03
WARMUP_STEPS = 5_000
WEIGHT_DECAY = 1e-4
CROP = 224
MIN_CROP_AREA = 5


def recipe(
    *,
    num_examples: int,
    batch_size: int | None = None,
    name: str = "BiT-S",
) -> recipe_lib.Recipe:
    """Returns the schedule of an upstream run for a training set.

    Epochs become steps once, here: steps = epochs * examples / batch,
    rounded. The learning rate follows the batch, 0.03 * batch / 256. What the
    paper leaves open is chosen by name, see `recipe`: the kernels alone decay,
    as L2, and start as Keras starts them.

    Args:
        num_examples: training examples.
        batch_size: examples per step; the paper's 4096 if None.
        name: "BiT-S", "BiT-M" or "BiT-L".

    Raises:
        ValueError: unknown name, no examples, or a batch below 1.
    """
    if name not in UPSTREAMS:
        raise ValueError(
            f"unknown upstream {name!r}: allowed are {', '.join(UPSTREAMS)}."
        )
    row = UPSTREAMS[name]
    if num_examples < 1:
        raise ValueError(
            f"num_examples={num_examples}: upstream training needs at least "
            "one example."
        )
    batch_source = _PAPER if batch_size is None else "--batch_size"
    batch = BATCH_SIZE if batch_size is None else batch_size
    if batch < 1:
        raise ValueError(
            f"batch_size={batch} is not possible: allowed is a whole number "
            ">= 1."
        )

    def steps(epochs: int) -> int:
        return max(1, round(epochs * num_examples / batch))

    total = steps(row.epochs)
    # A set smaller than the paper's ends before the paper's warm-up does; the
    # warm-up then keeps the share it has for ILSVRC-2012, 5,000 of 28,151.
    warmup, warmup_source = WARMUP_STEPS, _PAPER
    if total < 28_151:
        warmup = total * WARMUP_STEPS // 28_151
        warmup_source = (
            f"the share of ILSVRC-2012, 5,000 of 28,151 ({_PAPER}), as "
            f"{total:,} steps are fewer"
        )
    return recipe_lib.Recipe(
        name=f"upstream/{name}",
        total_steps=total,
        batch_size=batch,
        base_lr=LR_PER_256_EXAMPLES * batch / 256,
        warmup_steps=warmup,
        decay_steps=tuple(steps(epochs) for epochs in row.decay_epochs),
        decay_factor=0.1,
        momentum=0.9,
        loss=row.loss,
        weight_decay=WEIGHT_DECAY,
        mixup_alpha=0.0,
        crop=CROP,
        min_crop_area=MIN_CROP_AREA,
        train_template=recipe_lib.INCEPTION_TRAIN,
        sources={
            "total_steps": f"{_PAPER}: {row.epochs} epochs of "
            f"{num_examples:,} examples",
            "batch_size": batch_source,
            "base_lr": f"{_PAPER}: 0.03 * batch / 256",
            "warmup_steps": warmup_source,
            "decay_steps": f"{_PAPER}: at epochs "
            f"{', '.join(map(str, row.decay_epochs))}",
            "decay_factor": _PAPER,
            "momentum": _PAPER,
            "loss": row.loss_source,
            "weight_decay": _PAPER,
            "weight_decay_kind": "the paper does not say; L2 as usual with "
            "SGD in 2019",
            "weight_decay_on": "the paper does not say; big_vision bit_i21k.py "
            "decays kernels only",
            "initializer": "the paper does not say; Keras' default, as in the "
            "official TF2 code",
            "mixup_alpha": f"{_PAPER}: none upstream",
            "crop": _PAPER,
            "min_crop_area": "percent; the paper does not say; big_vision "
            "bit_i21k.py",
        },
    )
