"""Images as they lie about: one file of every kind of trouble."""

import io
import os
import pathlib
import struct
import zlib

import numpy as np
from PIL import Image

USED, REFUSED = "used", "refused"
# Libraries differ in what they make of it, but one of the two it has to be.
EITHER = "either"


def picture(size=(40, 30), mode="RGB") -> Image.Image:
    rng = np.random.default_rng(size[0])
    pixels = rng.integers(0, 256, (size[1], size[0], 3)).astype(np.uint8)
    return Image.fromarray(pixels).convert(mode)


def encoded(image=None, kind="JPEG", **kwargs) -> bytes:
    buffer = io.BytesIO()
    (image or picture()).save(buffer, format=kind, **kwargs)
    return buffer.getvalue()


def turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(exif=exif.tobytes())


def bomb(side: int) -> bytes:
    """Returns a PNG of black pixels whose header is true."""

    def chunk(kind, content):
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes((side // 8 + 1) * side), 9)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", rows)
        + chunk(b"IEND", b"")
    )


def bombs() -> dict[str, bytes]:
    """Returns name -> a small file that says it is an image of gigabytes."""
    jpeg, bmp = bytearray(encoded()), bytearray(encoded(kind="BMP"))
    frame = jpeg.index(b"\xff\xc0") + 5
    jpeg[frame : frame + 4] = struct.pack(">HH", 65_000, 65_000)
    bmp[18:26] = struct.pack("<ii", 60_000, 60_000)
    gif = bytearray(encoded(kind="GIF"))
    gif[6:10] = struct.pack("<HH", 65_000, 65_000)
    webp = bytearray(encoded(kind="WEBP", lossless=True))
    # Behind "VP8L", its length and its signature: 14 bits less one each.
    webp[21:25] = struct.pack("<I", 16_382 | 16_382 << 14)
    tiff = bytearray(encoded(kind="TIFF"))
    for tag, side in ((256, 40), (257, 30)):
        for kind, form in ((3, "<HHIHH"), (4, "<HHII")):
            old = struct.pack(form, tag, kind, 1, side, *[0][: kind == 3])
            new = struct.pack(form, tag, kind, 1, 60_000, *[0][: kind == 3])
            tiff = tiff.replace(old, new)
    return {
        "true.png": bomb(30_000),
        "said.jpg": bytes(jpeg),
        "said.bmp": bytes(bmp),
        "said.gif": bytes(gif),
        "said.webp": bytes(webp),
        "said.tiff": bytes(tiff),
    }


def contents() -> dict[str, tuple[bytes, str]]:
    """Returns name -> content, and what is to become of it."""
    jpeg = encoded()
    png = encoded(kind="PNG")
    palette = picture(mode="P")
    files = {
        f"cut at {share} %.jpg": (
            jpeg[: len(jpeg) * share // 100],
            EITHER if share > 95 else REFUSED,
        )
        for share in (1, 5, 10, 25, 50, 75, 90, 99)
    }
    files |= {
        f"turned {number}.jpg": (turned(number), USED) for number in range(1, 9)
    }
    files |= {
        f"{kind} named.jpg": (encoded(kind=kind), USED)
        for kind in ("WEBP", "GIF", "BMP", "PNG", "TIFF")
    }
    files |= {
        "one byte short.jpg": (jpeg[:-1], EITHER),
        "png cut.png": (png[: len(png) // 2], REFUSED),
        "png wrong checksum.png": (
            png[:60] + bytes([png[60] ^ 255]) + png[61:],
            REFUSED,
        ),
        "empty.jpg": (b"", REFUSED),
        "html.jpg": (b"<html><body>404</body></html>", REFUSED),
        "text.png": (b"version https://git-lfs.github.com/spec/v1", REFUSED),
        "zeros.jpg": (bytes(1000), REFUSED),
        "only a header.jpg": (jpeg[:20], REFUSED),
        "CMYK.jpg": (encoded(picture(mode="CMYK")), USED),
        "gray.jpg": (encoded(picture(mode="L")), USED),
        "progressive.jpg": (encoded(progressive=True), USED),
        "16 bits.png": (
            encoded(Image.fromarray(np.full((9, 9), 40_000, np.uint16)), "PNG"),
            USED,
        ),
        "palette.png": (encoded(palette, "PNG"), USED),
        "palette, alpha.png": (encoded(palette, "PNG", transparency=0), USED),
        "alpha.png": (encoded(picture(mode="RGBA"), "PNG"), USED),
        "one bit.png": (encoded(picture(mode="1"), "PNG"), USED),
        "one pixel.png": (encoded(picture((1, 1)), "PNG"), USED),
        "65500 x 1.jpg": (encoded(picture((65_500, 1))), USED),
        "1 x 65500.jpg": (encoded(picture((1, 65_500))), USED),
        "animated.gif": (
            encoded(
                picture(mode="P"),
                "GIF",
                save_all=True,
                append_images=[picture((40, 30), "P")] * 3,
            ),
            USED,
        ),
        "bomb.png": (bomb(30_000), REFUSED),
        "=SUM(A1), 'quoted' \"twice\" <b> & ü 猫.jpg": (jpeg, USED),
        "-leading dash.jpg": (jpeg, USED),
        "two.dots.JPEG": (jpeg, USED),
    }
    return files


def write(directory: pathlib.Path) -> dict[str, str]:
    """Fills a directory; returns file name -> what is to become of it."""
    directory.mkdir(parents=True)
    found = {}
    for name, (content, expected) in contents().items():
        (directory / name).write_bytes(content)
        found[name] = expected
    for name, target in (
        ("dangling.jpg", "nowhere.jpg"),
        ("looping.jpg", "looping.jpg"),
    ):
        (directory / name).symlink_to(target)
        found[name] = REFUSED
    (directory / "linked.jpg").symlink_to("gray.jpg")
    found["linked.jpg"] = USED
    os.mkfifo(directory / "pipe.jpg")
    found["pipe.jpg"] = REFUSED
    (directory / "folder.jpg").mkdir()
    (directory / ".DS_Store").write_bytes(b"\x00\x00\x00\x01Bud1")
    (directory / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0")
    return found
