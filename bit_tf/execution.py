"""How the updates of a recipe are computed: devices' memory, speed, safety.

Nothing here is meant to change what is learned. `precision` does, within its
rounding; everything else only in the order of sums.
"""

import dataclasses

from bit_tf import architecture

# Keras' names of dtype policies.
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
NAN_POLICIES = ("stop", "rollback")
# Room for the activations of a step, of which training keeps about four copies
# (conv, norm, scale, ReLU). A step that needs more is computed in parts.
ACTIVATION_BYTES = 2 * 2**30
COPIES = 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class Execution:
    """The switches, see the flags of the same names.

    Args:
        precision: one of PRECISIONS.
        accumulate_steps: parts that each replica computes its share of the
            batch in, one after the other; None for as many as memory asks for.
        remat: whether the units' inner activations are computed again in the
            backward pass instead of kept.
        steps_per_call: updates between two looks of the host; None for one on
            CPUs and ten elsewhere.
        cache_mb: millions of bytes for images in memory, decoded and resized,
            if all of them fit; 0 for none.
        deterministic: whether to choose operations that give the same bits
            every time, and to leave what a clock says out of the rows.
        jit_compile: whether XLA compiles forward and backward pass.
        nan_policy: one of NAN_POLICIES.
        eval_every: steps between evaluations; None for only at the end.
        checkpoint_every: steps between states; None for every five minutes.
        keep_checkpoints: how many of the newest states are kept.
        keep_checkpoint_every: states of every so many steps are kept for good;
            None for none.

    Raises:
        ValueError: a name that there is not.
    """

    precision: str = "float32"
    accumulate_steps: int | None = None
    remat: bool = False
    steps_per_call: int | None = None
    cache_mb: int = 0
    deterministic: bool = False
    jit_compile: bool = False
    nan_policy: str = "stop"
    eval_every: int | None = None
    checkpoint_every: int | None = None
    keep_checkpoints: int = 2
    keep_checkpoint_every: int | None = None

    def __post_init__(self):
        for field, allowed in (
            ("precision", PRECISIONS),
            ("nan_policy", NAN_POLICIES),
        ):
            if getattr(self, field) not in allowed:
                raise ValueError(
                    f"{field}={getattr(self, field)!r}: allowed are "
                    f"{', '.join(allowed)}."
                )

    def parts(self, model_name: str, *, crop: int, replica_batch: int) -> int:
        """Returns in how many parts a replica computes its share of a batch.

        GroupNorm sees each image alone, so that the parts add up to the whole.

        Args:
            model_name: e.g. "R50x1".
            crop: image side, pixels.
            replica_batch: images of a replica's share.

        Raises:
            ValueError: accumulate_steps does not divide the share.
        """
        if self.accumulate_steps is not None:
            if replica_batch % self.accumulate_steps:
                raise ValueError(
                    f"accumulate_steps={self.accumulate_steps} does not divide "
                    f"the {replica_batch} images of each device: allowed are "
                    "its divisors."
                )
            return self.accumulate_steps
        width = 4 if self.precision == "float32" else 2
        per_image = COPIES * width * architecture.activations(model_name, crop)
        fitting = max(1, ACTIVATION_BYTES // per_image)
        largest = max(
            size
            for size in range(1, min(fitting, replica_batch) + 1)
            if replica_batch % size == 0
        )
        return replica_batch // largest
