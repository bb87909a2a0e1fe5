"""The weights that the authors of the paper published, as a table; and ours.

All lie in one public bucket, as .npz in the layout of `layout`; the upstream
models of five architectures also as .h5 for tf.keras. BiT-L, trained on
JFT-300M, was never published (google-research/big_transfer issues 4 and 50).
No checksum was published either: what is recorded beside a file at its first
download guards it from then on. One small file lies in the package.
"""

import dataclasses
import pathlib

from bit_tf import architecture as architecture_lib
from bit_tf import labels as labels_lib
from bit_tf import layout

# The public bucket gs://bit_models.
BASE_URL = "https://storage.googleapis.com/bit_models"
ARCHITECTURES = ("R50x1", "R101x1", "R50x3", "R101x3", "R152x2", "R152x4")
# Pixels, where nothing says more: BiT was pre-trained so.
DEFAULT_RESOLUTION = 224
UPSTREAM_CLASSES = {"S": 1000, "M": 21843}
# Pre-trained by this package, see assets/BiT-XS-R26x0.5.md.
SHIPPED = "BiT-XS-R26x0.5"

# VTAB-1k task -> classes, and whether its images are below 96 x 96 pixels.
# Tasks and files: README of google-research/big_transfer; classes and sizes:
# google-research/task_adaptation.
_VTAB_TASKS = {
    "caltech101": (102, False),
    "diabetic_retinopathy": (5, False),
    "dtd": (47, False),
    "oxford_flowers102": (102, False),
    "oxford_iiit_pet": (37, False),
    "resisc45": (45, False),
    "sun397": (397, False),
    "cifar100": (100, True),
    "eurosat": (10, True),
    "patch_camelyon": (2, False),
    "smallnorb-elevation": (9, False),
    "svhn": (10, True),
    "dsprites-orientation": (16, True),
    "smallnorb-azimuth": (18, False),
    "clevr-distance": (6, False),
    "clevr-count": (8, False),
    "dmlab": (6, False),
    "kitti-distance": (4, False),
    "dsprites-xpos": (16, True),
}
_VTAB_ARCHITECTURES = ("R50x1", "R101x1", "R50x3", "R101x3", "R152x4")
_VTAB_RUNS = 3
# Crops of the authors' code for images up to 96 x 96 pixels and above,
# bit_hyperrule.py. The paper has 384 for all but R152x4.
_SMALL_CROP, _LARGE_CROP = 128, 480
# Distilled students and their teachers (arXiv 2106.05237) -> architecture,
# classes, pixels. README of big_vision/configs/proj/distill.
_DISTILLED = {
    "distill/R50x1_224": ("R50x1", 1000, 224),
    "distill/R50x1_160": ("R50x1", 1000, 160),
    "distill/R152x2_T_224": ("R152x2", 1000, 224),
    "distill/R152x2_T_384": ("R152x2", 1000, 384),
    "distill/R152x2_T_flowers128": ("R152x2", 102, 128),
    "distill/R152x2_T_pet128": ("R152x2", 37, 128),
    "distill/R152x2_T_food128": ("R152x2", 101, 128),
    "distill/R152x2_T_sun128": ("R152x2", 397, 128),
}


@dataclasses.dataclass(frozen=True)
class Entry:
    """One published network, or the shipped one.

    Args:
        name: path in the bucket without suffix, e.g. "BiT-M-R50x1",
            "distill/R50x1_224", "vtab/BiT-M-R50x1-run0-dtd".
        architecture: e.g. "R50x1".
        num_classes: outputs of the head.
        head: "softmax" for one label per image, "sigmoid" for several:
            BiT-M was pre-trained with a loss per class.
        resolution: side of the square images it was last trained on, pixels.
        formats: suffixes under which it was published.
        labels: the set whose order of classes it has (see `labels`); None
            for other tasks.
        is_shipped: whether the package brings it, and nobody published it.
        remark: what to know before using it; "" for nothing.
    """

    name: str
    architecture: str
    num_classes: int
    head: str
    resolution: int
    formats: tuple[str, ...] = (".npz",)
    labels: str | None = None
    is_shipped: bool = False
    remark: str = ""

    def url(self, suffix: str = ".npz", *, base: str = BASE_URL) -> str:
        """Returns where the file is published.

        Raises:
            ValueError: it was not published in that format.
        """
        self.check_format(suffix)
        return f"{base.rstrip('/')}/{self.name}{suffix}"

    def check_format(self, suffix: str) -> None:
        """Raises ValueError if it does not exist in that format."""
        if suffix not in self.formats:
            raise ValueError(
                f"{self.name} was not published as {suffix}: allowed is "
                f"{' or '.join(self.formats)}."
            )

    @property
    def asset(self) -> pathlib.Path:
        """Where a shipped file is."""
        return pathlib.Path(__file__).parent / "assets" / f"{self.name}.npz"

    @property
    def shapes(self) -> dict[str, layout.Shape]:
        """Shape of every tensor, by name."""
        depth, width = architecture_lib.parse_name(self.architecture)
        return layout.shapes(depth, width, self.num_classes)

    @property
    def size(self) -> int:
        """Bytes of its weights in the .npz: float32, or float16 if shipped."""
        return (2 if self.is_shipped else 4) * layout.parameters(self.shapes)


