r"""Plants changed copies among photos, and counts which ones are found.

python experiments/duplicates.py PATH [PATH ...] \
    > experiments/results/duplicates/photos.jsonl

Of each folder 2,500 pictures are taken, and 200 of them are changed in each
way. Prints a JSON line per folder and way.
"""

import argparse
import io
import json
import pathlib
import random
import tempfile
from collections.abc import Callable

from PIL import Image

from bit_tf import duplicates
from bit_tf import listed_files

PICTURES, PLANTED = 2500, 200


def scaled(factor: float) -> Callable[[Image.Image], Image.Image]:
    def change(image):
        size = (max(8, round(side * factor)) for side in image.size)
        return image.resize(tuple(size), Image.Resampling.BICUBIC)

    return change


def cut(share: float) -> Callable[[Image.Image], Image.Image]:
    def change(image):
        width, height = (round(side * (1 - share)) for side in image.size)
        left = random.randint(0, image.width - width)
        top = random.randint(0, image.height - height)
        return image.crop((left, top, left + width, top + height))

    return change


def mirrored(image: Image.Image) -> Image.Image:
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


# Name -> what is done, and the quality of the JPEG.
WAYS = {
    "half the size": (scaled(0.5), 90),
    "twice the size": (scaled(2), 90),
    "JPEG quality 30": (lambda image: image, 30),
    "mirrored": (mirrored, 90),
    "cut by 5 %": (cut(0.05), 90),
    "cut by 10 %": (cut(0.1), 90),
    "cut by 5 %, mirrored, quality 30": (
        lambda image: mirrored(cut(0.05)(image)),
        30,
    ),
}


def measure(folder: str, work: pathlib.Path) -> None:
    random.seed(0)
    files = sorted(listed_files.expand([folder]))
    files = random.sample(files, min(PICTURES, len(files)))
    known = duplicates.sign(files)
    for way, (change, quality) in WAYS.items():
        copies = []
        for index, file in enumerate(files[:PLANTED]):
            with Image.open(file) as image:
                buffer = io.BytesIO()
                change(image.convert("RGB")).save(
                    buffer, format="JPEG", quality=quality
                )
            copies.append(str(work / f"{index}.jpg"))
            pathlib.Path(copies[-1]).write_bytes(buffer.getvalue())
        pairs = duplicates.find(known, duplicates.sign(copies))
        right = {
            p.second for p in pairs if known.names[p.first] == files[p.second]
        }
        row = {
            "folder": pathlib.Path(folder).parent.name,
            "way": way,
            "pictures": len(known),
            "planted": len(copies),
            "found": len(right),
            "other_pairs": sum(
                known.names[p.first] != files[p.second] for p in pairs
            ),
        }
        print(json.dumps(row), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+")
    for folder in parser.parse_args().folders:
        with tempfile.TemporaryDirectory() as work:
            measure(folder, pathlib.Path(work))


if __name__ == "__main__":
    main()
