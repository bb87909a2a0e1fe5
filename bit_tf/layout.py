"""What a weights file holds: tensor names and shapes, by architecture.

The released .npz files keep the variable names of the authors' TensorFlow 1
code; they are the names used everywhere here. timm and transformers store the
same tensors under their own names and with PyTorch's axes.
"""

import collections
import math
import re
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping

import numpy as np

from bit_tf import architecture

Shape = tuple[int, ...]

HEAD_KERNEL = "resnet/head/conv2d/kernel"
HEAD_BIAS = "resnet/head/conv2d/bias"
HEAD = (HEAD_KERNEL, HEAD_BIAS)
ROOT = "resnet/root_block/standardized_conv2d/kernel"
FINAL_NORM = "resnet/group_norm"

_UNIT_KEY = re.compile(
    r"resnet/block(?P<block>\d)/unit(?P<unit>\d\d)/(?P<branch>[abc])/"
    r"(?P<layer>group_norm|standardized_conv2d|proj/standardized_conv2d)/"
    r"(?P<kind>gamma|beta|kernel)"
)


def shapes(
    depth: int, width: float, num_classes: int | None
) -> dict[str, Shape]:
    """Returns the shape of every tensor of a released file.

    In the order in which the released .h5 files have them, which have no
    usable names: root, units (a, b, c, and the projection last), final norm,
    head.

    Args:
        depth: 26, 50, 101 or 152.
        width: channel multiplier.
        num_classes: outputs of the head; None for no head.
    """
    channels = int(architecture.BASE_CHANNELS * width)
    found: dict[str, Shape] = {ROOT: (7, 7, 3, channels)}

    def norm(prefix: str, size: int) -> None:
        found[f"{prefix}/gamma"] = (size,)
        found[f"{prefix}/beta"] = (size,)

    size = channels
    for block, units in enumerate(architecture.UNITS[depth], start=1):
        middle = channels * 2 ** (block - 1)
        wide = architecture.BOTTLENECK_EXPANSION * middle
        for unit in range(1, units + 1):
            prefix = f"resnet/block{block}/unit{unit:02d}"
            for branch, shape in (
                ("a", (1, 1, size, middle)),
                ("b", (3, 3, middle, middle)),
                ("c", (1, 1, middle, wide)),
            ):
                norm(f"{prefix}/{branch}/group_norm", shape[2])
                kernel = f"{prefix}/{branch}/standardized_conv2d/kernel"
                found[kernel] = shape
            if unit == 1:
                kernel = f"{prefix}/a/proj/standardized_conv2d/kernel"
                found[kernel] = (1, 1, size, wide)
            size = wide
    norm(FINAL_NORM, size)
    if num_classes is not None:
        found[HEAD_KERNEL] = (1, 1, size, num_classes)
        found[HEAD_BIAS] = (num_classes,)
    return found


def parameters(found: Mapping[str, Shape]) -> int:
    """Returns the number of weights."""
    return sum(math.prod(shape) for shape in found.values())


def canonical(name: str) -> str:
    """Returns the usual name of a tensor that a released file names oddly.

    Some number their convolutions ("standardized_conv2d_17"), and the
    projection is known by its place, not by what it is called there.
    """
    name = re.sub(r"\bstandardized_conv2d_\d+\b", "standardized_conv2d", name)
    return re.sub(
        r"^(resnet/block\d/unit\d\d/a/proj)/(?:[^/]+/)*kernel$",
        r"\1/standardized_conv2d/kernel",
        name,
    )


def infer(found: Mapping[str, Shape]) -> tuple[int, float]:
    """Returns depth and width of the network that tensors come from.

    The majority decides, so that one wrong tensor does not; which one it is,
    `check` says.

    Args:
        found: shape by canonical name.

    Raises:
        ValueError: they are of no BiT network.
    """
    names = set(found)
    depth = max(
        architecture.UNITS, key=lambda d: -len(names ^ shapes(d, 1, 1).keys())
    )
    unit_wide = shapes(depth, 1, None)
    widths = collections.Counter(
        found[name][-1] / unit_wide[name][-1]
        for name in names & unit_wide.keys()
        if found[name]
    )
    if not widths:
        example = f", such as {min(names)}" if names else ""
        raise ValueError(
            f"none of its {len(names)} tensors{example} is one of a BiT "
            "network."
        )
    width = widths.most_common(1)[0][0]
    architecture.parse_name(architecture.name(depth, width))
    return depth, width


def num_classes(found: Mapping[str, Shape]) -> int | None:
    """Returns the size of the head; None if there is none.

    Raises:
        ValueError: there is half a head, or its parts do not fit together.
    """
    present = [name for name in HEAD if name in found]
    if not present:
        return None
    if len(present) == 1:
        (missing,) = set(HEAD) - set(present)
        raise ValueError(f"tensor {missing} is missing; {present[0]} is there.")
    kernel, bias = (found[name] for name in HEAD)
    if len(bias) != 1 or bias[0] < 1:
        raise ValueError(
            f"tensor {HEAD_BIAS} has shape {bias}, needed is (classes,)."
        )
    if len(kernel) != 4 or kernel[:2] != (1, 1) or kernel[3] != bias[0]:
        raise ValueError(
            f"tensor {HEAD_KERNEL} has shape {kernel}, needed is (1, 1, "
            f"features, {bias[0]}) beside {HEAD_BIAS} of shape {bias}."
        )
    return bias[0]


