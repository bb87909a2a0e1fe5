"""Images as they come: the pixels a viewer shows, or a reason."""

import csv
import io
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from PIL import ImageOps

from bit_tf import data
from bit_tf import decoding
from bit_tf import examples
from bit_tf import image_file
from bit_tf import scan
from tests import programs


@tf.function(input_signature=[tf.TensorSpec((), tf.string)])
def decode(content):
    return decoding.decode(content)


def viewed(source):
    """Returns what a viewer shows; of 16 bits the upper eight."""
    with Image.open(source) as image:
        bits = getattr(image, "tag_v2", {258: [16]})[258][0]
        image = ImageOps.exif_transpose(image)
        if image.mode.startswith("I;16"):
            gray = (np.asarray(image) >> (bits - 8)).astype(np.uint8)
            return np.repeat(gray[:, :, None], 3, axis=2)
        return np.asarray(image.convert("RGB"))


def messy(shared_data):
    with open(shared_data / "messy" / "manifest.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    return [
        (shared_data / "messy" / row["file"], row["trait"], row["expect"])
        for row in rows
    ]


def test_every_messy_file_is_as_viewed_or_refused(shared_data):
    used, refused = {}, {}
    with image_file.many():
        for path, trait, expect in messy(shared_data):
            info = image_file.inspect(path)
            if isinstance(info, str):
                refused[path] = info
                assert expect != "decode", (path, info)
                continue
            found = decode(image_file.read(path)).numpy()
            wanted = viewed(path)
            assert found.shape == wanted.shape, path
            assert (info.height, info.width) == wanted.shape[:2], path
            difference = np.abs(found.astype(int) - wanted)
            # Of four inks two libraries round differently.
            assert difference.max() <= (trait == "cmyk_jpeg"), path
            used[path] = info
            assert trait not in ("bomb", "not_image"), path
    assert len(used) > 90 and len(refused) > 10
    reasons = " ".join(refused.values())
    for reason in ("truncated", "not an image", "too many pixels"):
        assert reason in reasons


MEMORY = """
import pathlib, resource, sys
from bit_tf import image_file, preprocessing
import tensorflow as tf
tf.constant(0)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):
    print(image_file.inspect(path))
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print((after - before) // 1024)
"""


def test_bombs_are_refused_from_their_headers(shared_data):
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(shared_data / "messy" / "bomb")],
        capture_output=True,
        text=True,
        check=True,
        cwd=programs.ROOT,
    )
    *said, more = done.stdout.splitlines()
    assert len(said) == 3 and all("pixels" in line for line in said)
    assert int(more) < 50  # MiB


