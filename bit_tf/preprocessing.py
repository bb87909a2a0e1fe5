"""Image operations as strings, "decode|resize(160)|random_crop(128)|..."

An operation is a function of (image, seed) built from its arguments. Random
ones draw from stateless generators: equal seeds, equal images, whatever the
thread or the machine.
"""

import re
from collections.abc import Callable
from collections.abc import Sequence

import tensorflow as tf

from bit_tf import decoding

Operation = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]

# How a pipeline for the network ends.
OWN_RANGE = "|value_range(-1,1)"
# Of the names of operations that return floating-point pixels.
_FLOATING = ("resize", "inception", "value_range")
# Of the names of operations that draw.
_DRAWN = ("random", "inception")


def decode(apply_exif: int = 1) -> Operation:
    """Encoded JPEG, PNG, BMP or GIF -> (H, W, 3) uint8, the first frame.

    With 0, a JPEG is not turned as its EXIF data says.
    """

    def apply(image, seed):
        del seed
        return decoding.decode(image, apply_exif=bool(apply_exif))

    return apply


def resize(size: int) -> Operation:
    """Squashes to (size, size, 3) float32, bilinear without antialiasing.

    Both are what the authors trained and evaluated with.
    """

    def apply(image, seed):
        del seed
        return _resized(image, (size, size))

    return apply


def resize_small(size: int) -> Operation:
    """Scales so that the shorter side has `size` pixels, float32, bilinear."""

    def apply(image, seed):
        del seed
        shape = tf.cast(tf.shape(image)[:2], tf.float32)
        scaled = tf.round(shape * (size / tf.reduce_min(shape)))
        return _resized(image, tf.cast(scaled, tf.int32))

    return apply


def central_crop(size: int) -> Operation:
    """Cuts the (size, size, 3) window in the middle."""

    def apply(image, seed):
        del seed
        begin = (tf.shape(image)[:2] - size) // 2
        begin = tf.concat([begin, [0]], axis=0)
        return tf.slice(image, begin, (size, size, 3))

    return apply


def random_crop(size: int) -> Operation:
    """Cuts a (size, size, 3) window at a uniformly random place."""

    def apply(image, seed):
        return tf.image.stateless_random_crop(image, (size, size, 3), seed)

    return apply


def inception_crop(size: int, min_percent: int = 5) -> Operation:
    """Cuts min_percent to 100 % of the area, aspect 3/4 to 4/3, and resizes.

    Returns (size, size, 3) float32 (Szegedy et al., arXiv 1409.4842).
    """

    def apply(image, seed):
        begin, extent = _inception_window(tf.shape(image), min_percent, seed)
        image = tf.slice(image, begin, extent)
        image = tf.ensure_shape(image, (None, None, 3))
        return _resized(image, (size, size))

    return apply


def decode_and_inception_crop(
    size: int, min_percent: int = 5, apply_exif: int = 1
) -> Operation:
    """Encoded image -> "decode|inception_crop", decoding the crop alone.

    Only of a JPEG that is stored upright; see `decoding.decode_window`.
    """

    def apply(image, seed):
        def window():
            shape = tf.io.extract_jpeg_shape(image)
            begin, extent = _inception_window(shape, min_percent, seed)
            return decoding.decode_window(image, begin, extent)

        def whole():
            decoded = decoding.decode(image, apply_exif=bool(apply_exif))
            begin, extent = _inception_window(
                tf.shape(decoded), min_percent, seed
            )
            return tf.slice(decoded, begin, extent)

        upright = tf.io.is_jpeg(image)
        if apply_exif:
            upright &= decoding.exif_orientation(image) == 1
        cropped = tf.cond(upright, window, whole)
        cropped = tf.ensure_shape(cropped, (None, None, 3))
        return _resized(cropped, (size, size))

    return apply


def _resized(image, size):
    # TensorFlow's kernel takes half the time where pixels are float32 already.
    return tf.image.resize(tf.cast(image, tf.float32), size)