def check(
    found: Mapping[str, Shape],
    wanted: Mapping[str, Shape],
    *,
    called: Callable[[str], str] = str,
) -> None:
    """Compares the tensors of a file with those of a network.

    Args:
        found: shape by canonical name.
        wanted: the same of the network.
        called: returns what the file calls a tensor, for the text.

    Raises:
        ValueError: naming the first tensor that is missing, surplus, or of
            another shape, with both shapes.
    """
    missing = [name for name in wanted if name not in found]
    surplus = sorted(name for name in found if name not in wanted)
    if missing:
        more = f" (and {len(missing) - 1} more)" if missing[1:] else ""
        instead = f"; surplus there is {surplus[0]}" if surplus else ""
        raise ValueError(
            f"tensor {called(missing[0])} of shape {wanted[missing[0]]}{more} "
            f"is missing{instead}."
        )
    if surplus:
        more = f" (and {len(surplus) - 1} more)" if surplus[1:] else ""
        raise ValueError(
            f"tensor {surplus[0]} of shape {found[surplus[0]]}{more} is "
            "surplus."
        )
    for name, shape in wanted.items():
        if found[name] != shape:
            raise ValueError(
                f"tensor {called(name)} has shape {found[name]}, needed is "
                f"{shape}."
            )


# Kind of tensor -> its name in PyTorch.
_TORCH_KIND = {
    "gamma": "weight",
    "beta": "bias",
    "kernel": "weight",
    "bias": "bias",
}


def timm_name(key: str) -> str:
    """Returns the name of a tensor in timm's resnetv2_*_bit models."""
    return _torch_name(
        key,
        root="stem.conv",
        unit="stages.{block}.blocks.{unit}",
        norm="norm",
        head="head.fc",
    )


def transformers_name(key: str) -> str:
    """Returns its name in transformers' BitForImageClassification."""
    return _torch_name(
        key,
        root="bit.embedder.convolution",
        unit="bit.encoder.stages.{block}.layers.{unit}",
        norm="bit.norm",
        head="classifier.1",
    )


def _torch_name(key: str, *, root: str, unit: str, norm: str, head: str) -> str:
    kind = _TORCH_KIND[key.rsplit("/", 1)[1]]
    if key == ROOT:
        return f"{root}.{kind}"
    if key in HEAD:
        return f"{head}.{kind}"
    match = _UNIT_KEY.fullmatch(key)
    if not match:
        return f"{norm}.{kind}"
    place = unit.format(
        block=int(match["block"]) - 1, unit=int(match["unit"]) - 1
    )
    if match["layer"].startswith("proj"):
        return f"{place}.downsample.conv.{kind}"
    layer = "norm" if match["layer"] == "group_norm" else "conv"
    number = "abc".index(match["branch"]) + 1
    return f"{place}.{layer}{number}.{kind}"


def keras_name(key: str) -> str:
    """Returns the place of a tensor in a .weights.h5 that Keras 3 writes."""
    if key == ROOT:
        return "layers/root_block/conv/vars/0"
    if key in HEAD:
        return f"layers/head/conv/vars/{HEAD.index(key)}"
    match = _UNIT_KEY.fullmatch(key)
    if not match:
        return f"layers/group_norm/vars/{int(key.endswith('beta'))}"

    def numbered(stem: str, number: str) -> str:
        return stem if int(number) == 1 else f"{stem}_{int(number) - 1}"

    layer = (
        "proj"
        if match["layer"].startswith("proj")
        else f"norm_{match['branch']}"
        if match["layer"] == "group_norm"
        else f"conv_{match['branch']}"
    )
    return (
        f"layers/{numbered('block', match['block'])}/units/"
        f"{numbered('bottleneck_unit', match['unit'])}/{layer}/vars/"
        f"{int(match['kind'] == 'beta')}"
    )


def every_key() -> Iterable[str]:
    """Returns the keys of all architectures that can be built."""
    keys: dict[str, None] = {}
    for depth in architecture.UNITS:
        keys.update(dict.fromkeys(shapes(depth, 1, 1)))
    return keys


def to_torch(array: np.ndarray) -> np.ndarray:
    """Moves the axes of a kernel from (H, W, in, out) to (out, in, H, W)."""
    return array.transpose(3, 2, 0, 1) if array.ndim == 4 else array


def from_torch(array: np.ndarray) -> np.ndarray:
    """The way back of `to_torch`; a linear layer's becomes a 1x1 kernel."""
    if array.ndim == 2:
        array = array[:, :, None, None]
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array


def shape_to_torch(shape: Shape) -> Shape:
    """What `to_torch` does to a shape."""
    return tuple(shape[i] for i in (3, 2, 0, 1)) if len(shape) == 4 else shape


def shape_from_torch(shape: Shape) -> Shape:
    """What `from_torch` does to a shape."""
    if len(shape) == 2:
        shape = (*shape, 1, 1)
    return tuple(shape[i] for i in (2, 3, 1, 0)) if len(shape) == 4 else shape
