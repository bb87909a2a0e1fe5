"""A network's weights, out of and into files.

.npz           the released layout; what a run leaves
.safetensors   timm's resnetv2_*_bit
a folder       transformers' BitForImageClassification
.weights.h5    Keras 3, `model.load_weights`
.keras         Keras 3, `keras.saving.load_model`

What can be read besides is in `weights_file`.
"""

import os
import pathlib
from collections.abc import Callable
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from bit_tf import architecture
from bit_tf import layers
from bit_tf import layout
from bit_tf import npz_file
from bit_tf import torch_weights
from bit_tf import weights_file
from bit_tf import workdir as workdir_lib

_SLICE_BYTES = 1 << 20


def load(
    path: str | os.PathLike, model: keras.Model, *, same_classes: bool = True
) -> str | None:
    """Reads weights of any format into a network.

    A head for other classes is left out: the network's becomes zero. Above the
    network itself, one tensor is in memory.

    Args:
        path: see `weights_file.opened`.
        model: from `resnet_v2.build`.
        same_classes: whether the file's head is for the network's classes, if
            it is for as many.

    Returns:
        A remark if the head was left out, else None.

    Raises:
        ValueError: no such file, or not this network's; the text names the
            first tensor that is wrong. The network may be half read.
    """
    expected = architecture.name(model.depth, model.width)
    variables = {variable.path: variable for variable in model.variables}
    with weights_file.opened(path, expected=expected) as stored:
        remark = None
        wanted, found = model.num_classes, stored.num_classes
        if wanted is not None and (wanted != found or not same_classes):
            for key in layout.HEAD:
                head = variables.pop(key)
                head.assign(np.zeros(head.shape))
            other = "other " if wanted == found else ""
            has = f"a head for {found} {other}classes" if found else "no head"
            remark = (
                f"{stored.path.name} has {has}; the new head for {wanted} "
                "starts at zero"
            )
        for key, variable in variables.items():
            _assign(variable, stored.read(key))
    return remark


def _assign(variable: keras.Variable, array: np.ndarray) -> None:
    """Sets a variable without a second copy of a large array.

    TensorFlow copies what it is given: a slice of the input channels at a time.
    """
    array = array.astype(variable.dtype, copy=False)
    on_tpu = "TPU" in str(getattr(variable.value, "device", ""))
    if array.nbytes <= _SLICE_BYTES or array.ndim < 2 or on_tpu:
        variable.assign(array)
        return
    rows = max(1, _SLICE_BYTES * array.shape[-2] // array.nbytes)
    # Under tf.distribute a variable stands for one on every device.
    for target in getattr(variable.value, "values", (variable.value,)):
        for begin in range(0, array.shape[-2], rows):
            piece = array[..., begin : begin + rows, :]
            first, last = [0] * array.ndim, list(array.shape)
            first[-2], last[-2] = begin, begin + piece.shape[-2]
            # Not target[...].assign, which reads and so copies the whole.
            tf.raw_ops.ResourceStridedSliceAssign(
                ref=target.handle,
                begin=first,
                end=last,
                strides=[1] * array.ndim,
                value=piece,
            )
        # Writing a part has TensorFlow copy the variable whenever it is read
        # or written from then on, unless it is told not to.
        tf.raw_ops.DisableCopyOnRead(resource=target.handle)


def save(
    path: str | os.PathLike,
    model: keras.Model,
    *,
    class_names: Sequence[str] | None = None,
    image_size: int = 224,
    dtype: str = "float32",
) -> None:
    """Writes a network's weights, whole or not at all.

    Args:
        path: its name decides the format, see `weights_file.WRITABLE`.
        model: from `resnet_v2.build`.
        class_names: one per output, for formats that keep them.
        image_size: side to resize to, for formats that keep it; pixels.
        dtype: of what is stored; other than "float32" for .npz alone.

    Raises:
        ValueError: the name says no format that can be written, or one that
            has no place for the dtype or for layers that are not BiT's.
    """
    path = pathlib.Path(path).expanduser()
    kind = weights_file.format_of(path)
    if dtype != "float32" and kind != ".npz":
        raise ValueError(
            f"{path.name}: {dtype} is for .npz alone; others have float32."
        )
    if model.made_of != layers.BIT and kind != ".keras":
        raise ValueError(
            f"{path.name}: weights of layers that are not BiT's can be saved "
            "as .keras alone."
        )
    if kind == "transformers":
        workdir_lib.write_directory(
            path,
            lambda folder: torch_weights.write_transformers(
                folder,
                *_contents(model),
                class_names=class_names,
                image_size=image_size,
            ),
        )
    else:
        writer = {
            ".npz": lambda file: npz_file.write(file, *_contents(model, dtype)),
            ".safetensors": lambda file: torch_weights.write_timm(
                file, *_contents(model)
            ),
            ".weights.h5": lambda file: _through(
                file, kind, model.save_weights
            ),
            ".keras": lambda file: _through(file, kind, model.save),
        }[kind]
        workdir_lib.write_file(path, writer)


def _contents(
    model: keras.Model, dtype: str = "float32"
) -> tuple[dict[str, layout.Shape], Callable[[str], np.ndarray]]:
    """Returns what there is to write, and what reads one tensor of it."""
    variables = {variable.path: variable for variable in model.variables}
    shapes = {key: tuple(v.shape) for key, v in variables.items()}
    return shapes, lambda key: keras.ops.convert_to_numpy(
        variables[key]
    ).astype(dtype)


def _through(path: pathlib.Path, suffix: str, write) -> None:
    """Writes a file by way of a name with the suffix that Keras insists on."""
    named = path.with_name(path.name + suffix)
    try:
        write(named)
        os.replace(named, path)
    finally:
        named.unlink(missing_ok=True)
