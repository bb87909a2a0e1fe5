"""Every data set of the paper: splits, counts, classes, switches.

Downstream sets (paper, section 4.1), the variants of ILSVRC-2012, and the 19
tasks of VTAB-1k with 1,000 training images each (appendix F; the splits and
label rules are those of VTAB's code). Counts are those of the protocol.
"""

import dataclasses

from bit_tf import labelling
from bit_tf import tasks

GROUPS = ("natural", "specialized", "structured")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
    """A data set as the paper uses it.

    Args:
        name: e.g. "clevr_count".
        location: TFDS name, config and version.
        train_split: empty where nothing trains.
        eval_split: what is reported on.
        train_examples: in it; 0 where nothing trains.
        eval_examples: in it.
        classes: how many.
        size: (height, width) that decides the resolution, pixels; of sets
            whose images differ a typical one.
        group: of VTAB; "" for others.
        rule: how labels come about; None for the set's own.
        random_flip: False where left and right matter (section 3.3).
        random_crop: False where place and number matter.
        pixel_scale: by which stored values are multiplied.
        remark: where today's version is not the protocol's, or how to get it.
    """

    name: str
    location: str
    eval_split: str
    eval_examples: int
    classes: int
    size: tuple[int, int]
    train_split: str = ""
    train_examples: int = 0
    group: str = ""
    rule: labelling.Rule | None = None
    random_flip: bool = True
    random_crop: bool = True
    pixel_scale: int = 1
    remark: str = ""

    def task(self, *, evaluating: bool = False) -> tasks.Task:
        """Returns what is loaded.

        Args:
            evaluating: whether nothing is to be trained.

        Raises:
            ValueError: nothing trains on it.
        """
        if not self.train_split and not evaluating:
            raise ValueError(
                f"{self.name} is for evaluating only: give another --dataset."
            )
        return tasks.Task(
            kind="tfds",
            location=self.location,
            train_split=self.train_split or self.eval_split,
            eval_split=self.eval_split,
            rule=self.rule,
            random_flip=self.random_flip,
            random_crop=self.random_crop,
            pixel_scale=self.pixel_scale,
        )


_HALVES = "train[:800]+validation[:200]"
_MANUAL = "TFDS wants the archive downloaded by hand"


def _parts(first: int) -> str:
    """Of sets with one split the 200 stand where validation begins."""
    return f"train[:800]+train[{first}:{first + 200}]"


def _vtab(name, location, group, classes, size, train, test, count, **kwargs):
    return Entry(
        name=name,
        location=location,
        group=group,
        classes=classes,
        size=size,
        train_split=train,
        train_examples=1000,
        eval_split=test,
        eval_examples=count,
        **kwargs,
    )


_LARGE = (300, 300)
_NATURAL, _SPECIALIZED, _STRUCTURED = GROUPS

VTAB = (
    _vtab(
        *("caltech101", "caltech101:3.*", _NATURAL, 102, _LARGE),
        *(_parts(2754), "test", 6084),
    ),
    _vtab(
        *("cifar100", "cifar100:3.*", _NATURAL, 100, (32, 32)),
        *(_parts(45000), "test", 10000),
    ),
    _vtab(
        *("dtd", "dtd:3.*", _NATURAL, 47, _LARGE),
        *(_HALVES, "test", 1880),
    ),
    _vtab(
        *("flowers102", "oxford_flowers102:2.*", _NATURAL, 102, _LARGE),
        *(_HALVES, "test", 6149),
    ),
    _vtab(
        *("pets", "oxford_iiit_pet:4.*", _NATURAL, 37, _LARGE),
        *(_parts(2944), "test", 3669),
        remark="the protocol has version 3.*, which TFDS no longer has: the "
        "1,000 images are others",
    ),
    _vtab(
        *("sun397", "sun397/tfds:4.*", _NATURAL, 397, _LARGE),
        *(_HALVES, "test", 21750),
    ),
    _vtab(
        *("svhn", "svhn_cropped:3.*", _NATURAL, 10, (32, 32)),
        *(_parts(65931), "test", 26032),
    ),
    _vtab(
        *("eurosat", "eurosat/rgb:2.*", _SPECIALIZED, 10, (64, 64)),
        *(_parts(16200), "train[21600:]", 5400),
    ),
    _vtab(
        *("resisc45", "resisc45:3.*", _SPECIALIZED, 45, (256, 256)),
        *(_parts(18900), "train[25200:]", 6300),
        remark=_MANUAL,
    ),
    _vtab(
        *("patch_camelyon", "patch_camelyon:2.*", _SPECIALIZED, 2, (96, 96)),
        *(_HALVES, "test", 32768),
    ),
    _vtab(
        "retinopathy",
        "diabetic_retinopathy_detection/btgraham-300:3.*",
        *(_SPECIALIZED, 5, _LARGE, _HALVES, "test", 42670),
        remark=_MANUAL,
    ),
    _vtab(
        *("clevr_count", "clevr:3.*", _STRUCTURED, 8, (320, 480)),
        *(_parts(63000), "validation", 15000),
        rule=labelling.CLEVR_COUNT,
        random_crop=False,
    ),
    _vtab(
        *("clevr_distance", "clevr:3.*", _STRUCTURED, 6, (320, 480)),
        *(_parts(63000), "validation", 15000),
        rule=labelling.CLEVR_DISTANCE,
        random_crop=False,
    ),
    _vtab(
        *("dmlab", "dmlab:2.0.1", _STRUCTURED, 6, (360, 480)),
        *(_HALVES, "test", 22735),
        random_crop=False,
    ),
    _vtab(
        *("dsprites_location", "dsprites:2.*", _STRUCTURED, 16, (64, 64)),
        *(_parts(589824), "train[663552:]", 73728),
        rule=labelling.DSPRITES_LOCATION,
        random_flip=False,
        random_crop=False,
        pixel_scale=255,
    ),
    _vtab(
        *("dsprites_orientation", "dsprites:2.*", _STRUCTURED, 16, (64, 64)),
        *(_parts(589824), "train[663552:]", 73728),
        rule=labelling.DSPRITES_ORIENTATION,
        random_flip=False,
        pixel_scale=255,
    ),
    _vtab(
        *("kitti_distance", "kitti:3.1.0", _STRUCTURED, 4, (375, 1242)),
        *(_HALVES, "test", 711),
        rule=labelling.KITTI_DISTANCE,
        random_crop=False,
    ),
    _vtab(
        *("smallnorb_azimuth", "smallnorb:2.*", _STRUCTURED, 18, (96, 96)),
        *("train[:800]+test[:200]", "test[50%:]", 12150),
        rule=labelling.SMALLNORB_AZIMUTH,
        random_flip=False,
    ),
    _vtab(
        *("smallnorb_elevation", "smallnorb:2.*", _STRUCTURED, 9, (96, 96)),
        *("train[:800]+test[:200]", "test[50%:]", 12150),
        rule=labelling.SMALLNORB_ELEVATION,
    ),
)

