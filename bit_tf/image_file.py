"""One image file: can it be trained on, and how large is it?"""

import os
import pathlib
import stat
import warnings

from PIL import Image

# What TensorFlow decodes; MPO is what some cameras call their JPEG.
FORMATS = ("JPEG", "MPO", "PNG", "GIF", "BMP")
MAX_IMAGE_PIXELS = 178_956_970


def inspect(file: pathlib.Path) -> tuple[int, int] | str:
    """Decodes an image file once, small where the format allows it.

    Args:
        file: path; whatever it may be.

    Returns:
        (height, width) in pixels, or what is wrong with the file in a few
        words.
    """
    try:
        str(file).encode()
    except UnicodeEncodeError:
        return "name that is not UTF-8 text"
    try:
        status = os.stat(file)
        if not stat.S_ISREG(status.st_mode):
            return "not a regular file"
        if status.st_size == 0:
            return "empty file"
        with warnings.catch_warnings():
            # Below MAX_IMAGE_PIXELS a large picture is no attack.
            warnings.simplefilter("ignore")
            with Image.open(file) as image:
                width, height = image.size
                if image.format not in FORMATS:
                    return f"{image.format} format"
                if width * height > MAX_IMAGE_PIXELS:
                    return f"{width}x{height} pixels are too many"
                if image.format == "BMP" and image.mode != "RGB":
                    # TensorFlow would decode these to wrong colours.
                    return f"BMP of mode {image.mode}"
                # A JPEG is read to its end also when it is decoded small.
                image.draft("RGB", (max(1, width // 8), max(1, height // 8)))
                image.load()
    except Image.DecompressionBombError:
        return "too many pixels"
    except Image.UnidentifiedImageError:
        return "not an image"
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        return " ".join(str(error).split())[:80] or type(error).__name__
    return height, width
