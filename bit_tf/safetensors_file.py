"""Reads and writes .safetensors, the format of timm and transformers."""

import json
import os
import pathlib
from collections.abc import Callable
from collections.abc import Mapping

import numpy as np
import safetensors

from bit_tf import tensors

_DTYPES = {
    name: np.dtype(code)
    for name, code in (("F16", "<f2"), ("F32", "<f4"), ("F64", "<f8"))
}


class SafetensorsFile:
    """An open .safetensors of floating-point tensors.

    Args:
        path: the file.

    Attributes:
        specs: shape and dtype by name.

    Raises:
        ValueError: it cannot be read as .safetensors, or holds other dtypes.
    """

    def __init__(self, path: str | os.PathLike):
        try:
            self._file = safetensors.safe_open(str(path), framework="numpy")
        except (safetensors.SafetensorError, OSError) as error:
            raise ValueError(
                f"it cannot be read as .safetensors ({error}): it is another "
                "format or incomplete."
            ) from error
        names = self._file.keys()
        self.specs = {name: self._spec(name) for name in names}

    def __enter__(self) -> "SafetensorsFile":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        self._file.__exit__(None, None, None)

    def read(self, name: str) -> np.ndarray:
        """Returns one tensor."""
        return self._file.get_tensor(name)

    def _spec(self, name: str) -> tensors.Spec:
        found = self._file.get_slice(name)
        shape, dtype = tuple(found.get_shape()), found.get_dtype()
        if dtype not in _DTYPES:
            raise ValueError(
                f"tensor {name} is {dtype}: allowed are F16, F32 and F64."
            )
        if any(side < 1 for side in shape):
            raise ValueError(f"tensor {name} has shape {shape}: it is empty.")
        return tensors.Spec(shape, _DTYPES[dtype])


def write(
    path: pathlib.Path,
    shapes: Mapping[str, tuple[int, ...]],
    read: Callable[[str], np.ndarray],
    *,
    metadata: Mapping[str, str],
) -> None:
    """Writes float32 tensors one after the other.

    The library wants all of them in memory at once, twice; a large network
    does not fit so. The format is a length, a header in JSON and the bytes.

    Args:
        path: file to write.
        shapes: of each tensor, by name.
        read: returns the tensor of a name.
        metadata: free text by key.
    """
    header: dict[str, dict] = {"__metadata__": dict(metadata)}
    end = 0
    for name, shape in shapes.items():
        begin, end = end, end + 4 * int(np.prod(shape))
        header[name] = {
            "dtype": "F32",
            "shape": list(shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for name in shapes:
            file.write(np.ascontiguousarray(read(name), "<f4").data)
