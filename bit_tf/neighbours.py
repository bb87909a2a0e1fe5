"""Stored features of images -> those most like another image."""

import dataclasses
import json
import pathlib
from collections.abc import Sequence

import numpy as np

NEIGHBOURS = 5


@dataclasses.dataclass(frozen=True)
class Stored:
    """Images whose features are known.

    Args:
        files: their paths.
        directions: (images, features), each of length 1.
    """

    files: Sequence[str]
    directions: np.ndarray

    def nearest(self, features: np.ndarray) -> list[tuple[int, float]]:
        """Returns (index, cosine) of those most like an image."""
        cosines = self.directions @ directions_of(features)
        first = np.argsort(-cosines, kind="stable")[:NEIGHBOURS]
        return [(int(i), float(cosines[i])) for i in first]


def read_features(path: pathlib.Path, *, num_features: int) -> Stored:
    """Reads what `bit_tf.predict --features --format=jsonl` wrote.

    Images that could not be used are left out.

    Args:
        path: of the file.
        num_features: that the model has.

    Raises:
        ValueError: it is no such file, or of another model.
    """
    files, rows = [], []
    with open(path, encoding="utf-8", errors="surrogateescape") as lines:
        for number, line in enumerate(lines, 1):
            where = f"{path}, line {number}"
            try:
                row = json.loads(line)
                if "error" in row and "features" not in row:
                    continue
                file, features = row["file"], row["features"]
                features = np.asarray(features, np.float32)
                is_row = isinstance(file, str) and features.ndim == 1
            except (ValueError, KeyError, TypeError):
                is_row = False
            if not is_row or not np.isfinite(features).all():
                raise ValueError(
                    f"{where}: no features of an image. Write the file with "
                    "python -m bit_tf.predict --features --format=jsonl."
                )
            if len(features) != num_features:
                raise ValueError(
                    f"{where}: {len(features):,} features, the model has "
                    f"{num_features:,}. Write the file with the same --model."
                )
            files.append(file)
            rows.append(directions_of(features))
    if not rows:
        raise ValueError(f"{path} has no features of any image.")
    return Stored(files, np.stack(rows))


def directions_of(features: np.ndarray) -> np.ndarray:
    """Returns the features scaled to length 1, along the last axis."""
    norms = np.linalg.norm(features, axis=-1, keepdims=True)
    return features / np.maximum(norms, np.finfo(np.float32).tiny)
