"""The rule gives the published numbers, each with its source."""

import pytest

from bit_tf import hyperrule
from bit_tf import overrides
from bit_tf import recipe as recipe_lib
from bit_tf import upstream


def rule(examples=1000, height=300, width=400, model="R50x1", **kwargs):
    return hyperrule.recipe(
        num_examples=examples,
        image_height=height,
        image_width=width,
        model=model,
        **kwargs,
    )


# Section 3.3 of the paper; decay at 30, 60 and 90 %.
@pytest.mark.parametrize(
    ("examples", "steps", "decay", "mixup"),
    [
        (10, 500, (150, 300, 450), 0.0),
        (19_999, 500, (150, 300, 450), 0.0),
        (20_000, 10_000, (3000, 6000, 9000), 0.1),
        (499_999, 10_000, (3000, 6000, 9000), 0.1),
        (500_000, 20_000, (6000, 12000, 18000), 0.1),
        (1_281_167, 20_000, (6000, 12000, 18000), 0.1),
    ],
)
def test_schedule_follows_the_number_of_examples(examples, steps, decay, mixup):
    recipe = rule(examples)
    assert recipe.total_steps == steps
    assert recipe.decay_steps == decay
    assert recipe.mixup_alpha == mixup
    assert (recipe.base_lr, recipe.batch_size) == (0.003, 512)
    assert (recipe.momentum, recipe.weight_decay) == (0.9, 0.0)


def test_the_code_decays_small_tasks_at_other_steps():
    assert rule(1000, reading="code").decay_steps == (200, 300, 400)
    assert rule(20_000, reading="code").decay_steps == (3000, 6000, 9000)


@pytest.mark.parametrize("reading", hyperrule.READINGS)
def test_warmup_is_that_of_the_code(reading):
    assert rule(1000, reading=reading).warmup_steps == 100
    assert rule(20_000, reading=reading).warmup_steps == 500
    assert rule(500_000, reading=reading).warmup_steps == 500


@pytest.mark.parametrize(
    ("height", "width", "model", "reading", "resize", "crop"),
    [
        (32, 32, "R50x1", "paper", 160, 128),
        (95, 96, "R50x1", "paper", 160, 128),
        (96, 96, "R50x1", "paper", 448, 384),
        (96, 96, "R50x1", "code", 512, 480),
        (300, 400, "R101x3", "paper", 448, 384),
        (300, 400, "R152x4", "paper", 512, 480),
        (32, 32, "R152x4", "paper", 160, 128),
        (32, 32, "R50x1", "code", 160, 128),
    ],
)
def test_resolution_follows_the_image_area(
    height, width, model, reading, resize, crop
):
    recipe = rule(10, height, width, model, reading=reading)
    assert (recipe.resize, recipe.crop) == (resize, crop)
    assert recipe.train_preprocessing == (
        f"decode|resize({resize})|to_uint8|random_crop({crop})|random_flip|"
        "value_range(-1,1)"
    )
    # No centre crop: the test image is squashed to the crop's size.
    assert recipe.eval_preprocessing == (
        f"decode|resize({crop})|value_range(-1,1)"
    )


@pytest.mark.parametrize("reading", hyperrule.READINGS)
def test_every_number_has_a_source(reading):
    recipe = rule(reading=reading)
    for field in [
        "total_steps",
        "batch_size",
        "base_lr",
        "warmup_steps",
        "decay_steps",
        "decay_factor",
        "momentum",
        "weight_decay",
        "mixup_alpha",
        "resize",
        "crop",
    ]:
        assert recipe.sources[field]


def test_an_unknown_reading_is_refused():
    with pytest.raises(ValueError, match="'book'.*paper, code"):
        rule(reading="book")


def test_more_steps_keep_the_shape_of_the_schedule():
    recipe = overrides.override(rule(), total_steps=1000)
    assert recipe.warmup_steps == 200
    assert recipe.decay_steps == (300, 600, 900)
    assert recipe.sources["total_steps"] == "--total_steps"


def test_a_smaller_batch_changes_nothing_else_unless_asked():
    recipe = overrides.override(rule(), batch_size=64)
    assert recipe.base_lr == 0.003
    assert recipe.total_steps == 500


