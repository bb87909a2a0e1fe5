"""The paper's sets: counts, splits, label rules worked out by hand."""

import json
import re

import numpy as np
import pytest

from bit_tf import catalogue
from bit_tf import hyperrule
from bit_tf import labelling
from bit_tf import overrides
from bit_tf import search

TASKS = {entry.name: entry for entry in catalogue.VTAB}


def test_there_are_nineteen_in_three_groups():
    groups = [entry.group for entry in catalogue.VTAB]
    assert [groups.count(name) for name in catalogue.GROUPS] == [7, 4, 8]
    assert len(TASKS) == 19


def test_every_task_trains_on_a_thousand_images():
    for entry in catalogue.VTAB:
        counted = 0
        for part in entry.train_split.split("+"):
            begin, end = re.fullmatch(
                r"(?:train|validation|test)\[(\d*):(\d+)\]", part
            ).groups()
            counted += int(end) - int(begin or 0)
        assert counted == entry.train_examples == 1000
        recipe = hyperrule.recipe(
            num_examples=1000,
            image_height=entry.size[0],
            image_width=entry.size[1],
            model="R50x1",
        )
        small = entry.name in (
            "cifar100",
            "svhn",
            "eurosat",
            "dsprites_location",
            "dsprites_orientation",
        )
        # 96x96 is not below 96x96.
        assert recipe.crop == (128 if small else 384)
        assert recipe.total_steps == 500 and not recipe.mixup_alpha


def test_parts_of_one_split_do_not_overlap():
    for entry in catalogue.VTAB:
        if entry.eval_split.startswith("train["):
            last = max(map(int, re.findall(r":(\d+)\]", entry.train_split)))
            first = int(re.search(r"\[(\d+):\]", entry.eval_split)[1])
            assert last <= first


def test_rules_have_as_many_names_as_classes():
    for entry in catalogue.VTAB:
        if entry.rule:
            assert len(set(entry.rule.class_names)) == entry.classes


def test_no_flip_and_no_crop_where_the_paper_has_none():
    no_flip = {n for n, entry in TASKS.items() if not entry.random_flip}
    no_crop = {n for n, entry in TASKS.items() if not entry.random_crop}
    assert no_flip == {
        "dsprites_orientation",
        "dsprites_location",
        "smallnorb_azimuth",
    }
    assert no_crop == {
        "clevr_count",
        "clevr_distance",
        "dmlab",
        "kitti_distance",
        "dsprites_location",
    }


# Thresholds 0, 8, 8.5, 9, 9.5, 10: the largest that is below the distance.
@pytest.mark.parametrize(
    ("distances", "label"),
    [
        ([12.0, 7.9], 0),
        ([8.0, 30.0], 0),
        ([8.01, 9.0], 1),
        ([8.5], 1),
        ([8.6], 2),
        ([9.2], 3),
        ([9.9], 4),
        ([10.0], 4),
        ([10.1, 11.0, 99.0], 5),
    ],
)
def test_clevr_distance(distances, label):
    places = np.array([(3.0, 4.0, d) for d in distances]).ravel()
    rule = labelling.CLEVR_DISTANCE
    assert rule.apply({"objects/pixel_coords": places}) == label


@pytest.mark.parametrize("count", [3, 7, 10])
def test_clevr_count(count):
    found = labelling.CLEVR_COUNT.apply({"objects/color": np.zeros(count)})
    assert found == count - 3
    assert labelling.CLEVR_COUNT.class_names[found] == f"{count} objects"


def test_a_count_that_is_no_class_is_an_error():
    with pytest.raises(ValueError, match="label -1 of 8"):
        labelling.CLEVR_COUNT.apply({"objects/color": np.zeros(2)})


