"""Encoded images -> pixels as a viewer shows them, within TensorFlow's graph.

JPEGs are decoded with the accurate cosine transform, which gives the pixels
that Pillow gives; TensorFlow's own default is off by up to 5 of 255. Cameras
store a turned picture as it fell on the chip and note in its EXIF data how to
turn it, which TensorFlow does not read.
"""

import tensorflow as tf

_ACCURATE = "INTEGER_ACCURATE"
# EXIF data is the first segment of a JPEG, or the second after a short one, as
# its standard and that of JFIF want it; the note stands near its beginning.
_BEGINNING = 64
_HEAD = 1 << 16
_EXIF = b"Exif\x00\x00"
_APP1 = 0xFFE1
_ORIENTATION_TAG = 0x0112
# A camera writes a dozen.
_MAX_ENTRIES = 256
# One operation for a graph that does not need it, instead of a hundred.
_APART = {"_noinline": True}


def decode(image: tf.Tensor, *, apply_exif: bool = True) -> tf.Tensor:
    """Returns the (H, W, 3) uint8 pixels of a JPEG, PNG, BMP or GIF.

    Of an animation the first frame; gray becomes three equal channels;
    transparency is dropped; 16 bits become 8.

    Args:
        image: scalar string.
        apply_exif: whether a JPEG is turned as its EXIF data says.

    Raises:
        tf.errors.InvalidArgumentError: not such an image, or damaged.
    """

    def jpeg():
        pixels = tf.io.decode_jpeg(image, channels=3, dct_method=_ACCURATE)
        if apply_exif:
            pixels = orient(pixels, exif_orientation(image))
        return pixels

    def other():
        return tf.io.decode_image(image, channels=3, expand_animations=False)

    pixels = tf.cond(tf.io.is_jpeg(image), jpeg, other)
    return tf.ensure_shape(pixels, (None, None, 3))


def declared_pixels(image: tf.Tensor) -> tf.Tensor:
    """Returns how many pixels a JPEG, PNG, GIF or BMP says it has, int64.

    Reads the header alone, so that what is too large need not be decoded.

    Args:
        image: scalar string; of another format it is 0.

    Raises:
        tf.errors.InvalidArgumentError: the header is cut off or damaged.
    """

    def product(at: int, size: int, *, big_endian: bool):
        """Returns width times height, `size` bytes each from `at` on."""
        found = tf.io.decode_raw(
            tf.strings.substr(image, at, 2 * size), tf.uint8
        )
        found = tf.reshape(tf.cast(found, tf.int64), (2, size))
        powers = range(size)[::-1] if big_endian else range(size)
        weights = tf.constant([256**power for power in powers], tf.int64)
        return tf.reduce_prod(tf.reduce_sum(found * weights, axis=1))

    def jpeg():
        shape = tf.io.extract_jpeg_shape(image)
        return tf.reduce_prod(tf.cast(shape[:2], tf.int64))

    def png():
        return product(16, 4, big_endian=True)

    def gif():
        return product(6, 2, big_endian=False)

    def bmp():
        # The height is negative where rows come from the top.
        pixels = tf.io.decode_raw(tf.strings.substr(image, 18, 8), tf.int32)
        return tf.abs(tf.reduce_prod(tf.cast(pixels, tf.int64)))

    first = tf.strings.substr(image, 0, 3)
    return tf.case(
        [
            (tf.io.is_jpeg(image), jpeg),
            (tf.equal(first, b"\x89PN"), png),
            (tf.equal(first, b"GIF"), gif),
            (tf.equal(tf.strings.substr(image, 0, 2), b"BM"), bmp),
        ],
        default=lambda: tf.constant(0, tf.int64),
    )


