"""Image operations do what their strings say, eagerly and in tf.data."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from bit_tf import preprocessing

SEED = tf.constant([3, 4], tf.int64)


def pixels(height=6, width=8):
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (height, width, 3)).astype(np.uint8)


def apply(text, image, seed=SEED):
    return preprocessing.parse(text)(image, seed).numpy()


@pytest.mark.parametrize("kind", ["PNG", "BMP", "GIF"])
def test_decoding_is_lossless_where_the_format_is(kind):
    image = np.repeat(pixels()[:, :, :1], 3, axis=2)
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format=kind)
    np.testing.assert_array_equal(apply("decode", buffer.getvalue()), image)


def test_gray_images_become_three_channels():
    buffer = io.BytesIO()
    Image.fromarray(pixels()[:, :, 0]).save(buffer, format="JPEG")
    assert apply("decode", buffer.getvalue()).shape == (6, 8, 3)


def test_value_range_maps_the_ends():
    ends = np.array([[[0, 128, 255]]], np.uint8)
    np.testing.assert_allclose(
        apply("value_range(-1,1)", ends)[0, 0], [-1, 1 / 255, 1], atol=1e-6
    )


def test_pixels_are_rounded_to_bytes():
    near = np.array([[[0, 0.4, 0.5], [1.49, 254.4, 255.0001]]], np.float32)
    np.testing.assert_array_equal(
        apply("to_uint8", near), [[[0, 0, 1], [1, 254, 255]]]
    )
    assert apply("to_uint8", pixels()).dtype == np.uint8


def test_a_pipeline_up_to_its_range_and_the_range_are_the_pipeline():
    text = "resize(20)|to_uint8|random_crop(9)|random_flip|value_range(-1,1)"
    resize, augment, is_steady = preprocessing.parse_to_uint8(text)
    found = augment(resize(pixels(), SEED), SEED)
    assert is_steady and found.dtype == tf.uint8
    np.testing.assert_array_equal(
        preprocessing.in_range(found), apply(text, pixels())
    )
    images = tf.constant([0.5])
    assert preprocessing.in_range(images) is images


@pytest.mark.parametrize(
    "text", ["resize(20)|value_range(-1,1)", "resize(20)|to_uint8"]
)
def test_pipelines_without_bytes_or_with_another_range_are_refused(text):
    with pytest.raises(ValueError, match="to hold to_uint8"):
        preprocessing.parse_to_uint8(text)


@pytest.mark.parametrize("part", ["inception_crop(8)", "resize_small(8)"])
def test_bytes_stay_bytes(part):
    # The network would be given 0 to 255.
    text = f"decode|to_uint8|{part}|random_flip|value_range(-1,1)"
    with pytest.raises(ValueError, match="before to_uint8"):
        preprocessing.parse_to_uint8(text)


def test_resize_squashes_without_antialiasing():
    # Bilinear at half size samples between two pixels; with antialiasing it
    # would take four.
    row = np.array([0, 0, 0, 100, 0, 0, 0, 0], np.float32)
    image = np.tile(row[None, :, None], (8, 1, 3))
    found = apply("resize(4)", image)
    np.testing.assert_allclose(found[0, :, 0], [0, 50, 0, 0])


def test_crops_are_windows_of_the_image():
    image = pixels()
    seen = set()
    for number in range(60):
        crop = apply("random_crop(5)", image, tf.constant([number, 0]))
        places = [
            (top, left)
            for top in range(2)
            for left in range(4)
            if (image[top : top + 5, left : left + 5] == crop).all()
        ]
        assert len(places) == 1
        seen |= set(places)
    assert len(seen) == 8


def test_flips_are_random_not_always():
    image = pixels()
    flipped = [
        (apply("random_flip", image, tf.constant([n, 0])) != image).any()
        for n in range(200)
    ]
    # Binomial(200, 1/2): 70 to 130 covers all but 1e-5.
    assert 70 < sum(flipped) < 130


@pytest.mark.parametrize(
    ("operation", "smallest", "least"),
    [("inception_crop(64)", 0.03, 0.15), ("inception_crop(64,30)", 0.28, 0.4)],
)
def test_inception_crops_cover_the_stated_areas(operation, smallest, least):
    # A ramp in each direction tells the window from the crop's corners.
    size = 200
    ramp = np.linspace(0, 1, size, dtype=np.float32)
    image = np.stack(
        [*np.meshgrid(ramp, ramp), np.zeros((size, size))], axis=-1
    ).astype(np.float32)
    areas, aspects = [], []
    for number in range(200):
        crop = apply(operation, image, tf.constant([number, 1]))
        width = crop[0, -1, 0] - crop[0, 0, 0]
        height = crop[-1, 0, 1] - crop[0, 0, 1]
        areas.append(width * height)
        aspects.append(width / height)
    assert crop.shape == (64, 64, 3)
    assert smallest < min(areas) < least
    assert max(areas) > 0.75
    assert 0.7 < min(aspects) < 0.85
    assert 1.18 < max(aspects) < 1.43


def photo(shape, *, format, orientation=1):
    """A smooth picture, as chroma of noise says nothing, encoded."""
    height, width = shape
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / 19 + c) * np.cos(y / (13 + 7 * c)) for c in range(3)]
    pixels = np.clip(127 + 120 * np.stack(waves, axis=-1), 0, 255)
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(pixels.astype(np.uint8))
    image.save(buffer, format=format, exif=exif)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("format", "orientation"), [("JPEG", 1), ("JPEG", 6), ("PNG", 1)]
)
def test_decoding_the_crop_alone_gives_the_crop_of_the_whole(
    format, orientation
):
    fused = preprocessing.decode_and_inception_crop(64, 10)
    decode = preprocessing.decode()
    crop = preprocessing.inception_crop(64, 10)
    content = tf.constant(
        photo((150, 211), format=format, orientation=orientation)
    )
    turned = decode(content, None).shape == (211, 150, 3)
    assert turned == (orientation == 6)
    for number in range(20):
        seed = tf.constant([number, 3])
        found = fused(content, seed).numpy()
        wanted = crop(decode(content, None), seed).numpy()
        difference = np.abs(found - wanted)
        assert found.shape == (64, 64, 3)
        # Colours of the outermost columns are interpolated from the inside.
        assert difference[4:-4, 4:-4].max() < 1
        assert difference.max() < (20 if format == "JPEG" else 1e-4)


@pytest.mark.parametrize("shape", [(30, 61), (61, 30)])
def test_short_sides_and_the_middle(shape):
    image = np.zeros((*shape, 3), np.float32)
    found = apply("resize_small(10)", image)
    assert sorted(found.shape[:2]) == [10, 20]
    rows = np.arange(shape[0], dtype=np.float32)
    image += rows[:, None, None]
    middle = apply("central_crop(10)", image)
    assert middle[0, 0, 0] == (shape[0] - 10) // 2
    assert middle.shape == (10, 10, 3)


def test_zeros_and_ones_become_black_and_white():
    image = np.array([[[0, 1, 2]]], np.uint8)
    assert apply("multiply(255)", image).tolist() == [[[0, 255, 255]]]
    assert apply("multiply(255)", image).dtype == np.uint8


def test_equal_seeds_give_equal_images_in_tf_data_and_eagerly():
    text = "resize(20)|random_crop(9)|random_flip|value_range(-1,1)"
    image = pixels()
    run = preprocessing.parse(text)
    seeds = tf.stack([tf.range(10), tf.zeros(10, tf.int32)], axis=1)
    mapped = tf.data.Dataset.from_tensor_slices(seeds).map(
        lambda seed: run(image, seed), num_parallel_calls=2
    )
    for seed, found in zip(seeds, mapped, strict=True):
        np.testing.assert_allclose(found, run(image, seed), atol=1e-6)


def test_operations_of_one_image_draw_from_different_seeds():
    # Two flips with one seed would cancel out for every image.
    image = pixels()
    results = [
        (apply("random_flip|random_flip", image, [0, n]) == image).all()
        for n in range(40)
    ]
    assert not all(results)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("decode|resise(3)", "resise"),
        ("resize", "resize"),
        ("resize(1,2)", "resize"),
        ("", "allowed are decode"),
        ("decode;resize(3)", "decode;resize"),
    ],
)
def test_unknown_operations_are_named(text, names):
    with pytest.raises(ValueError, match=names):
        preprocessing.parse(text)
