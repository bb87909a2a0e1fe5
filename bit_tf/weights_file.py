"""Opens a network's weights in every format that others write.

.npz           the released layout; what a run leaves
.h5            released for tf.keras
.safetensors   timm's resnetv2_*_bit, or transformers'
a folder       transformers' BitForImageClassification
.weights.h5    Keras 3, `model.save_weights`
.keras         Keras 3, `model.save`

The names, shapes and dtypes of all tensors are compared with the architecture
before one of them is read, and they are read one at a time.
"""

import collections
import contextlib
import dataclasses
import os
import pathlib
import re
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from collections.abc import Mapping

import numpy as np

from bit_tf import architecture
from bit_tf import h5_file
from bit_tf import h5_weights
from bit_tf import layout
from bit_tf import npz_file
from bit_tf import safetensors_file
from bit_tf import tensors
from bit_tf import torch_weights

READABLE = (
    ".npz, .h5 of the released TF2 files, .safetensors of timm or "
    "transformers, .weights.h5, .keras, or a transformers folder"
)
WRITABLE = (
    ".npz (the released layout), .safetensors (timm), .weights.h5, .keras, or "
    "a name without suffix (a transformers folder)"
)
_KERAS_WEIGHTS = "model.weights.h5"


@dataclasses.dataclass(frozen=True)
class Stored:
    """An opened file that is known to hold the tensors of one BiT network.

    Args:
        path: what was opened.
        depth: of the network, read from the shapes.
        width: of the network, read from the shapes.
        num_classes: outputs of its head; None if it has none.
    """

    path: pathlib.Path
    depth: int
    width: float
    num_classes: int | None
    _tensors: Mapping[str, tensors.Tensor]

    @property
    def architecture(self) -> str:
        """E.g. "R50x1"."""
        return architecture.name(self.depth, self.width)

    def read(self, key: str) -> np.ndarray:
        """Returns a tensor by its name in the released layout.

        Raises:
            ValueError: its bytes are damaged.
        """
        try:
            return self._tensors[key].read()
        except ValueError as error:
            raise ValueError(f"weights file {self.path}: {error}") from error


@contextlib.contextmanager
def opened(
    path: str | os.PathLike, *, expected: str | None = None
) -> Iterator[Stored]:
    """Opens weights of any format; nothing but headers is read.

    Args:
        path: a file or folder; the format is known by its name.
        expected: the architecture it should be of, e.g. "R50x1"; None for
            any.

    Raises:
        ValueError: there is no such file, or it does not hold exactly the
            tensors of a BiT network; the text names the first that is wrong.
    """
    path = pathlib.Path(path).expanduser()
    if not path.exists():
        raise ValueError(
            f"weights file {path} does not exist: give {READABLE}."
        )
    with contextlib.ExitStack() as stack:
        try:
            found = _open(path, stack, expected)
            stored = _recognise(path, found, expected)
        except ValueError as error:
            raise ValueError(f"weights file {path}: {error}") from error
        yield stored


def _recognise(
    path: pathlib.Path,
    found: dict[str, tensors.Tensor],
    expected: str | None,
) -> Stored:
    """Raises ValueError unless these are all tensors of one network."""

    def called(key: str) -> str:
        name = found[key].name if key in found else key
        return key if name == key else f"{key} (in the file {name})"

    dtypes = collections.Counter(tensor.dtype for tensor in found.values())
    for key, tensor in found.items():
        usual = dtypes.most_common(1)[0][0]
        if tensor.dtype != usual:
            raise ValueError(
                f"tensor {called(key)} is {tensor.dtype}, others are {usual}."
            )
    shapes = {key: tensor.shape for key, tensor in found.items()}
    depth, width = layout.infer(shapes)
    num_classes = layout.num_classes(shapes)
    wanted = layout.shapes(depth, width, num_classes)
    layout.check(shapes, wanted, called=called)
    if expected and architecture.parse_name(expected) != (depth, width):
        wanted = layout.shapes(*architecture.parse_name(expected), num_classes)
        try:
            layout.check(shapes, wanted, called=called)
        except ValueError as error:
            raise ValueError(
                f"it is of {architecture.name(depth, width)}, and {expected} "
                f"is wanted: {error}"
            ) from error
    return Stored(path, depth, width, num_classes, found)


def _open(
    path: pathlib.Path, stack: contextlib.ExitStack, expected: str | None
) -> dict[str, tensors.Tensor]:
    """Returns the tensors of a file by their released names."""
    if path.is_dir():
        path = path / torch_weights.FILE
        if not path.is_file():
            raise ValueError(
                f"the folder has no {path.name}: a transformers model is saved "
                "with save_pretrained, in one piece."
            )
    if path.name.endswith(".safetensors"):
        return torch_weights.read(
            stack.enter_context(safetensors_file.SafetensorsFile(path))
        )
    if path.name.endswith(".npz"):
        npz = stack.enter_context(npz_file.NpzFile(path))
        return tensors.named(npz, layout.canonical)
    said = f"{path.stem} {expected or ''}"
    if path.name.endswith(".keras"):
        path = _unpack(path, stack)
    if path.name.endswith(".h5"):
        h5 = stack.enter_context(h5_file.H5File(path))
        return h5_weights.read(h5, said=said)
    raise ValueError(f"its name says no format: allowed are {READABLE}.")


def _unpack(path: pathlib.Path, stack: contextlib.ExitStack) -> pathlib.Path:
    """Takes the arrays out of a .keras; what it says to build is not read."""
    directory = stack.enter_context(tempfile.TemporaryDirectory())
    unpacked = pathlib.Path(directory, _KERAS_WEIGHTS)
    size = path.stat().st_size
    try:
        with zipfile.ZipFile(path) as archive:
            info = archive.getinfo(_KERAS_WEIGHTS)
            if info.file_size > 2 * size:
                raise ValueError(
                    f"{_KERAS_WEIGHTS} claims {info.file_size:,} bytes in a "
                    f"file of {size:,}."
                )
            with archive.open(info) as packed, open(unpacked, "wb") as file:
                shutil.copyfileobj(packed, file, 1 << 22)
    except (zipfile.BadZipFile, KeyError, EOFError) as error:
        raise ValueError(
            f"it cannot be read as .keras ({error}): it is another format or "
            "incomplete."
        ) from error
    return unpacked


def format_of(path: str | os.PathLike) -> str:
    """Returns ".npz", ".safetensors", ".weights.h5", ".keras" or
    "transformers", the format that a name asks to write.

    Raises:
        ValueError: the name says none of them.
    """
    name = pathlib.Path(path).name
    for suffix in (".npz", ".safetensors", ".weights.h5", ".keras"):
        if name.endswith(suffix):
            return suffix
    if not name or re.search(r"\.[A-Za-z]\w*$", name):
        raise ValueError(
            f"{path}: its name says no format that can be written: allowed "
            f"are {WRITABLE}."
        )
    return "transformers"


def check_target(path: pathlib.Path) -> None:
    """Looks at a name that is to be written, before any work.

    Raises:
        ValueError: it says no format, its folder is not there, or something
            else would be replaced.
    """
    kind = format_of(path)
    if not path.absolute().parent.is_dir():
        raise ValueError(f"{path}: there is no folder {path.parent} to put it.")
    if kind == "transformers":
        if path.exists() and not (path / torch_weights.FILE).exists():
            raise ValueError(
                f"{path} exists and is not a transformers folder: give another "
                "name."
            )
    elif path.is_dir():
        raise ValueError(f"{path} is a folder: give another name.")
