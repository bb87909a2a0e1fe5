"""One image file: can it be used, how large is it, what are its pixels?

TensorFlow decodes JPEG and PNG to the pixels that Pillow gives (JPEGs in CMYK
within 1 of 255). Of BMP, GIF and WebP it gets some kinds wrong without a word,
and others it does not know: those are converted with Pillow when they are read.
"""

import dataclasses
import functools
import io
import os
import pathlib
import stat
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from PIL import ExifTags
from PIL import Image
from PIL import ImageOps

# Others that Pillow knows are rare, slow, or, as EPS, programs.
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "AVIF")
# MPO is what some cameras call theirs.
_JPEG = ("JPEG", "MPO")
# Where it is known how bright a number is to be shown.
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")
_MODES_16 = ("I;16", "I;16B", "I;16L", "I;16N")
_BITS_TAG, _PHOTOMETRIC_TAG, _BLACK_IS_ZERO = 258, 262, 1
# 200 MB as RGB. Modern phones take 50 million.
MAX_PIXELS = 2**26
# Pillow refuses more.
MOST_PIXELS = 178_956_970
# Of such images one at a time is decoded while files are checked.
_LARGE = 2**24
_one_large = threading.Lock()
# Where `decoding` looks for EXIF data.
_BEGINNING = 64

Source = str | os.PathLike | bytes


@dataclasses.dataclass(frozen=True)
class Reading:
    """How images are read.

    Args:
        apply_exif: whether they are turned as their EXIF data says.
        max_pixels: those with more are refused, before they are decoded.
        on_bad: "fail" or "skip": what becomes of those that cannot be used.

    Raises:
        ValueError: another `on_bad`, or a limit out of range.
    """

    apply_exif: bool = True
    max_pixels: int = MAX_PIXELS
    on_bad: str = "fail"

    def __post_init__(self):
        if self.on_bad not in ("fail", "skip"):
            raise ValueError(
                f"on_bad={self.on_bad!r}: allowed are fail and skip."
            )
        if not 1 <= self.max_pixels <= MOST_PIXELS:
            raise ValueError(
                f"max_pixels={self.max_pixels}: allowed is 1 to {MOST_PIXELS}."
            )


@dataclasses.dataclass(frozen=True)
class Info:
    """What is known of an image that can be used.

    Args:
        height: as it is seen, pixels.
        width: as it is seen, pixels.
        converted: whether it has to be converted for TensorFlow.
    """

    height: int
    width: int
    converted: bool


@contextmanager
def many() -> Iterator[None]:
    """Keeps Pillow from warning about each of many images.

    Below the limit a large picture is no attack, and odd EXIF data no fault
    of the picture. Not for threads: the filter is the whole process's.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def inspect(
    source: Source, reading: Reading | None = None, *, decode: bool = True
) -> Info | str:
    """Decodes an image once, small where the format allows it.

    Args:
        source: a path, whatever may be there, or the encoded image.
        reading: how it will be read.
        decode: whether to look beyond the header, where damage shows.

    Returns:
        What is known of it, or what is wrong with it in a few words.
    """
    reading = reading or Reading()
    try:
        if not isinstance(source, bytes):
            reason = _no_image_file(pathlib.Path(source))
            if reason:
                return reason
        with _opened(source) as (image, beginning):
            return _inspect(image, beginning, reading, decode)
    except Image.DecompressionBombError:
        return "too many pixels"
    except Image.UnidentifiedImageError:
        return f"not an image that is known: {', '.join(_known())}"
    except Exception as error:
        # Pillow raises whatever comes to its decoders on damaged files.
        return " ".join(str(error).split())[:80] or type(error).__name__


def read(source: Source, *, apply_exif: bool = True) -> bytes:
    """Returns the encoded image in a form that TensorFlow decodes right.

    Args:
        source: a path, or the encoded image.
        apply_exif: whether it is turned as its EXIF data says, if it has to
            be converted; others are turned when they are decoded.

    Raises:
        ValueError, OSError: it cannot be used.
    """
    with _opened(source) as (image, beginning):
        if image.format not in _JPEG:
            # Their EXIF data may stand behind the pixels.
            image.load()
        if _is_right(image, beginning, apply_exif):
            if isinstance(source, bytes):
                return source
            return pathlib.Path(source).read_bytes()
        buffer = io.BytesIO()
        # The fastest to write and to read.
        _shown(image, apply_exif).save(buffer, format="BMP")
    return buffer.getvalue()


def view(source: Source, *, at_least: int) -> Image.Image:
    """Returns the picture as a viewer shows it, RGB, maybe smaller.

    Args:
        source: a path, or the encoded image.
        at_least: sides that are as long are left so, pixels.

    Raises:
        ValueError, OSError: it cannot be used.
    """
    with _opened(source) as (image, _):
        image.draft("RGB", (at_least, at_least))
        return _shown(image, apply_exif=True)


def _no_image_file(path: pathlib.Path) -> str | None:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return "name that is not UTF-8 text"
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        return "not a regular file"
    if status.st_size == 0:
        return "empty file"
    return None


@functools.cache
def _known() -> tuple[str, ...]:
    """Returns those of FORMATS that this build of Pillow decodes."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


