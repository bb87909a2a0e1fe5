"""Tensors of a file that have not been read yet."""

import dataclasses
import math
from collections.abc import Callable

import numpy as np

from bit_tf import layout


@dataclasses.dataclass(frozen=True)
class Spec:
    """Shape and dtype, as a file declares them."""

    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


@dataclasses.dataclass(frozen=True)
class Tensor:
    """One tensor of a network; shape and content in the released layout.

    Args:
        name: what the file calls it.
        shape: kernels (height, width, in, out).
        dtype: numpy's name.
        read: returns the content.
    """

    name: str
    shape: layout.Shape
    dtype: str
    read: Callable[[], np.ndarray]


def _same(value):
    return value


def named(
    container,
    key_of: Callable[[str], str],
    *,
    shape_of: Callable[[layout.Shape], layout.Shape] = _same,
    array_of: Callable[[np.ndarray], np.ndarray] = _same,
) -> dict[str, Tensor]:
    """Returns the tensors of an open file under their released names.

    Args:
        container: has `specs` by name, and `read(name)`.
        key_of: the released name of a name in the file.
        shape_of: the released shape of a shape in the file.
        array_of: the released array of an array in the file.

    Raises:
        ValueError: two tensors have the same released name.
    """
    tensors: dict[str, Tensor] = {}
    for name, spec in container.specs.items():
        key = key_of(name)
        if key in tensors:
            raise ValueError(
                f"tensor {key} is there twice, as {tensors[key].name} and as "
                f"{name}."
            )
        tensors[key] = Tensor(
            name=name,
            shape=shape_of(spec.shape),
            dtype=spec.dtype.name,
            read=lambda name=name: array_of(container.read(name)),
        )
    return tensors
