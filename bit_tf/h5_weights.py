"""The weights of .h5 files, under the names of the released layout."""

import re

from bit_tf import architecture
from bit_tf import h5_file
from bit_tf import layout
from bit_tf import tensors

# Released as .h5 with another network inside -> the root kernel found there.
_MISLABELLED = {"R50x3": (7, 7, 3, 64), "R101x1": (7, 7, 3, 256)}


def read(file: h5_file.H5File, *, said: str) -> dict[str, tensors.Tensor]:
    """Returns the tensors of a file by their released names.

    Args:
        file: a released one, known by order, or one of Keras 3, by place.
        said: text with the architectures that it is said to be of.

    Raises:
        ValueError: a number of tensors that no BiT network has, or one of the
            two released files that hold another network.
    """
    if file.is_legacy:
        return _by_order(file, said)
    places = {layout.keras_name(key): key for key in layout.every_key()}
    return tensors.named(file, lambda name: places.get(name, name))


def _by_order(file: h5_file.H5File, said: str) -> dict[str, tensors.Tensor]:
    keys_by_count = {
        len(keys): keys
        for depth in architecture.UNITS
        for classes in (None, 1)
        if (keys := list(layout.shapes(depth, 1, classes)))
    }
    names = list(file.specs)
    if len(names) not in keys_by_count:
        raise ValueError(
            f"it holds {len(names)} tensors, the last is "
            f"{names[-1] if names else 'none'}; a BiT network has "
            f"{', '.join(map(str, sorted(keys_by_count)))}."
        )
    keys = dict(zip(names, keys_by_count[len(names)], strict=True))
    # Its dense head is the 1x1 kernel without two axes.
    found = tensors.named(
        file,
        keys.__getitem__,
        shape_of=lambda s: (1, 1, *s) if len(s) == 2 else s,
        array_of=lambda a: a[None, None] if a.ndim == 2 else a,
    )
    shapes = {key: tensor.shape for key, tensor in found.items()}
    _check_mislabelled(
        shapes[layout.ROOT],
        f"{said} {architecture.name(*layout.infer(shapes))}",
    )
    return found


def _check_mislabelled(root: layout.Shape, said: str) -> None:
    for name, wrong in _MISLABELLED.items():
        if root == wrong and re.search(rf"{name}(?!\d)", said):
            wanted = layout.shapes(*architecture.parse_name(name), None)
            raise ValueError(
                f"tensor {layout.ROOT} has shape {root}, needed is "
                f"{wanted[layout.ROOT]}. The .h5 released as BiT-S-{name} is "
                "so: it holds another network (google-research/big_transfer "
                f"issue 47). Take BiT-S-{name}.npz instead."
            )