def _entries():
    yield Entry(
        name=SHIPPED,
        architecture="R26x0.5",
        num_classes=200,
        head="softmax",
        resolution=48,
        labels="tiny_imagenet",
        is_shipped=True,
        remark="in the package; not the authors'",
    )
    for letter, classes in UPSTREAM_CLASSES.items():
        for name in ARCHITECTURES:
            wrong_h5 = letter == "S" and name in ("R50x3", "R101x1")
            yield Entry(
                name=f"BiT-{letter}-{name}",
                architecture=name,
                num_classes=classes,
                head="sigmoid" if letter == "M" else "softmax",
                resolution=224,
                formats=(".npz",) if name == "R152x2" else (".npz", ".h5"),
                labels="imagenet21k" if letter == "M" else "ilsvrc2012",
                remark="the .h5 holds another network" if wrong_h5 else "",
            )
    for letter in ("M", "S"):
        for name in ARCHITECTURES:
            unseen = letter == "S" and name == "R101x1"
            yield Entry(
                name=f"BiT-{letter}-{name}-ILSVRC2012",
                architecture=name,
                num_classes=1000,
                head="softmax",
                resolution=_LARGE_CROP,
                labels="ilsvrc2012",
                remark="named by no list; may not exist" if unseen else "",
            )
    yield Entry(
        name="BiT-M-R50x1-CIFAR10",
        architecture="R50x1",
        num_classes=10,
        head="softmax",
        resolution=_SMALL_CROP,
    )
    for name, (architecture, classes, resolution) in _DISTILLED.items():
        yield Entry(
            name=name,
            architecture=architecture,
            num_classes=classes,
            head="softmax",
            resolution=resolution,
            labels="ilsvrc2012" if classes == 1000 else None,
        )
    for architecture in _VTAB_ARCHITECTURES:
        for task, (classes, is_small) in _VTAB_TASKS.items():
            for run in range(_VTAB_RUNS):
                yield Entry(
                    name=f"vtab/BiT-M-{architecture}-run{run}-{task}",
                    architecture=architecture,
                    num_classes=classes,
                    head="softmax",
                    resolution=_SMALL_CROP if is_small else _LARGE_CROP,
                )


ENTRIES = {entry.name: entry for entry in _entries()}


def find(name: str) -> Entry:
    """Returns a published network by its name.

    Raises:
        ValueError: there is none of that name.
    """
    if name in ENTRIES:
        return ENTRIES[name]
    if name.startswith("BiT-L-"):
        raise ValueError(
            f"{name} was never published: the BiT-L weights, trained on "
            "JFT-300M, stayed with their authors. Take BiT-M."
        )
    if name.startswith("BiT-"):
        allowed = ", ".join(n for n in ENTRIES if n.startswith("BiT-"))
    else:
        folder = name.split("/")[0]
        allowed = ", ".join(
            [n for n in ENTRIES if n.startswith(f"{folder}/")][:8]
        )
    raise ValueError(
        f"no weights were published as {name!r}: allowed are {allowed}; all "
        "are listed by python -m bit_tf.convert --list"
    )


def class_names(entry: Entry | None, num_classes: int) -> tuple[str, ...]:
    """Returns the classes of a published file in their order, or numbers."""
    if entry and entry.labels:
        return labels_lib.class_names(entry.labels)
    return tuple(str(number) for number in range(num_classes))


def by_file(
    path: pathlib.Path, *, architecture: str, num_classes: int | None
) -> Entry | None:
    """Returns the published network that a file is, by name and content.

    Args:
        path: of the file, whatever its suffix.
        architecture: what it holds, e.g. "R50x1".
        num_classes: outputs of its head.
    """
    for entry in ENTRIES.values():
        if (
            f"{path.name}.".startswith(f"{entry.name.rsplit('/', 1)[-1]}.")
            and entry.architecture == architecture
            and entry.num_classes == num_classes
        ):
            return entry
    return None