def picture(height=40, width=60):
    """Smooth, so that a JPEG of it is close, and like none of its mirrors."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack(
        [4 * columns, 6 * rows, 2 * rows + columns], axis=-1
    ).astype(np.uint8)


def encoded(image, kind, **kwargs):
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **kwargs)
    return buffer.getvalue()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("order", ["<", ">"])
def test_jpegs_are_turned_as_cameras_note(orientation, order):
    exif = Image.Exif()
    exif.endian = order
    exif[0x010F] = "a maker of cameras"
    exif[0x0112] = orientation
    content = encoded(Image.fromarray(picture()), "JPEG", exif=exif, quality=95)
    assert decoding.exif_orientation(tf.constant(content)) == orientation
    np.testing.assert_array_equal(decode(content), viewed(io.BytesIO(content)))
    stored = decoding.decode(tf.constant(content), apply_exif=False)
    assert stored.shape == (40, 60, 3)
    info = image_file.inspect(content)
    assert (info.height > info.width) == (orientation >= 5)
    assert not info.converted


@pytest.mark.parametrize(
    "spoil",
    [
        lambda tiff: tiff[:9],
        lambda tiff: tiff[:4] + b"\xff\xff\xff\xff" + tiff[8:],
        lambda tiff: tiff[:8] + b"\xff\xff" + tiff[10:],
        lambda tiff: tiff.replace(b"\x12\x01\x03\x00", b"\x12\x01\x03\x00"),
        lambda tiff: tiff[:18] + b"\x63\x00" + tiff[20:],
    ],
)
def test_notes_that_are_broken_are_no_notes(spoil):
    exif = Image.Exif()
    exif.endian = "<"
    exif[0x0112] = 1
    tiff = exif.tobytes()[6:]
    content = encoded(
        Image.fromarray(picture()), "JPEG", exif=b"Exif\0\0" + spoil(tiff)
    )
    assert decode(content).shape == (40, 60, 3)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_other_formats_are_turned_too(kind):
    exif = Image.Exif()
    exif[0x0112] = 6
    kwargs = {"lossless": True} if kind == "WEBP" else {}
    content = encoded(Image.fromarray(picture()), kind, exif=exif, **kwargs)
    assert image_file.inspect(content).converted
    np.testing.assert_array_equal(
        decode(image_file.read(content)), np.rot90(picture(), -1)
    )
    # Of a TIFF it is no EXIF data but its own.
    as_stored = image_file.read(content, apply_exif=False)
    assert (decode(as_stored).shape == (40, 60, 3)) == (kind != "TIFF")
    info = image_file.inspect(content)
    assert (info.height, info.width) == (60, 40)


def test_a_note_of_an_editor_is_heard():
    xmp = (
        b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description '
        b'tiff:Orientation="3"/></x:xmpmeta>'
    )
    content = encoded(Image.fromarray(picture()), "JPEG", xmp=xmp, quality=95)
    info = image_file.inspect(content)
    assert info.converted
    np.testing.assert_array_equal(
        decode(image_file.read(content)), viewed(io.BytesIO(content))
    )


def test_files_are_converted_as_batches_are_made(tmp_path):
    Image.fromarray(picture()).save(tmp_path / "a.png")
    Image.fromarray(picture()[::-1]).save(tmp_path / "b.webp", lossless=True)
    files = [str(tmp_path / name) for name in ("a.png", "b.webp")]
    found = scan.scan(files, root=str(tmp_path), reading=image_file.Reading())
    both = examples.Examples(
        names=["a", "b"],
        contents=files,
        labels=np.array([0, 1], np.int32),
        class_names=("a", "b"),
        **found.of(files),
    )
    assert both.converted.tolist() == [False, True]
    read = data.reader(both)
    dataset = tf.data.Dataset.range(2).map(lambda i: read(i)[0])
    for content, wanted in zip(dataset, (1, -1), strict=True):
        np.testing.assert_array_equal(decode(content), picture()[::wanted])
    (tmp_path / "b.webp").write_bytes(b"spoilt")
    assert data.find_undecodable(both) == ["b"]


def test_a_scan_is_not_repeated_for_files_that_did_not_change(
    tmp_path, monkeypatch
):
    looked_at = []
    inspect = image_file.inspect

    def noted(file, reading):
        looked_at.append(pathlib.Path(file).name)
        return inspect(file, reading)

    monkeypatch.setattr(image_file, "inspect", noted)
    (tmp_path / "images").mkdir()
    files = []
    for name in ("a.png", "b.png", "c.png"):
        Image.fromarray(picture()).save(tmp_path / "images" / name)
        files.append(str(tmp_path / "images" / name))

    def look(**kwargs):
        looked_at.clear()
        found = scan.scan(
            files,
            root=str(tmp_path / "images"),
            cache=tmp_path / "cache",
            reading=image_file.Reading(on_bad="skip", **kwargs),
        )
        return len(found.good), sorted(looked_at)

    everything = ["a.png", "b.png", "c.png"]
    assert look() == (3, everything)
    assert look() == (3, [])
    Image.fromarray(picture()[:7]).save(files[1])
    assert look() == (3, ["b.png"])
    # Those that cannot be used are looked at each time.
    pathlib.Path(files[2]).write_bytes(b"x")
    assert look() == (2, ["c.png"])
    assert look() == (2, ["c.png"])
    # Another limit, another answer.
    assert look(max_pixels=500) == (1, everything)
    for file in (tmp_path / "cache").iterdir():
        file.write_text("{")
    assert look() == (2, everything)
    (tmp_path / "cache2").write_text("no directory")
    assert (
        len(
            scan.scan(
                files[:2],
                root=str(tmp_path),
                cache=tmp_path / "cache2" / "x",
                reading=image_file.Reading(),
            ).good
        )
        == 2
    )
