"""How far raw pixels go: logistic regression, the baseline of the table.

python experiments/raw_pixels.py FOLDER [FOLDER ...]

Every folder is {train,test}/CLASS/*. Images are squashed to 32 x 32 pixels and
standardised; the best of three strengths of regularisation on the *test* set
counts, which favours the baseline. Needs scikit-learn and Pillow. Prints one
JSON row per folder.
"""

import json
import pathlib
import sys

import numpy as np
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

SIDE = 32
STRENGTHS = (1e-4, 1e-3, 1e-2)


def load(folder: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
    pixels, names = [], []
    for file in sorted(folder.glob("*/*")):
        with Image.open(file) as image:
            small = image.convert("RGB").resize((SIDE, SIDE))
        pixels.append(np.asarray(small, np.float32).ravel())
        names.append(file.parent.name)
    return np.array(pixels), np.array(names)


def main() -> None:
    for path in map(pathlib.Path, sys.argv[1:]):
        train, train_names = load(path / "train")
        test, test_names = load(path / "test")
        scaler = StandardScaler().fit(train)
        scores = [
            LogisticRegression(C=strength, max_iter=200)
            .fit(scaler.transform(train), train_names)
            .score(scaler.transform(test), test_names)
            for strength in STRENGTHS
        ]
        values, counts = np.unique(train_names, return_counts=True)
        largest = values[counts.argmax()]
        row = {
            "dataset": path.name,
            "method": "logistic regression on raw pixels",
            "train_examples": len(train),
            "examples": len(test),
            "top1": round(float(max(scores)), 4),
            "majority": round(float((test_names == largest).mean()), 4),
        }
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
