"""Reads .h5 weights that a stranger may have made.

HDF5 lets a file say "this tensor lies in another file"; whoever follows it
reads what the stranger wants read. Here only tensors that lie in the file
itself are touched, and their declared sizes are compared with what is stored
before anything is allocated.

Two kinds: what tf.keras `save_weights` wrote until Keras 3, such as the
released files, whose tensors are known by their order; and the .weights.h5 of
Keras 3, known by their place.
"""

import itertools
import os
import pathlib

import h5py
import numpy as np

from bit_tf import tensors

# Unpacked over packed size, as for .npz.
_MAX_RATIO = 20
_MAX_TENSORS = 10_000
_MAX_DEPTH = 16


class H5File:
    """An open .h5 of floating-point tensors.

    Args:
        path: the file.

    Attributes:
        specs: shape and dtype by name, in the order of the file.
        is_legacy: whether it is known by order: a file of before Keras 3.

    Raises:
        ValueError: it is no .h5 weights file, or points outside itself, or
            a tensor is not what it claims; the text names it.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = pathlib.Path(path)
        try:
            self._file = h5py.File(self.path, "r")
        except OSError as error:
            raise ValueError(
                f"it cannot be read as .h5 ({error}): it is another format or "
                "incomplete."
            ) from error
        try:
            self.is_legacy = any(
                name.startswith("layer_names") for name in self._file.attrs
            )
            names = self._legacy_names() if self.is_legacy else self._walk()
            self.specs = {name: self._spec(name) for name in names}
            self._check_total()
        except (OSError, RuntimeError, KeyError) as error:
            self.close()
            raise ValueError(f"it is damaged ({error}).") from error
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "H5File":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()

    def read(self, name: str) -> np.ndarray:
        """Returns one tensor.

        Raises:
            ValueError: its bytes are damaged.
        """
        spec = self.specs[name]
        array = np.empty(spec.shape, spec.dtype)
        try:
            self._find(name).read_direct(array)
        except (OSError, RuntimeError) as error:
            raise ValueError(
                f"tensor {name} cannot be read ({error}): the file is damaged."
            ) from error
        return array

    def _legacy_names(self) -> list[str]:
        names = []
        for layer in _name_list(self._file, "layer_names"):
            group = self._find(layer)
            if not isinstance(group, h5py.Group):
                raise ValueError(f"layer {layer} is not a group of tensors.")
            names += [
                f"{layer}/{weight}"
                for weight in _name_list(group, "weight_names")
            ]
        doubles = {name for name in names if names.count(name) > 1}
        if doubles:
            raise ValueError(f"tensor {min(doubles)} is listed twice.")
        return names

    def _walk(self) -> list[str]:
        names = []
        pending = [name for name in self._file if name != "optimizer"][::-1]
        while pending:
            name = pending.pop()
            found = self._find(name)
            if isinstance(found, h5py.Dataset):
                names.append(name)
            elif name.count("/") < _MAX_DEPTH:
                pending += [f"{name}/{child}" for child in found][::-1]
            if max(len(names), len(pending)) > _MAX_TENSORS:
                raise ValueError(f"it holds more than {_MAX_TENSORS} tensors.")
        return names

    def _find(self, name: str) -> h5py.Group | h5py.Dataset:
        """Goes to a tensor or group without leaving the file."""
        found = self._file
        for part in filter(None, name.split("/")):
            link = (
                found.get(part, getlink=True)
                if isinstance(found, h5py.Group)
                else None
            )
            if link is None:
                raise ValueError(f"tensor {name} is listed and not there.")
            if not isinstance(link, h5py.HardLink):
                raise ValueError(
                    f"tensor {name} is a link to another place; links are not "
                    "followed."
                )
            found = found[part]
        return found

    def _spec(self, name: str) -> tensors.Spec:
        found = self._find(name)
        if not isinstance(found, h5py.Dataset):
            raise ValueError(f"tensor {name} is a group, not a tensor.")
        if found.external or found.is_virtual:
            raise ValueError(
                f"tensor {name} lies in another file; links are not followed."
            )
        dtype = found.dtype
        if dtype.kind != "f" or dtype.itemsize > 8:
            raise ValueError(
                f"tensor {name} is {dtype}: allowed are float16, float32 and "
                "float64."
            )
        if found.shape is None or any(side < 1 for side in found.shape):
            raise ValueError(
                f"tensor {name} has shape {found.shape}: it is empty."
            )
        spec = tensors.Spec(tuple(found.shape), dtype)
        stored = found.id.get_storage_size()
        if spec.nbytes > _MAX_RATIO * stored:
            raise ValueError(
                f"tensor {name} claims shape {spec.shape} of {dtype}, "
                f"{spec.nbytes:,} bytes, and {stored:,} are stored."
            )
        return spec

    def _check_total(self) -> None:
        total = sum(spec.nbytes for spec in self.specs.values())
        size = self.path.stat().st_size
        if total > _MAX_RATIO * size:
            raise ValueError(
                f"it claims {total:,} bytes of tensors in a file of {size:,}."
            )


def _name_list(group: h5py.Group, attribute: str) -> list[str]:
    """Reads a list of names, which Keras splits where it is long."""
    pieces = (f"{attribute}{number}" for number in itertools.count())
    keys = (
        [attribute]
        if attribute in group.attrs
        else list(itertools.takewhile(group.attrs.__contains__, pieces))
    )
    names: list[str] = []
    for key in keys:
        shape = group.attrs.get_id(key).shape
        if len(shape) != 1 or shape[0] > _MAX_TENSORS:
            raise ValueError(f"{key} of {group.name} is not a list of names.")
        names += [
            name.decode("utf-8", "replace")
            if isinstance(name, bytes)
            else str(name)
            for name in group.attrs[key]
        ]
    return names
