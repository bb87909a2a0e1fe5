"""Batches of a recipe, as the tests ask for them."""

from bit_tf import data


def for_evaluation(examples, recipe, **kwargs):
    return data.for_evaluation(
        examples,
        preprocessing=recipe.eval_preprocessing,
        crop=recipe.crop,
        **kwargs,
    )
