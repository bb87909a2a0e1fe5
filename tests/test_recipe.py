"""A recipe says what is wrong with it, and what it is, word for word."""
# ruff: noqa: E501

import dataclasses
import re
import textwrap

import pytest

from bit_tf import hyperrule
from bit_tf import recipe as recipe_lib
from bit_tf import subsets

EDGES = {
    "name": "edge",
    "total_steps": 1,
    "batch_size": 1,
    "base_lr": 1e-9,
    "warmup_steps": 0,
    "decay_steps": (),
    "crop": 1,
    "resize": 1,
    "label_smoothing": 0.0,
    "freeze": recipe_lib.FREEZABLE,
}


def refusal(**changes) -> str:
    with pytest.raises(ValueError, match="is not possible") as refused:
        recipe_lib.Recipe(**{**EDGES, **changes})
    return str(refused.value)


def test_what_is_just_possible_is_accepted():
    recipe_lib.Recipe(**EDGES)
    recipe_lib.Recipe(**{**EDGES, "total_steps": 3, "warmup_steps": 2})
    recipe_lib.Recipe(**{**EDGES, "ema_decay": 0.999, "dropout": 0.99})
    recipe_lib.Recipe(**{**EDGES, "loss": "squared"})
    recipe_lib.Recipe(**{**EDGES, "label_smoothing": 0.1})
    for percent in (1, 100):
        recipe_lib.Recipe(**{**EDGES, "min_crop_area": percent})
    recipe_lib.Recipe(**{**EDGES, "head_bias": -10.0, "mixup_alpha": 1e-9})


WHOLE = "a whole number >= 1"
POSITIVE = "a finite number > 0"
OR_NONE = "0 (none) or a finite number > 0"
BELOW = "0 (none) or a number below 1"
WARMUP = "give --warmup_steps (or more --total_steps)"


@pytest.mark.parametrize(
    ("changes", "allowed"),
    [
        ({"total_steps": 0}, WHOLE),
        ({"batch_size": 0}, WHOLE),
        ({"crop": 0}, WHOLE),
        ({"base_lr": 0.0}, POSITIVE),
        ({"base_lr": -1.0}, POSITIVE),
        ({"base_lr": float("inf")}, POSITIVE),
        ({"base_lr": float("nan")}, POSITIVE),
        ({"warmup_steps": -1}, f"from 0 to total_steps - 1 = 0; {WARMUP}"),
        ({"warmup_steps": 1}, f"from 0 to total_steps - 1 = 0; {WARMUP}"),
        ({"mixup_alpha": -0.1}, "0 (no mixup) or a finite number > 0"),
        ({"mixup_alpha": float("inf")}, "0 (no mixup) or a finite number > 0"),
        ({"weight_decay": -0.1}, OR_NONE),
        ({"weight_decay": float("nan")}, OR_NONE),
        ({"clip_norm": -0.1}, OR_NONE),
        ({"clip_norm": float("inf")}, OR_NONE),
        ({"ema_decay": -0.1}, "0 (no average) or a number below 1"),
        ({"ema_decay": 1.0}, "0 (no average) or a number below 1"),
        ({"head_bias": float("nan")}, "a finite number"),
        ({"loss": "hinge"}, "softmax or sigmoid or squared"),
        ({"weight_decay_kind": "l1"}, "l2 or decoupled"),
        ({"weight_decay_on": "none"}, "kernels or all"),
        ({"weight_decay_to": "end"}, "zero or start"),
        ({"class_weights": "some"}, "none or balanced or effective"),
        ({"initializer": "x"}, "glorot_uniform or lecun_normal or he_normal"),
        ({"label_smoothing": 1.0}, BELOW),
        ({"dropout": -0.1}, BELOW),
        (
            {"loss": "squared", "label_smoothing": 0.1},
            "0 where the label is a number",
        ),
        (
            {"freeze": ("all", "block5")},
            "a list of root_block, block1, block2, block3, block4, "
            "group_norm, all",
        ),
        ({"crop": 3, "resize": 2}, "at least crop = 3"),
        ({"min_crop_area": 0}, "1 to 100 percent"),
        ({"min_crop_area": 101}, "1 to 100 percent"),
    ],
)
def test_what_is_not_possible_is_told(changes, allowed):
    *_, (field, value) = changes.items()
    assert refusal(**changes) == (
        f"{field}={value!r} is not possible with recipe edge: allowed is "
        f"{allowed}."
    )


def test_sources_cannot_be_changed():
    sources = {"crop": "mine"}
    recipe = recipe_lib.Recipe(**EDGES, sources=sources)
    sources["crop"] = "yours"
    assert recipe.sources["crop"] == "mine"
    with pytest.raises(TypeError):
        recipe.sources["crop"] = "yours"


def test_a_recipe_is_plain_json_and_back():
    recipe = recipe_lib.Recipe(**EDGES, sources={"crop": "mine"})
    found = recipe.to_dict()
    fields = {field.name for field in dataclasses.fields(recipe)}
    assert set(found) == {*fields, "train_preprocessing", "eval_preprocessing"}
    for name in fields - {"decay_steps", "freeze", "sources"}:
        assert found[name] == getattr(recipe, name)
    assert found["decay_steps"] == [] and found["sources"] == {"crop": "mine"}
    assert found["freeze"] == list(recipe_lib.FREEZABLE)
    assert found["train_preprocessing"] == (
        "decode|resize(1)|to_uint8|random_crop(1)|random_flip|value_range(-1,1)"
    )
    assert found["eval_preprocessing"] == "decode|resize(1)|value_range(-1,1)"