@contextmanager
def _opened(source: Source) -> Iterator[tuple[Image.Image, bytes]]:
    """Opens the image; also gives the first bytes of the file."""
    with (
        io.BytesIO(source)
        if isinstance(source, bytes)
        else open(source, "rb") as file
    ):
        beginning = file.read(_BEGINNING)
        file.seek(0)
        with Image.open(file, formats=_known()) as image:
            yield image, beginning


def _inspect(
    image: Image.Image, beginning: bytes, reading: Reading, decode: bool
) -> Info | str:
    width, height = image.size
    if width * height > reading.max_pixels:
        return (
            f"{width}x{height} pixels are more than "
            f"{reading.max_pixels:,}: see --max_image_pixels"
        )
    if image.mode not in _MODES and not _bits(image):
        return f"{image.format} of mode {image.mode}"
    # A JPEG is read to its end also when it is decoded small.
    image.draft("RGB", (max(1, width // 8), max(1, height // 8)))
    if not decode:
        pass
    elif image.size[0] * image.size[1] > _LARGE:
        with _one_large:
            image.load()
    else:
        image.load()
    if image.format not in _JPEG:
        # A TIFF has been turned by now.
        width, height = image.size
    if reading.apply_exif and _orientation(image) >= 5:
        width, height = height, width
    converted = not _is_right(image, beginning, reading.apply_exif)
    return Info(height, width, converted)


def _is_right(image: Image.Image, beginning: bytes, apply_exif: bool) -> bool:
    """Returns whether TensorFlow and `decoding` see what Pillow sees."""
    if image.format not in (*_JPEG, "PNG"):
        return False
    orientation = _orientation(image)
    if not apply_exif or orientation == 1:
        return True
    if image.format == "PNG" or b"Exif\0\0" not in beginning:
        return False
    # Without EXIF data Pillow takes the note of an editor (XMP).
    own = Image.Exif()
    own.load(image.info.get("exif", b""))
    return own.get(ExifTags.Base.Orientation) == orientation


def _orientation(image: Image.Image) -> int:
    try:
        noted = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:
        # Of a tag that is broken Pillow's reader may raise anything.
        return 1
    return noted if noted in range(1, 9) else 1


def _shown(image: Image.Image, apply_exif: bool) -> Image.Image:
    """Returns the picture in RGB, turned if that is wanted."""
    bits = _bits(image)
    if apply_exif:
        image = ImageOps.exif_transpose(image)
    if bits:
        # Pillow would cut off what is brighter than 255.
        gray = (np.asarray(image) >> (bits - 8)).astype(np.uint8)
        image = Image.fromarray(gray)
    return image.convert("RGB")


def _bits(image: Image.Image) -> int:
    """Returns how many bits a gray of more than 8 has; 0 for others."""
    if image.mode not in _MODES_16:
        return 0
    if image.format == "PNG":
        return 16
    tags = getattr(image, "tag_v2", {})
    bits = tags.get(_BITS_TAG, (0,))[0]
    is_known = tags.get(_PHOTOMETRIC_TAG) == _BLACK_IS_ZERO and 8 < bits <= 16
    return bits if is_known else 0
