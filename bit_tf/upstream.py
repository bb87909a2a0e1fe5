"""Upstream pre-training (sections 3.1 and 3.3): examples -> Recipe."""

from bit_tf import recipe as recipe_lib

_PAPER = "BiT paper, section 3.3"

EPOCHS = 90
DECAY_EPOCHS = (30, 60, 80)
BATCH_SIZE = 4096
LR_PER_256_EXAMPLES = 0.03
WARMUP_STEPS = 5_000
WEIGHT_DECAY = 1e-4
CROP = 224


def recipe(
    *, num_examples: int, batch_size: int | None = None
) -> recipe_lib.Recipe:
    """Returns the schedule of BiT-S for a training set.

    Epochs become steps once, here: steps = epochs * examples / batch,
    rounded. The learning rate follows the batch, 0.03 * batch / 256. The loss
    is the softmax cross-entropy of BiT-S.

    Args:
        num_examples: training examples.
        batch_size: examples per step; the paper's 4096 if None.

    Raises:
        ValueError: no examples, or a batch below 1.
    """
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

    total = steps(EPOCHS)
    # A set smaller than the paper's ends before the paper's warm-up does; the
    # warm-up then keeps the share it has for ILSVRC-2012, 5,000 of 28,151.
    warmup, warmup_source = WARMUP_STEPS, _PAPER
    if total <= 2 * WARMUP_STEPS:
        warmup = total * WARMUP_STEPS // 28_151
        warmup_source = (
            f"the share of ILSVRC-2012, 5,000 of 28,151 ({_PAPER}), as "
            f"{total:,} steps leave no room for 5,000"
        )
    return recipe_lib.Recipe(
        name="upstream/BiT-S",
        total_steps=total,
        batch_size=batch,
        base_lr=LR_PER_256_EXAMPLES * batch / 256,
        warmup_steps=warmup,
        decay_steps=tuple(steps(epochs) for epochs in DECAY_EPOCHS),
        decay_factor=0.1,
        momentum=0.9,
        weight_decay=WEIGHT_DECAY,
        mixup_alpha=0.0,
        crop=CROP,
        train_template=recipe_lib.INCEPTION_TRAIN,
        sources={
            "total_steps": f"{_PAPER}: {EPOCHS} epochs of "
            f"{num_examples:,} examples",
            "batch_size": batch_source,
            "base_lr": f"{_PAPER}: 0.03 * batch / 256",
            "warmup_steps": warmup_source,
            "decay_steps": f"{_PAPER}: at epochs 30, 60, 80",
            "decay_factor": _PAPER,
            "momentum": _PAPER,
            "weight_decay": f"{_PAPER}; L2 on kernels (the paper does not say "
            "which)",
            "mixup_alpha": f"{_PAPER}: none upstream",
            "crop": _PAPER,
        },
    )