_ILSVRC = {"classes": 1000, "size": (375, 500)}
DOWNSTREAM = (
    Entry(
        name="ilsvrc2012",
        location="imagenet2012:5.*",
        train_split="train",
        train_examples=1_281_167,
        eval_split="validation",
        eval_examples=50_000,
        remark=_MANUAL,
        **_ILSVRC,
    ),
    Entry(
        name="cifar10",
        location="cifar10:3.*",
        train_split="train",
        train_examples=50_000,
        eval_split="test",
        eval_examples=10_000,
        classes=10,
        size=(32, 32),
    ),
    Entry(
        name="cifar100",
        location="cifar100:3.*",
        train_split="train",
        train_examples=50_000,
        eval_split="test",
        eval_examples=10_000,
        classes=100,
        size=(32, 32),
    ),
    Entry(
        name="pets",
        location="oxford_iiit_pet:4.*",
        train_split="train",
        train_examples=3_680,
        eval_split="test",
        eval_examples=3_669,
        classes=37,
        size=_LARGE,
        remark="the paper's time had version 3.*, which TFDS no longer has",
    ),
    Entry(
        name="flowers",
        location="oxford_flowers102:2.*",
        train_split="train+validation",
        train_examples=2_040,
        eval_split="test",
        eval_examples=6_149,
        classes=102,
        size=_LARGE,
        remark="the paper does not say whether the 1,020 validation images "
        "train; here they do",
    ),
)
# Evaluated with a head of ILSVRC-2012.
VARIANTS = (
    Entry(
        name="ilsvrc2012_real",
        location="imagenet2012_real:1.*",
        eval_split="validation",
        eval_examples=50_000,
        remark=f"several labels per image; {_MANUAL}",
        **_ILSVRC,
    ),
    Entry(
        name="ilsvrc2012_v2",
        location="imagenet_v2/matched-frequency:3.*",
        eval_split="test",
        eval_examples=10_000,
        **_ILSVRC,
    ),
    Entry(
        name="ilsvrc2012_a",
        location="imagenet_a:0.1.*",
        eval_split="test",
        eval_examples=7_500,
        remark="of 200 of the classes",
        **_ILSVRC,
    ),
    Entry(
        name="ilsvrc2012_r",
        location="imagenet_r:0.2.*",
        eval_split="test",
        eval_examples=30_000,
        remark="of 200 of the classes",
        **_ILSVRC,
    ),
    Entry(
        name="ilsvrc2012_sketch",
        location="imagenet_sketch:1.*",
        eval_split="test",
        eval_examples=50_889,
        **_ILSVRC,
    ),
)
KINDS = {
    "paper": {entry.name: entry for entry in (*DOWNSTREAM, *VARIANTS)},
    "vtab": {entry.name: entry for entry in VTAB},
}


def find(dataset: str) -> Entry | None:
    """Returns the entry of "vtab:NAME" or "paper:NAME"; None for others.

    Raises:
        ValueError: there is none of that name.
    """
    kind, _, name = dataset.partition(":")
    if kind not in KINDS:
        return None
    if name not in KINDS[kind]:
        raise ValueError(
            f"{dataset}: allowed are {', '.join(KINDS[kind])} after {kind}:"
        )
    return KINDS[kind][name]


def vtab_scores(top1: dict[str, float]) -> dict[str, float]:
    """Returns the mean of each group, and of all 19 tasks.

    Args:
        top1: task -> accuracy; of a group without all its tasks there is no
            mean, and neither of all.
    """
    found = {}
    for group in GROUPS:
        names = [entry.name for entry in VTAB if entry.group == group]
        if names and all(name in top1 for name in names):
            found[group] = sum(top1[name] for name in names) / len(names)
    if len(found) == len(GROUPS):
        found["mean"] = sum(top1[e.name] for e in VTAB) / len(VTAB)
    return found