def decode_window(
    image: tf.Tensor, begin: tf.Tensor, extent: tf.Tensor
) -> tf.Tensor:
    """Returns a window of a JPEG, as it is stored, without decoding the rest.

    Its pixels are those of the whole image, but for the outermost columns,
    where colours are interpolated from what lies within.

    Args:
        image: scalar string.
        begin: (3,) integers, first row, column and channel.
        extent: (3,) integers, rows, columns and channels.
    """
    window = tf.concat([begin[:2], extent[:2]], axis=0)
    return tf.image.decode_and_crop_jpeg(
        image, window, channels=3, dct_method=_ACCURATE
    )


def orient(pixels: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Returns (H, W, 3) or (W, H, 3) pixels as EXIF says they are to be seen.

    Args:
        pixels: (H, W, 3).
        orientation: scalar, 1 to 8 (EXIF 2.32, tag 274).
    """

    return tf.cond(
        orientation > 1, lambda: _turned(pixels, orientation), lambda: pixels
    )


@tf.function(
    input_signature=[
        tf.TensorSpec((None, None, 3), tf.uint8),
        tf.TensorSpec((), tf.int32),
    ],
    autograph=False,
    experimental_attributes=_APART,
)
def _turned(pixels: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    result = tf.cond(
        orientation >= 5,
        lambda: tf.transpose(pixels, (1, 0, 2)),
        lambda: pixels,
    )
    for numbers, axis in (((2, 3, 6, 7), 1), ((3, 4, 7, 8), 0)):
        result = tf.cond(
            tf.reduce_any(orientation == tf.constant(numbers)),
            lambda before=result, axis=axis: tf.reverse(before, (axis,)),
            lambda before=result: before,
        )
    return result


def exif_orientation(image: tf.Tensor) -> tf.Tensor:
    """Returns the orientation that a JPEG notes, 1 to 8; 1 if it notes none.

    Args:
        image: scalar string.
    """
    # Most images have none, and are not looked through.
    has_exif = tf.strings.regex_full_match(
        tf.strings.substr(image, 0, _BEGINNING), rb"\C*Exif\x00\x00\C*"
    )
    return tf.cond(
        has_exif, lambda: _noted_orientation(image), lambda: tf.constant(1)
    )


@tf.function(
    input_signature=[tf.TensorSpec((), tf.string)],
    autograph=False,
    experimental_attributes=_APART,
)
def _noted_orientation(image: tf.Tensor) -> tf.Tensor:
    head = tf.io.decode_raw(tf.strings.substr(image, 0, _HEAD), tf.uint8)
    last = tf.size(head, tf.int64) - 1

    def number(at, size, little_endian=False):
        """Returns unsigned numbers of `size` bytes at (n,) positions."""
        places = at[:, None] + tf.range(size, dtype=tf.int64)
        found = tf.where(
            places <= last, tf.gather(head, tf.minimum(places, last)), 0
        )
        found = tf.cast(found, tf.int64)
        found = tf.where(little_endian, found[:, ::-1], found)
        weights = [256**power for power in reversed(range(size))]
        return tf.reduce_sum(found * tf.constant(weights, tf.int64), axis=1)

    # Each segment: marker, length of what follows the marker, content.
    first = tf.constant([2], tf.int64)
    second = first + 2 + number(first + 2, 2)
    segments = tf.concat([first, second], axis=0)
    wanted = int.from_bytes(_EXIF, "big")
    is_exif = (number(segments, 2) == _APP1) & (
        number(segments + 4, len(_EXIF)) == wanted
    )
    # Within it all positions count from the byte order's mark.
    origin = tf.where(is_exif[:1], first, second) + 4 + len(_EXIF)
    little = number(origin, 2) == int.from_bytes(b"II", "big")
    table = origin + number(origin + 4, 4, little)
    count = tf.minimum(number(table, 2, little)[0], _MAX_ENTRIES)
    entries = table + 2 + 12 * tf.range(count)
    values = number(entries + 8, 2, little)
    is_note = (
        (number(entries, 2, little) == _ORIENTATION_TAG)
        & (values >= 1)
        & (values <= 8)
        & tf.reduce_any(is_exif)
    )
    noted = tf.boolean_mask(values, is_note)
    return tf.cast(tf.concat([noted, [1]], axis=0)[0], tf.int32)
