"""Labels that a task derives from what a data set says of an image.

The VTAB-1k protocol turns counts, distances and poses into classes (Zhai et
al., arXiv 1910.04867; the rules as its code has them).
"""

import dataclasses
import itertools
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np

CLEVR_DISTANCES = (0.0, 8.0, 8.5, 9.0, 9.5, 10.0, 100.0)
KITTI_DISTANCES = (-100.0, 8.0, 20.0, 999.0)
# Where there is no vehicle.
KITTI_NOTHING = 1000.0
# Of KITTI's types: car, van, truck.
_VEHICLES = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rule:
    """How a label comes from stored features.

    Args:
        features: their names in the data set, "objects/type".
        class_names: one per class.
        label: flat arrays of the features -> the class.
    """

    features: tuple[str, ...]
    class_names: tuple[str, ...]
    label: Callable[..., int]

    def apply(self, stored: Mapping[str, np.ndarray]) -> int:
        """Returns the label of an image.

        Raises:
            ValueError: it is none of the classes.
        """
        found = self.label(*(stored[name] for name in self.features))
        if not 0 <= found < len(self.class_names):
            raise ValueError(
                f"label {found} of {len(self.class_names)} classes."
            )
        return found


def interval(value: float, edges: Sequence[float]) -> int:
    """Returns the index of the largest edge that is below `value`."""
    return int(np.sum(np.asarray(edges, np.float64) < value)) - 1


def _numbers(count: int, text: str = "{}") -> tuple[str, ...]:
    return tuple(text.format(index) for index in range(count))


def _between(edges: Sequence[float], unit: str) -> tuple[str, ...]:
    return tuple(
        f"{low:g} to {high:g} {unit}" for low, high in itertools.pairwise(edges)
    )


def stored(feature: str, class_names: Sequence[str]) -> Rule:
    """A label that is stored as it is used."""
    return Rule(
        features=(feature,),
        class_names=tuple(class_names),
        label=lambda value: int(value[0]),
    )


def binned(feature: str, old: int, new: int) -> Rule:
    """Of `old` numbered classes `new`: floor(label * new / old)."""
    return Rule(
        features=(feature,),
        class_names=_numbers(new, feature.removeprefix("label_") + " {}"),
        # In whole numbers: 2.5 divides 40 into 16.
        label=lambda value: int(value[0]) * new // old,
    )


CLEVR_COUNT = Rule(
    # Any feature of the objects: there is one of each.
    features=("objects/color",),
    class_names=tuple(f"{count} objects" for count in range(3, 11)),
    label=lambda colours: len(colours) - 3,
)
CLEVR_DISTANCE = Rule(
    features=("objects/pixel_coords",),
    class_names=_between(CLEVR_DISTANCES, "away"),
    label=lambda places: interval(
        places.reshape(-1, 3)[:, 2].min(), CLEVR_DISTANCES
    ),
)


def _kitti(types: np.ndarray, places: np.ndarray) -> int:
    distances = places.reshape(-1, 3)[types < _VEHICLES, 2]
    nearest = distances.min() if len(distances) else KITTI_NOTHING
    return interval(nearest, KITTI_DISTANCES)


KITTI_DISTANCE = Rule(
    features=("objects/type", "objects/location"),
    class_names=(
        "up to 8 m",
        "8 to 20 m",
        "beyond 20 m",
        "no vehicle",
    ),
    label=_kitti,
)
DSPRITES_LOCATION = binned("label_x_position", 32, 16)
DSPRITES_ORIENTATION = binned("label_orientation", 40, 16)
SMALLNORB_AZIMUTH = stored("label_azimuth", _numbers(18, "azimuth {}"))
SMALLNORB_ELEVATION = stored("label_elevation", _numbers(9, "elevation {}"))
