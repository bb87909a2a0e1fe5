"""Builds bit_tf/assets/patches.zip from the photographs of scikit-image.

python experiments/builtin_patches.py

Ten photographs, ten classes: crops of 64 pixels, the training ones from the
left 60 % of each photograph and the test ones from the right 40 %, so that no
pixel is in both. The task is to tell which photograph, or which material, a
crop is from. Needs scikit-image 0.26 and Pillow; the photographs' licences are
in bit_tf/assets/patches.LICENSE.md.
"""

import importlib.resources
import io
import zipfile

import numpy as np
import skimage.data
from PIL import Image

PHOTOGRAPHS = (
    "astronaut",
    "brick",
    "camera",
    "chelsea",
    "coffee",
    "grass",
    "gravel",
    "hubble_deep_field",
    "retina",
    "rocket",
)
SIDE = 64
TRAIN_SHARE = 0.6
CROPS = {"train": 48, "test": 32}
QUALITY = 85
# The fields of a zip that would change from one build to the next.
DATE = (2020, 1, 1, 0, 0, 0)


def crops(photograph: np.ndarray, split: str, rng: np.random.Generator):
    """Yields (64, 64, 3) uint8 windows from one side of a photograph."""
    height, width = photograph.shape[:2]
    border = int(TRAIN_SHARE * width)
    first, last = (0, border) if split == "train" else (border, width)
    for _ in range(CROPS[split]):
        top = rng.integers(0, height - SIDE + 1)
        left = rng.integers(first, last - SIDE + 1)
        yield photograph[top : top + SIDE, left : left + SIDE]


def main() -> None:
    rng = np.random.default_rng(0)
    target = importlib.resources.files("bit_tf") / "assets" / "patches.zip"
    with zipfile.ZipFile(str(target), "w", zipfile.ZIP_STORED) as archive:
        for name in PHOTOGRAPHS:
            photograph = getattr(skimage.data, name)()
            if photograph.ndim == 2:
                photograph = np.stack([photograph] * 3, axis=-1)
            for split in CROPS:
                for number, crop in enumerate(crops(photograph, split, rng)):
                    buffer = io.BytesIO()
                    Image.fromarray(crop).save(
                        buffer, format="JPEG", quality=QUALITY
                    )
                    path = f"{split}/{name}/{number:03d}.jpg"
                    archive.writestr(
                        zipfile.ZipInfo(path, DATE), buffer.getvalue()
                    )


if __name__ == "__main__":
    main()