def test_scaling_with_the_batch_sees_as_many_examples():
    recipe = overrides.override(rule(), batch_size=64, scale_with_batch=True)
    assert recipe.base_lr == pytest.approx(0.003 / 8)
    assert recipe.total_steps == 4000
    assert recipe.warmup_steps == 800
    assert recipe.decay_steps == (1200, 2400, 3600)
    assert "64/512" in recipe.sources["base_lr"]


def test_what_the_user_says_wins_over_scaling():
    recipe = overrides.override(
        rule(),
        batch_size=64,
        scale_with_batch=True,
        base_lr=0.01,
        total_steps=100,
    )
    assert recipe.base_lr == 0.01
    assert recipe.total_steps == 100
    assert recipe.decay_steps == (30, 60, 90)
    assert recipe.sources["decay_steps"].count("stretched") == 1


def test_the_rule_s_own_steps_can_be_kept_while_the_rate_scales():
    recipe = overrides.override(
        rule(), batch_size=64, scale_with_batch=True, total_steps=500
    )
    assert recipe.base_lr == pytest.approx(0.003 / 8)
    assert recipe.decay_steps == (150, 300, 450)
    assert recipe.warmup_steps == 100


def test_crop_alone_keeps_the_ratio_to_resize():
    small = rule(10, 32, 32)
    assert overrides.override(small, crop=64).resize == 80
    assert overrides.override(small, resize=80).crop == 64
    both = overrides.override(small, resize=70, crop=64)
    assert (both.resize, both.crop) == (70, 64)


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"base_lr": 0.0}, "base_lr"),
        ({"base_lr": float("nan")}, "base_lr"),
        ({"base_lr": float("inf")}, "base_lr"),
        ({"mixup_alpha": -1.0}, "mixup_alpha"),
        ({"weight_decay": -1.0}, "weight_decay"),
        ({"weight_decay_kind": "l1"}, "weight_decay_kind"),
        ({"weight_decay_on": "biases"}, "weight_decay_on"),
        ({"loss": "hinge"}, "loss='hinge'.*softmax or sigmoid"),
        ({"clip_norm": float("nan")}, "clip_norm"),
        ({"head_bias": float("inf")}, "head_bias"),
        ({"initializer": "ones"}, "initializer"),
        ({"mixup_alpha": float("nan")}, "mixup_alpha"),
        ({"resize": 64, "crop": 128}, "resize"),
        ({"warmup_steps": 500}, "warmup_steps"),
        ({"total_steps": 0}, "total_steps"),
        ({"batch_size": 0}, "batch_size"),
        ({"scale_with_batch": True}, "batch_size"),
    ],
)
def test_values_out_of_range_are_refused_by_name(change, names):
    with pytest.raises(ValueError, match=names):
        overrides.override(rule(), **change)


# Arithmetic of the paper's epochs: 90 at batch 4096, decay at 30, 60, 80.
def test_upstream_epochs_become_steps():
    recipe = upstream.recipe(num_examples=1_281_167)
    assert recipe.total_steps == 28_151
    assert recipe.decay_steps == (9_384, 18_767, 25_023)
    assert recipe.warmup_steps == 5_000
    assert recipe.base_lr == pytest.approx(0.48)
    assert recipe.weight_decay == 1e-4
    assert "inception_crop(224,5)" in recipe.train_preprocessing


def test_a_small_upstream_set_keeps_the_share_of_the_warmup():
    recipe = upstream.recipe(num_examples=30_000, batch_size=128)
    assert recipe.total_steps == 21_094
    assert recipe.warmup_steps == 3_746  # 21,094 * 5,000 / 28,151
    # Or it would reach over the first drop of the rate.
    middle = upstream.recipe(num_examples=500_000)
    assert middle.warmup_steps < middle.decay_steps[0]
    small = upstream.recipe(num_examples=3_000, batch_size=128)
    assert small.total_steps == 2_109
    assert small.warmup_steps == 374  # 2,109 * 5,000 / 28,151
    assert "28,151" in small.sources["warmup_steps"]


