"""Encoded images in memory -> Examples."""

import io

import numpy as np
from PIL import Image

from bit_tf import examples as examples_lib


def examples(*, names, contents, labels, class_names) -> examples_lib.Examples:
    """Returns encoded images, with the sizes that their headers tell.

    Args:
        names: one per image.
        contents: the bytes of each.
        labels: int, (N,), or (N, K) where there are several per image.
        class_names: of the classes.
    """
    return examples_lib.Examples(
        names=names,
        contents=contents,
        labels=np.array(labels, np.int32),
        sizes=np.array([_encoded_size(content) for content in contents]),
        class_names=tuple(class_names),
    )


def _encoded_size(content: bytes) -> tuple[int, int]:
    """Returns (height, width) from the header of an encoded image."""
    with Image.open(io.BytesIO(content)) as image:
        return image.height, image.width
