"""The sizes behind a name such as R50x1 (section 3.2)."""

import re

# Depth -> bottleneck units in each of the four blocks.
UNITS = {
    26: (2, 2, 2, 2),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
BASE_CHANNELS = 64
# Channels of a block over those inside its bottlenecks.
BOTTLENECK_EXPANSION = 4
GROUPS = 32
# Four times the widest released model; R152x16 has 15 billion parameters.
MAX_WIDTH = 16


def parse_name(name: str) -> tuple[int, float]:
    """Reads "R50x1" as (depth, width).

    Raises:
        ValueError: not such a name, an unknown depth, or a width that 32
            groups do not divide.
    """
    match = re.fullmatch(r"R(\d{1,4})x(\d{1,4}(?:\.\d{1,4})?)", name)
    depth, width = (int(match[1]), float(match[2])) if match else (0, 0.0)
    if depth not in UNITS:
        raise ValueError(
            f"unknown model {name!r}: allowed is R{{depth}}x{{width}} with "
            f"depth {', '.join(map(str, UNITS))}, such as R26x0.5 or R50x1."
        )
    channels = BASE_CHANNELS * width
    if not 0 < width <= MAX_WIDTH:
        raise ValueError(
            f"model {name!r}: width {width:g} is not possible: allowed are "
            f"multiples of {GROUPS / BASE_CHANNELS:g} up to {MAX_WIDTH}."
        )
    if channels % GROUPS:
        raise ValueError(
            f"model {name!r}: width {width:g} gives {channels:g} channels, "
            f"which {GROUPS} groups do not divide: allowed are multiples of "
            f"{GROUPS / BASE_CHANNELS:g}."
        )
    return depth, width


def name(depth: int, width: float) -> str:
    """Returns e.g. "R50x1", "R26x0.5"."""
    return f"R{depth}x{width:g}"


def num_features(width: float) -> int:
    """Returns how many pre-logits a network of that width has: 2048 * width."""
    # Channels double with each of the blocks after the first.
    blocks = len(UNITS[50])
    return int(BASE_CHANNELS * width * BOTTLENECK_EXPANSION * 2 ** (blocks - 1))


def activations(name: str, side: int) -> int:
    """Returns how many numbers the convolutions put out for one image.

    Args:
        name: e.g. "R50x1".
        side: of the square image, pixels.
    """
    depth, width = parse_name(name)

    def pixels(stride: int) -> int:
        return (-(-side // stride)) ** 2

    channels = int(BASE_CHANNELS * width)
    total = pixels(2) * channels
    for index, units in enumerate(UNITS[depth]):
        middle = channels * 2**index
        stride = 4 * 2**index
        # a, b, c of every unit and one shortcut; the first a is not yet
        # strided.
        total += units * 6 * middle * pixels(stride)
        total += 4 * middle * pixels(stride)
        if index:
            total += middle * (pixels(stride // 2) - pixels(stride))
    return total


def multiplications(name: str, side: int) -> int:
    """Returns the multiply-adds of the convolutions for one image, forward.

    A training step takes three times as many: forward, and backward once for
    the inputs and once for the kernels.

    Args:
        name: e.g. "R50x1".
        side: of the square image, pixels.
    """
    depth, width = parse_name(name)

    def pixels(stride: int) -> int:
        return (-(-side // stride)) ** 2

    channels = int(BASE_CHANNELS * width)
    total = 7 * 7 * 3 * channels * pixels(2)
    inputs = channels
    for index, units in enumerate(UNITS[depth]):
        middle = channels * 2**index
        outputs = BOTTLENECK_EXPANSION * middle
        before, after = 4 * 2 ** max(0, index - 1), 4 * 2**index
        total += inputs * (middle * pixels(before) + outputs * pixels(after))
        total += (units - 1) * outputs * middle * pixels(after)
        total += units * middle * (9 * middle + outputs) * pixels(after)
        inputs = outputs
    return total