def _inception_window(shape, min_percent, seed) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns begin and extent, (3,) each, of the crop of an image."""
    begin, extent, _ = tf.image.stateless_sample_distorted_bounding_box(
        tf.stack([shape[0], shape[1], 3]),
        tf.zeros((0, 0, 4)),
        seed,
        aspect_ratio_range=(3 / 4, 4 / 3),
        area_range=(min_percent / 100, 1.0),
        max_attempts=100,
        use_image_if_no_bounding_boxes=True,
    )
    return begin, extent


def random_flip() -> Operation:
    """Mirrors left and right with probability one half."""

    def apply(image, seed):
        return tf.image.stateless_random_flip_left_right(image, seed)

    return apply


def multiply(factor: int) -> Operation:
    """Multiplies uint8 pixels, of sets that store 0 and 1 for black and white.

    Returns uint8 again; what would be above 255 is 255.
    """

    def apply(image, seed):
        del seed
        product = tf.cast(image, tf.int32) * factor
        return tf.cast(tf.minimum(product, 255), tf.uint8)

    return apply


def to_uint8() -> Operation:
    """Rounds pixels in [0, 255] to whole numbers, half up.

    A quarter of the memory for all that follows; an image that was resized is
    off by half of 1/255 at most, which the authors' training is not.
    """

    def apply(image, seed):
        del seed
        return tf.cast(tf.cast(image, tf.float32) + 0.5, tf.uint8)

    return apply


def value_range(low: float, high: float) -> Operation:
    """Maps [0, 255] linearly to [low, high], float32."""

    def apply(image, seed):
        del seed
        return tf.cast(image, tf.float32) * ((high - low) / 255.0) + low

    return apply


OPERATIONS = {
    operation.__name__: operation
    for operation in (
        decode,
        resize,
        resize_small,
        central_crop,
        random_crop,
        inception_crop,
        decode_and_inception_crop,
        random_flip,
        multiply,
        to_uint8,
        value_range,
    )
}


def parse(text: str) -> Operation:
    """Builds the pipeline that a preprocessing string describes.

    Args:
        text: operations joined by "|", numbers in brackets.

    Returns:
        A function of an image (or encoded bytes, for "decode") and a seed,
        (2,) integers: the first for all images, the second for this one.
        Every operation gets a seed of its own, with another first.

    Raises:
        ValueError: unknown operation, or arguments it does not take.
    """
    return _chain(_operations(text.split("|")))


def parse_to_uint8(text: str) -> tuple[Operation, Operation, bool]:
    """Builds a pipeline that ends with OWN_RANGE, but without that.

    Its images are small to keep and to send; where they are used, `in_range`
    does the rest.

    Returns:
        What it does up to "to_uint8"; what it does to that; and whether the
        first is the same every time.

    Raises:
        ValueError: see `parse`; or there is no "to_uint8", or another end, or
            something between that makes floats of the bytes again.
    """
    parts = text.split("|")
    if "to_uint8" not in parts or not text.endswith(OWN_RANGE):
        raise ValueError(
            f"image operations {text!r}: they have to hold to_uint8, and to "
            f"end with {OWN_RANGE}, the range that the network knows."
        )
    cut = len(parts) - parts[::-1].index("to_uint8")
    before, after = parts[:cut], parts[cut:-1]
    for part in after:
        if any(floating in part for floating in _FLOATING):
            raise ValueError(
                f"image operations {text!r}: {part} makes floats of bytes, and "
                "has to come before to_uint8."
            )
    return (
        _chain(_operations(before)),
        _chain(_operations(after), first=cut),
        not any(drawn in part for part in before for drawn in _DRAWN),
    )


def _operations(parts: Sequence[str]) -> list[Operation]:
    operations: list[Operation] = []
    for part in parts:
        match = re.fullmatch(r"(\w+)(?:\(([-\d., ]*)\))?", part.strip())
        if not match or match[1] not in OPERATIONS:
            raise ValueError(
                f"unknown image operation {part!r} in {'|'.join(parts)!r}: "
                f"allowed are {', '.join(OPERATIONS)}."
            )
        arguments = [
            float(word) if "." in word else int(word)
            for word in (match[2] or "").replace(" ", "").split(",")
            if word
        ]
        try:
            operations.append(OPERATIONS[match[1]](*arguments))
        except TypeError as error:
            raise ValueError(
                f"{part!r} in {'|'.join(parts)!r}: {error}."
            ) from error
    return operations


def in_range(images: tf.Tensor) -> tf.Tensor:
    """Returns images in the range of the network, float32 in [-1, 1].

    Args:
        images: uint8, or float32 that is in it already.
    """
    if images.dtype != tf.uint8:
        return images
    return value_range(-1, 1)(images, None)


def _chain(operations: Sequence[Operation], first: int = 0) -> Operation:
    def apply(image, seed):
        for index, operation in enumerate(operations, first):
            # The generator scrambles its seed, so that neighbours will do.
            image = operation(image, tf.add(seed, (index, 0)))
        return image

    return apply
