"""How an update is computed: in parts that fit, by switches that exist."""

import pytest

from bit_tf import execution


def parts(name, crop, batch=512, **kwargs):
    return execution.Execution(**kwargs).parts(
        name, crop=crop, replica_batch=batch
    )


def test_parts_fit_into_memory():
    assert parts("R26x0.5", 32) == 1
    large = parts("R26x0.5", 384)
    assert 512 % large == 0 and 512 // large < 32
    assert parts("R152x4", 480) == 512
    assert parts("R26x0.5", 384, batch=7) == 1
    assert parts("R50x1", 384, batch=7) == 7
    # Numbers of half the width need half the room.
    assert parts("R50x1", 224, precision="mixed_bfloat16") < parts("R50x1", 224)


def test_the_parts_that_are_asked_for_have_to_divide():
    assert parts("R26x0.5", 32, accumulate_steps=8) == 8
    with pytest.raises(ValueError, match="accumulate_steps=3.*512 images"):
        parts("R26x0.5", 32, accumulate_steps=3)


@pytest.mark.parametrize(
    "kwargs", [{"precision": "float8"}, {"nan_policy": "hope"}]
)
def test_other_names_are_refused(kwargs):
    with pytest.raises(ValueError, match="allowed are"):
        execution.Execution(**kwargs)
