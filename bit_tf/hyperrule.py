"""The BiT-HyperRule (section 3.3): examples and image size -> Recipe.

The paper and the authors' published code disagree in places, so both readings
are here: "paper" (the default) and "code". What the paper leaves unsaid, the
warm-up and the strictness of the size bounds, is taken from the code in both.
"""

import dataclasses

from bit_tf import recipe as recipe_lib

READINGS = ("paper", "code")

_PAPER = "BiT paper, section 3.3"
_CODE = "official bit_hyperrule.py"

BATCH_SIZE = 512
BASE_LR = 0.003
MOMENTUM = 0.9
# An image is small when height * width is strictly below this many pixels.
SMALL_IMAGE_AREA = 96 * 96


@dataclasses.dataclass(frozen=True)
class SizeClass:
    """One row of the rule: tasks with fewer than `below` examples."""

    name: str
    below: float
    total_steps: int
    warmup_steps: int
    mixup_alpha: float
    code_decay_steps: tuple[int, ...]

    @property
    def paper_decay_steps(self) -> tuple[int, ...]:
        return tuple(
            percent * self.total_steps // 100 for percent in (30, 60, 90)
        )


SIZE_CLASSES = (
    SizeClass("small", 20_000, 500, 100, 0.0, (200, 300, 400)),
    SizeClass("medium", 500_000, 10_000, 500, 0.1, (3_000, 6_000, 9_000)),
    SizeClass("large", float("inf"), 20_000, 500, 0.1, (6_000, 12_000, 18_000)),
)


def size_class(num_examples: int) -> SizeClass:
    """Returns the row of the rule for a training set of this size."""
    if num_examples < 1:
        raise ValueError(
            f"num_examples={num_examples}: the HyperRule needs at least one "
            "training example."
        )
    return next(row for row in SIZE_CLASSES if num_examples < row.below)


def resolution(
    *, image_height: int, image_width: int, model: str, reading: str
) -> tuple[int, int, str]:
    """Returns (resize, crop, source), in pixels, for images of this size."""
    if image_height * image_width < SMALL_IMAGE_AREA:
        return 160, 128, f"{_PAPER}: area below 96x96"
    if reading == "code":
        return 512, 480, f"{_CODE}: every model, area from 96x96"
    if model.endswith("R152x4"):
        return 512, 480, f"{_PAPER}, footnote 1: R152x4"
    return 448, 384, f"{_PAPER}: area from 96x96"


def recipe(
    *,
    num_examples: int,
    image_height: int,
    image_width: int,
    model: str,
    reading: str = "paper",
) -> recipe_lib.Recipe:
    """Derives the fine-tuning recipe of a task from its data.

    Args:
        num_examples: training examples actually used; in few-shot runs that
            is examples per class times classes.
        image_height: typical height of the stored images, pixels.
        image_width: typical width, pixels.
        model: architecture name, e.g. "R50x1"; R152x4 has its own resolution.
        reading: "paper" or "code".

    Returns:
        A Recipe whose `sources` say where each number comes from.

    Raises:
        ValueError: unknown reading, or no examples.
    """
    if reading not in READINGS:
        raise ValueError(
            f"unknown reading {reading!r} of the HyperRule: allowed are "
            f"{', '.join(READINGS)}."
        )
    row = size_class(num_examples)
    resize, crop, resolution_source = resolution(
        image_height=image_height,
        image_width=image_width,
        model=model,
        reading=reading,
    )
    bound = (
        f"fewer than {row.below:,} examples"
        if row.below != float("inf")
        else "500,000 examples or more"
    )
    task = f"{row.name} task, {num_examples:,} is {bound}"
    if reading == "paper":
        decay_steps = row.paper_decay_steps
        decay_source = f"{_PAPER}: at 30, 60 and 90 % of the steps"
    else:
        decay_steps = row.code_decay_steps
        decay_source = f"{_CODE}: {row.name} task"
    return recipe_lib.Recipe(
        name=f"hyperrule/{reading}",
        total_steps=row.total_steps,
        batch_size=BATCH_SIZE,
        base_lr=BASE_LR,
        warmup_steps=row.warmup_steps,
        decay_steps=decay_steps,
        decay_factor=0.1,
        momentum=MOMENTUM,
        weight_decay=0.0,
        mixup_alpha=row.mixup_alpha,
        resize=resize,
        crop=crop,
        sources={
            "total_steps": f"{_PAPER}: {task}",
            "batch_size": _PAPER,
            "base_lr": _PAPER,
            "warmup_steps": f"{_CODE} (the paper is silent): {row.name} task",
            "decay_steps": decay_source,
            "decay_factor": _PAPER,
            "momentum": _PAPER,
            "weight_decay": f"{_PAPER}: none downstream",
            "mixup_alpha": f"{_PAPER}: "
            + ("none for small tasks" if not row.mixup_alpha else row.name),
            "resize": resolution_source,
            "crop": resolution_source,
        },
    )
