"""From one weights format to another, checked on the result."""

import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable

import keras
import numpy as np

from bit_tf import architecture
from bit_tf import labels
from bit_tf import layout
from bit_tf import resnet_v2
from bit_tf import weights
from bit_tf import weights_file
from bit_tf import zoo

# Of the images that the logits are compared on; not square, and small so that
# the check takes seconds for the largest network.
_CHECK_SHAPE = (2, 64, 96, 3)
# The tensors are the same; sums may be ordered otherwise from call to call.
TOLERANCE = 1e-5
# What rounding to float16 may come to, over all layers.
HALF_TOLERANCE = 2e-2


def convert(
    source: pathlib.Path,
    target: pathlib.Path,
    *,
    headless: bool = False,
    dtype: str = "float32",
    log: Callable[[str], None] = print,
) -> float:
    """Writes the weights of one file in the format of another.

    The file that was written is read back into an emptied network; features
    and logits have to be those of before.

    Args:
        source: see `weights_file.opened`.
        target: its name decides the format, see `weights.save`.
        headless: whether to leave the head out.
        dtype: see `weights.save`.
        log: told what was found, written and compared.

    Returns:
        Largest difference over largest output.

    Raises:
        ValueError: the source cannot be read, or the name says no format.
        RuntimeError: what was written gives other outputs; it is not kept,
            and an older target stays.
    """
    weights_file.check_target(target)
    with weights_file.opened(source) as stored:
        name = stored.architecture
        num_classes = None if headless else stored.num_classes
        found = stored.num_classes
    entry = zoo.by_file(source, architecture=name, num_classes=found)
    model = resnet_v2.build(name, num_classes, seed=None, dtype="float32")
    weights.load(source, model)
    depth, width = architecture.parse_name(name)
    count = layout.parameters(layout.shapes(depth, width, num_classes))
    log(
        f"{source}: {name}, "
        + (f"{num_classes} classes" if num_classes else "no head")
        + f", {count:,} parameters"
    )
    outputs = keras.Model(
        model.input,
        [
            model.endpoints[key]
            for key in ("pre_logits", "logits")
            if key in model.endpoints
        ],
    )
    images = np.random.default_rng(0).uniform(-1, 1, _CHECK_SHAPE)
    images = images.astype(np.float32)
    before = [np.asarray(output) for output in outputs(images)]
    names = None
    if entry and entry.labels and num_classes:
        names = labels.class_names(entry.labels)
    # Beside the target, and in its place only when it has proved right.
    with tempfile.TemporaryDirectory(
        dir=target.absolute().parent, prefix=".converting-"
    ) as directory:
        candidate = pathlib.Path(directory, target.name)
        weights.save(
            candidate,
            model,
            class_names=names,
            image_size=entry.resolution if entry else zoo.DEFAULT_RESOLUTION,
            dtype=dtype,
        )
        for variable in model.variables:
            variable.assign(np.full(variable.shape, np.nan, np.float32))
        weights.load(candidate, model)
        after = [np.asarray(output) for output in outputs(images)]
        difference = np.max(
            [
                np.abs(a - b).max() / max(np.abs(b).max(), 1e-6)
                for a, b in zip(after, before, strict=True)
            ]
        )
        allowed = TOLERANCE if dtype == "float32" else HALF_TOLERANCE
        if not difference <= allowed:
            raise RuntimeError(
                f"what would be {target} gives outputs that differ by "
                f"{difference:.1e} of the largest; it is not kept."
            )
        if target.is_dir():
            shutil.rmtree(target)
        os.replace(candidate, target)
    compared = "logits and features" if num_classes else "features"
    log(
        f"{target}: read back, {compared} of {len(images)} images differ by "
        f"{difference:.0e} of the largest"
    )
    return float(difference)