# Of the paper's three kinds of task, as the terminal shows them.
TABLES = {
    (10, 32, "paper"): """\
        recipe hyperrule/paper
          total_steps   500            BiT paper, section 3.3: small task, 10 is fewer than 20,000 examples
          batch_size    512            BiT paper, section 3.3
          base_lr       0.003          BiT paper, section 3.3
          warmup_steps  100            official bit_hyperrule.py (the paper is silent): small task
          decay_steps   150, 300, 450  BiT paper, section 3.3: at 30, 60 and 90 % of the steps
          decay_factor  0.1            BiT paper, section 3.3
          momentum      0.9            BiT paper, section 3.3
          weight_decay  0              BiT paper, section 3.3: none downstream
          mixup_alpha   0              BiT paper, section 3.3: none for small tasks
          resize        160            BiT paper, section 3.3: area below 96x96
          crop          128            BiT paper, section 3.3: area below 96x96
          train         decode|resize(160)|to_uint8|random_crop(128)|random_flip|value_range(-1,1)
          evaluation    decode|resize(128)|value_range(-1,1)""",
    (20_000, 300, "paper"): """\
        recipe hyperrule/paper
          total_steps   10000             BiT paper, section 3.3: medium task, 20,000 is fewer than 500,000 examples
          batch_size    512               BiT paper, section 3.3
          base_lr       0.003             BiT paper, section 3.3
          warmup_steps  500               official bit_hyperrule.py (the paper is silent): medium task
          decay_steps   3000, 6000, 9000  BiT paper, section 3.3: at 30, 60 and 90 % of the steps
          decay_factor  0.1               BiT paper, section 3.3
          momentum      0.9               BiT paper, section 3.3
          weight_decay  0                 BiT paper, section 3.3: none downstream
          mixup_alpha   0.1               BiT paper, section 3.3: medium
          resize        448               BiT paper, section 3.3: area from 96x96
          crop          384               BiT paper, section 3.3: area from 96x96
          train         decode|resize(448)|to_uint8|random_crop(384)|random_flip|value_range(-1,1)
          evaluation    decode|resize(384)|value_range(-1,1)""",
}


@pytest.mark.parametrize("task", TABLES)
def test_the_table_is_what_the_terminal_shows(task):
    examples, side, reading = task
    recipe = hyperrule.recipe(
        num_examples=examples,
        image_height=side,
        image_width=side,
        model="R50x1",
        reading=reading,
    )
    assert recipe_lib.table(recipe) == textwrap.dedent(TABLES[task])


def test_the_largest_tasks_have_no_upper_bound():
    for reading in hyperrule.READINGS:
        recipe = hyperrule.recipe(
            num_examples=500_000,
            image_height=300,
            image_width=300,
            model="R50x1",
            reading=reading,
        )
        assert recipe.name == f"hyperrule/{reading}"
        assert recipe.sources["total_steps"] == (
            "BiT paper, section 3.3: large task, 500,000 is 500,000 examples "
            "or more"
        )
        assert recipe.sources["mixup_alpha"] == "BiT paper, section 3.3: large"


def test_a_table_shows_what_was_changed_and_nothing_else():
    recipe = recipe_lib.Recipe(
        **{
            **EDGES,
            "freeze": ("block1", "block2"),
            "clip_norm": 1 / 3,
            "sources": {"freeze": "--freeze", "clip_norm": "--clip_norm"},
        }
    )
    assert recipe_lib.table(recipe).splitlines()[:3] == [
        "recipe edge",
        "  clip_norm     0.333333        --clip_norm",
        "  freeze        block1, block2  --freeze",
    ]


def test_a_task_of_one_image_is_small_and_of_none_is_refused():
    assert hyperrule.size_class(1).name == "small"
    with pytest.raises(
        ValueError,
        match=re.escape(
            "num_examples=0: the HyperRule needs at least one training example."
        ),
    ):
        hyperrule.size_class(0)


def sample(counts, k, **kwargs):
    labels = [c for c, count in enumerate(counts) for _ in range(count)]
    names = [f"c{number}" for number in range(len(counts))]
    return subsets.sample(
        labels, class_names=names, examples_per_class=k, seed=0, **kwargs
    )


@pytest.mark.parametrize("count", [5, 6])
def test_up_to_five_classes_that_are_too_small_are_named(count):
    with pytest.raises(ValueError, match="classes have fewer") as refused:
        sample([3] + [2] * count, 3)
    shown = ", ".join(f"c{number} (2)" for number in range(1, 6))
    more = ", ..." if count > 5 else ""
    assert str(refused.value) == (
        f"{count} of {count + 1} classes have fewer than examples_per_class=3 "
        f"images: {shown}{more}. Take fewer per class, or allow it with "
        "--fewshot_allow_missing."
    )


def test_as_many_as_there_are_and_no_less_than_one():
    found = sample([2, 2], 2)
    assert found.tolist() == [0, 1, 2, 3] and found.dtype == "int64"
    assert len(sample([2, 2], 1)) == 2
    with pytest.raises(ValueError, match="is not possible") as refused:
        sample([2, 2], 0)
    assert str(refused.value) == (
        "examples_per_class=0 is not possible: allowed is a whole number >= 1."
    )
