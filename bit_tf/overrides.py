"""A recipe with what the user, or the task, decided otherwise."""

import dataclasses
from collections.abc import Sequence
from collections.abc import Set

from bit_tf import recipe as recipe_lib

_DECODE_AND_CROP = "decode_and_inception_crop({crop},{min_crop_area})"
_DECODE_AS_STORED = "decode_and_inception_crop({crop},{min_crop_area},0)"


def override(
    recipe: recipe_lib.Recipe,
    *,
    batch_size: int | None = None,
    base_lr: float | None = None,
    total_steps: int | None = None,
    warmup_steps: int | None = None,
    mixup_alpha: float | None = None,
    loss: str | None = None,
    weight_decay: float | None = None,
    weight_decay_kind: str | None = None,
    weight_decay_on: str | None = None,
    weight_decay_to: str | None = None,
    label_smoothing: float | None = None,
    class_weights: str | None = None,
    dropout: float | None = None,
    freeze: Sequence[str] | None = None,
    clip_norm: float | None = None,
    ema_decay: float | None = None,
    head_bias: float | None = None,
    initializer: str | None = None,
    resize: int | None = None,
    crop: int | None = None,
    min_crop_area: int | None = None,
    random_flip: bool = True,
    random_crop: bool = True,
    apply_exif: bool = True,
    pixel_scale: int = 1,
    scale_with_batch: bool = False,
) -> recipe_lib.Recipe:
    """Replaces what the user decided and keeps the shape of the rest.

    None means "the recipe decides". Warm-up and decay points move in
    proportion when `total_steps` changes, and of `resize` and `crop` the one
    left out keeps the rule's ratio to the other. `random_flip`, `random_crop`
    and `apply_exif` can be switched off; see `without`. Stored pixels are
    multiplied by `pixel_scale`. With
    `scale_with_batch` a `batch_size` other than the recipe's scales the
    learning rate by batch / recipe batch and the steps by its inverse, so that
    the same number of examples is seen (linear scaling, as the official TF2
    notebook advises).

    Raises:
        ValueError: `scale_with_batch` without `batch_size`, `resize` or
            `min_crop_area` in a recipe that has no place for it, or a value
            out of range.
    """
    changes: dict = {}
    sources = dict(recipe.sources)

    def change(field, value, source):
        changes[field] = value
        sources[field] = source

    def stretch_schedule(steps: int, source: str):
        ratio = steps / recipe.total_steps
        change("total_steps", steps, source)
        for field in ("warmup_steps", "decay_steps"):
            old = getattr(recipe, field)
            new = (
                tuple(round(step * ratio) for step in old)
                if field == "decay_steps"
                else round(old * ratio)
            )
            if new != old:
                change(
                    field,
                    new,
                    f"{sources[field]}, stretched by "
                    f"{steps}/{recipe.total_steps} steps",
                )

    if scale_with_batch and batch_size is None:
        raise ValueError(
            "scale_with_batch needs a batch size to scale with: give "
            "--batch_size too, or drop --scale_with_batch."
        )
    steps, why = total_steps, "--total_steps"
    if batch_size is not None:
        change("batch_size", batch_size, "--batch_size")
        if scale_with_batch and batch_size >= 1:
            ratio = batch_size / recipe.batch_size
            scaled = f"--scale_with_batch {batch_size}/{recipe.batch_size}"
            change("base_lr", recipe.base_lr * ratio, scaled)
            if steps is None:
                steps = max(1, round(recipe.total_steps / ratio))
                why = scaled
    if steps is not None:
        stretch_schedule(steps, why)
    for field, value in (
        ("base_lr", base_lr),
        ("warmup_steps", warmup_steps),
        ("mixup_alpha", mixup_alpha),
        ("loss", loss),
        ("weight_decay", weight_decay),
        ("weight_decay_kind", weight_decay_kind),
        ("weight_decay_on", weight_decay_on),
        ("weight_decay_to", weight_decay_to),
        ("label_smoothing", label_smoothing),
        ("class_weights", class_weights),
        ("dropout", dropout),
        ("freeze", None if freeze is None else tuple(freeze)),
        ("clip_norm", clip_norm),
        ("ema_decay", ema_decay),
        ("head_bias", head_bias),
        ("initializer", initializer),
    ):
        if value is not None:
            change(field, value, f"--{field}")
    if resize is not None and recipe.resize is None:
        raise ValueError(
            f"resize={resize} has no place in recipe {recipe.name}, which "
            "crops without resizing first: drop --resize, or give --crop."
        )
    if min_crop_area is not None:
        if recipe.min_crop_area is None:
            raise ValueError(
                f"min_crop_area={min_crop_area} is for recipes that cut parts "
                f"of all sizes, as upstream, not for {recipe.name}: drop it."
            )
        if not random_crop:
            raise ValueError(
                f"min_crop_area={min_crop_area} does nothing where images are "
                "not cut at random: drop one of the two."
            )
        change("min_crop_area", min_crop_area, "--min_crop_area")
    if not random_crop and recipe.min_crop_area is not None:
        changes["min_crop_area"] = None
        del sources["min_crop_area"]
    if resize is not None:
        change("resize", resize, "--resize")
    if crop is not None:
        change("crop", crop, "--crop")
    if recipe.resize is not None and (resize is None) != (crop is None):
        if crop is None:
            scaled = round(resize * recipe.crop / recipe.resize)
            change("crop", scaled, "the rule's ratio to --resize")
        else:
            scaled = round(crop * recipe.resize / recipe.crop)
            change("resize", scaled, "the rule's ratio to --crop")
    off = {
        "random_flip": not random_flip,
        "random_crop": not random_crop,
        "apply_exif": not apply_exif,
    }
    for field in ("train_template", "eval_template"):
        changes[field] = without(
            getattr(recipe, field), {name for name in off if off[name]}
        )
        if pixel_scale != 1:
            changes[field] = _scaled(changes[field], pixel_scale)
    return dataclasses.replace(recipe, **changes, sources=sources)


def _scaled(template: str, factor: int) -> str:
    """Returns a template that multiplies the pixels right after decoding."""
    first, _, rest = template.partition("|")
    if first.startswith("decode_and_inception_crop"):
        # Which resizes too: what is stored as 1 would be lost.
        decode = "decode(0)" if first == _DECODE_AS_STORED else "decode"
        crop = "inception_crop({crop},{min_crop_area})"
        return f"{decode}|multiply({factor})|{crop}|{rest}"
    return f"{first}|multiply({factor})|{rest}"


def without(template: str, names: Set[str]) -> str:
    """Returns a preprocessing template without some of its operations.

    Args:
        template: see `Recipe`.
        names: of what to leave out. Without "random_flip" or "random_crop",
            for tasks where left and right or the place in the picture matter
            (paper, section 3.3), images are resized to the crop itself. Without
            "apply_exif" they are taken as they are stored.
    """
    operations = template.split("|")
    if "random_flip" in names:
        operations = [o for o in operations if o != "random_flip"]
    if "random_crop" in names:
        random_crop = "random_crop({crop})"
        if random_crop in operations:
            operations.remove(random_crop)
            operations = [
                "resize({crop})" if o == "resize({resize})" else o
                for o in operations
            ]
        operations = [
            whole
            for o in operations
            for whole in (
                ("decode", "resize({crop})") if o == _DECODE_AND_CROP else (o,)
            )
        ]
    if "apply_exif" in names:
        as_stored = {
            "decode": "decode(0)",
            _DECODE_AND_CROP: _DECODE_AS_STORED,
        }
        operations = [as_stored.get(o, o) for o in operations]
    return "|".join(operations)
