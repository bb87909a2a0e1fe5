"""The flags that say which images, and how they are found."""

import os

from absl import flags

from bit_tf import catalogue
from bit_tf import examples as examples_lib
from bit_tf import image_file
from bit_tf import importing
from bit_tf import pretrained
from bit_tf import program
from bit_tf import progress as progress_lib
from bit_tf import sources
from bit_tf import tasks
from bit_tf import tfds_sets

DATASET = flags.DEFINE_string(
    "dataset",
    None,
    "folder:PATH (train/ and test/ with a sub-folder per class, or just the "
    "sub-folders), builtin:patches, a TensorFlow Datasets name such as cifar10 "
    "or oxford_flowers102:2.*, vtab:NAME or paper:NAME for one of the paper's, "
    "or one of "
    + "; ".join(
        f"{kind}:{what}"
        for kind, what in tasks.KINDS.items()
        if kind not in ("folder", "builtin")
    ),
)
TARGET = flags.DEFINE_string(
    "target",
    "class",
    "What the label of an image is: class; number, which is predicted as "
    "such; or bins:EDGES, the interval that a number falls into, such as "
    "bins:8,20.",
)
APPLY_EXIF = flags.DEFINE_bool(
    "apply_exif",
    None,
    "Turn photos as their cameras noted. Default: yes, but for TensorFlow "
    "Datasets, whose published numbers are without.",
)
MAX_IMAGE_PIXELS = program.define_max_image_pixels()
flags.declare_key_flag("max_image_pixels")
ON_BAD_IMAGE = flags.DEFINE_enum(
    "on_bad_image",
    "fail",
    ["fail", "skip"],
    "What to do with images that cannot be used: name them and end, or leave "
    "them out and list them in the report.",
)
TRAIN_SPLIT = flags.DEFINE_string(
    "train_split",
    None,
    "TFDS split to train on, such as 'train[:98%]', or sub-folder. Default: "
    "train.",
)
EVAL_SPLIT = flags.DEFINE_string(
    "eval_split",
    None,
    "TFDS split to evaluate on, or sub-folder. Default: test, else validation.",
)
SPLIT_SEED = flags.DEFINE_integer(
    "split_seed",
    None,
    "Which fifth of a set without images to evaluate on is held out. Default: "
    "0; for a run that is evaluated, its own.",
)
DATA_DIR = program.define_data_dir()
flags.declare_key_flag("data_dir")


def task(*, evaluating: bool = False) -> tasks.Task:
    """Returns the task that the flags name.

    Args:
        evaluating: whether nothing is to be trained.

    Raises:
        ValueError: they name none.
    """
    entry = catalogue.find(DATASET.value)
    if entry is not None:
        if TRAIN_SPLIT.value or EVAL_SPLIT.value or TARGET.value != "class":
            raise ValueError(
                f"{DATASET.value} has fixed splits and labels: drop "
                "--train_split, --eval_split and --target, or name the data "
                f"set itself, {entry.location}."
            )
        return entry.task(evaluating=evaluating)
    return tasks.parse(
        DATASET.value,
        train_split=TRAIN_SPLIT.value,
        eval_split=EVAL_SPLIT.value,
        target=TARGET.value,
    )


def reading(of: tasks.Task) -> image_file.Reading:
    """Returns how the images of a task are read."""
    apply_exif = APPLY_EXIF.value
    if apply_exif is None:
        apply_exif = of.kind != "tfds"
    return image_file.Reading(
        apply_exif=apply_exif,
        max_pixels=MAX_IMAGE_PIXELS.value,
        on_bad=ON_BAD_IMAGE.value,
    )


def split_seed(of_run: int | None = None) -> int:
    """Returns what was given, or else a run's own."""
    if SPLIT_SEED.value is not None:
        return SPLIT_SEED.value
    return of_run or 0


def load(
    of: tasks.Task, *, split_seed_of_run: int | None = None
) -> tuple[examples_lib.Images, examples_lib.Images]:
    """Returns what to train on and what to evaluate on.

    Args:
        of: the task.
        split_seed_of_run: see `split_seed`.

    Raises:
        ValueError: see `sources.load`.
    """
    status = progress_lib.Progress(total=1)

    def show(done: int, total: int) -> None:
        status.total = total
        status.update(done, f"checked {done} of {total} images")

    if of.kind == "tfds":
        with importing.quickly():
            tfds_sets.import_tfds()
    parts = sources.load(
        of,
        data_dir=DATA_DIR.value,
        split_seed=split_seed(split_seed_of_run),
        reading=reading(of),
        cache=pretrained.cache_directory(os.environ) / "scans",
        log=program.say,
        progress=show,
    )
    status.clear()
    return parts