# Cars, vans and trucks are types 0, 1, 2; a cyclist (4) does not count.
@pytest.mark.parametrize(
    ("types", "distances", "label"),
    [
        ([0], [5.0], 0),
        ([2, 0], [7.99, 30.0], 0),
        ([1], [8.0], 0),
        ([1], [8.01], 1),
        ([4, 0], [3.0, 19.0], 1),
        ([0], [20.0], 1),
        ([0], [60.0], 2),
        ([4, 6], [3.0, 4.0], 3),
        ([], [], 3),
        ([0], [-2.0], 0),
    ],
)
def test_kitti_distance(types, distances, label):
    places = np.array([(1.0, 2.0, d) for d in distances]).ravel()
    found = labelling.KITTI_DISTANCE.apply(
        {"objects/type": np.array(types), "objects/location": places}
    )
    assert found == label


@pytest.mark.parametrize(
    ("rule", "stored", "label"),
    [
        # 32 places into 16: two each.
        (labelling.DSPRITES_LOCATION, 0, 0),
        (labelling.DSPRITES_LOCATION, 1, 0),
        (labelling.DSPRITES_LOCATION, 2, 1),
        (labelling.DSPRITES_LOCATION, 31, 15),
        # 40 angles into 16: floor(label / 2.5).
        (labelling.DSPRITES_ORIENTATION, 2, 0),
        (labelling.DSPRITES_ORIENTATION, 3, 1),
        (labelling.DSPRITES_ORIENTATION, 4, 1),
        (labelling.DSPRITES_ORIENTATION, 5, 2),
        (labelling.DSPRITES_ORIENTATION, 39, 15),
        (labelling.SMALLNORB_AZIMUTH, 17, 17),
        (labelling.SMALLNORB_ELEVATION, 8, 8),
    ],
)
def test_numbered_labels(rule, stored, label):
    assert rule.apply({rule.features[0]: np.array([stored])}) == label


def test_binning_equals_the_floor_of_a_division():
    for old, new in ((32, 16), (40, 16)):
        rule = labelling.binned("x", old, new)
        for value in range(old):
            wanted = int(np.floor(value / (old / new)))
            assert rule.apply({"x": np.array([value])}) == wanted


def test_scores_are_means_of_complete_groups():
    top1 = {name: 0.5 for name in TASKS}
    top1["caltech101"] = 1.0
    scores = catalogue.vtab_scores(top1)
    assert scores["natural"] == pytest.approx(4 / 7)
    assert scores["structured"] == 0.5
    assert scores["mean"] == pytest.approx(10 / 19)
    del top1["dmlab"]
    assert set(catalogue.vtab_scores(top1)) == {"natural", "specialized"}


def test_sets_that_only_evaluate_cannot_train():
    with pytest.raises(ValueError, match="for evaluating only"):
        catalogue.find("paper:ilsvrc2012_v2").task()
    task = catalogue.find("paper:ilsvrc2012_v2").task(evaluating=True)
    assert task.train_split == task.eval_split == "test"
    with pytest.raises(ValueError, match="vtab:nothing: allowed are caltech"):
        catalogue.find("vtab:nothing")
    assert catalogue.find("folder:x") is None


def test_the_search_draws_what_the_appendix_says():
    drawn = [search.draw(i) for i in range(400)]
    assert drawn[7] == search.draw(7)
    assert {d["total_steps"] for d in drawn} == set(search.STEPS)
    assert {d["crop"] for d in drawn} == set(search.CROPS)
    rates = np.log10([d["base_lr"] for d in drawn])
    assert -4 <= rates.min() < -3.8 and -1.2 < rates.max() <= -1
    # Log-uniform: half of them below the geometric middle.
    assert 0.4 < (rates < -2.5).mean() < 0.6
    assert max(d["total_steps"] for d in map_steps(1000)) == 1000
    rule = hyperrule.recipe(
        num_examples=1000, image_height=300, image_width=300, model="R50x1"
    )
    for one in drawn[:40]:
        overrides.override(rule, **one)
    json.dumps(drawn)


def map_steps(most):
    return [search.draw(i, max_steps=most) for i in range(100)]