# Spec of the paper's section 3.3: 90 epochs of 14.2 M, 40 of 300 M.
@pytest.mark.parametrize(
    ("name", "examples", "steps", "decay", "loss"),
    [
        ("BiT-S", 1_281_167, 28_151, (9_384, 18_767, 25_023), "softmax"),
        ("BiT-M", 14_200_000, 312_012, (104_004, 208_008, 277_344), "sigmoid"),
        (
            "BiT-L",
            300_000_000,
            2_929_688,
            (732_422, 1_684_570, 2_197_266, 2_709_961),
            "sigmoid",
        ),
    ],
)
def test_the_three_upstreams(name, examples, steps, decay, loss):
    assert upstream.UPSTREAMS[name].num_examples == examples
    recipe = upstream.recipe(num_examples=examples, name=name)
    assert recipe.name == f"upstream/{name}"
    assert (recipe.total_steps, recipe.decay_steps) == (steps, decay)
    assert (recipe.loss, recipe.warmup_steps) == (loss, 5_000)
    assert recipe.weight_decay == 1e-4
    for field in ("loss", "weight_decay_kind", "weight_decay_on"):
        assert recipe.sources[field]
    assert "sigmoid" in recipe_lib.table(recipe) or loss == "softmax"


def test_another_upstream_is_refused():
    with pytest.raises(ValueError, match="'BiT-XL': allowed are BiT-S"):
        upstream.recipe(num_examples=10, name="BiT-XL")


@pytest.mark.parametrize(
    ("switches", "train", "evaluation"),
    [
        (
            {"random_flip": False},
            "decode|resize(160)|to_uint8|random_crop(128)|value_range(-1,1)",
            "decode|resize(128)|value_range(-1,1)",
        ),
        (
            {"random_crop": False},
            "decode|resize(128)|to_uint8|random_flip|value_range(-1,1)",
            "decode|resize(128)|value_range(-1,1)",
        ),
        (
            {"apply_exif": False, "random_flip": False, "random_crop": False},
            "decode(0)|resize(128)|to_uint8|value_range(-1,1)",
            "decode(0)|resize(128)|value_range(-1,1)",
        ),
    ],
)
def test_augmentation_can_be_switched_off(switches, train, evaluation):
    recipe = overrides.override(rule(10, 32, 32), **switches)
    assert recipe.train_preprocessing == train
    assert recipe.eval_preprocessing == evaluation


def test_the_upstream_crop_can_be_switched_off():
    template = recipe_lib.INCEPTION_TRAIN
    assert overrides.without(template, {"apply_exif"}).startswith(
        "decode_and_inception_crop({crop},{min_crop_area},0)|to_uint8|"
    )
    assert overrides.without(
        template, {"random_crop", "apply_exif"}
    ).startswith("decode(0)|resize({crop})|to_uint8|random_flip")


def test_stored_pixels_are_scaled_before_they_are_resized():
    recipe = overrides.override(rule(10, 32, 32), pixel_scale=255)
    assert recipe.train_preprocessing.startswith("decode|multiply(255)|resize")
    assert recipe.eval_preprocessing.startswith("decode|multiply(255)|resize")
    large = upstream.recipe(num_examples=1000)
    recipe = overrides.override(large, pixel_scale=255, apply_exif=False)
    assert recipe.train_preprocessing.startswith(
        "decode(0)|multiply(255)|inception_crop(224,5)|to_uint8|random_flip"
    )


def test_upstream_crops_can_be_larger_and_others_cannot():
    large = upstream.recipe(num_examples=1000)
    recipe = overrides.override(large, min_crop_area=25, apply_exif=False)
    assert recipe.train_preprocessing.startswith(
        "decode_and_inception_crop(224,25,0)|to_uint8"
    )
    assert recipe.sources["min_crop_area"] == "--min_crop_area"
    with pytest.raises(ValueError, match="as upstream, not for hyperrule"):
        overrides.override(rule(10, 32, 32), min_crop_area=25)
    with pytest.raises(ValueError, match="not cut at random"):
        overrides.override(large, min_crop_area=25, random_crop=False)
    whole = overrides.override(large, random_crop=False)
    assert whole.min_crop_area is None and "min_crop_area" not in whole.sources
    with pytest.raises(ValueError, match="min_crop_area=0.*1 to 100"):
        overrides.override(large, min_crop_area=0)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("dropout", 1.0, "dropout=1.0.*below 1"),
        ("label_smoothing", -0.1, "label_smoothing"),
        ("freeze", ("block9",), "freeze.*root_block"),
        ("class_weights", "magic", "class_weights.*balanced"),
        ("weight_decay_to", "there", "zero or start"),
    ],
)
def test_values_out_of_range_are_refused(field, value, said):
    with pytest.raises(ValueError, match=said):
        overrides.override(rule(), **{field: value})
