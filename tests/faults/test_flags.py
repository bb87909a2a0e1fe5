"""Whatever flags are given, the answer is a recipe or one line."""

import re

import hypothesis
from hypothesis import strategies

NUMBERS = (
    *("1", "2", "3", "7", "8", "16", "40", "100", "1000"),
    *("-1", "0", "2147483648", "1e9", "x", ""),
)
REALS = (*NUMBERS, "0.1", "0.5", "1e-30", "-0.5", "nan", "inf")
BOOLS = ("true", "false", "maybe")
# Of each flag the values that are tried.
FLAGS = {
    "dataset": (
        *("builtin:patches", "builtin:none", "folder:nowhere", "csv:nowhere"),
        *("patches", "npz:", ""),
    ),
    "model": ("R26x0.5", "R50x1", "R27x1", "BiT-M-R50x1", "BiT-S", "R50x0", ""),
    "recipe": ("hyperrule", "upstream", "none"),
    "upstream": ("BiT-S", "BiT-M", "BiT-L", "BiT-X"),
    "hyperrule": ("paper", "code", "none"),
    "examples_per_class": NUMBERS,
    "fewshot_seed": NUMBERS,
    "fewshot_allow_missing": BOOLS,
    "seed": NUMBERS,
    "precision": ("float32", "mixed_bfloat16", "half"),
    "accumulate_steps": NUMBERS,
    "steps_per_call": NUMBERS,
    "cache_mb": NUMBERS,
    "worker_timeout": NUMBERS,
    "loss": ("softmax", "sigmoid", "hinge"),
    "head_bias": REALS,
    "split_seed": NUMBERS,
    "train_split": ("train", "test", "all", ""),
    "max_image_pixels": NUMBERS,
    "keep_checkpoint_every": NUMBERS,
    "weight_decay_on": ("kernels", "all", "none"),
    "init_from": ("nowhere.npz", "BiT-S-R50x1", ""),
    "remat": BOOLS,
    "jit_compile": BOOLS,
    "nan_policy": ("stop", "rollback", "ignore"),
    "strategy": ("auto", "one_device", "mirrored", "tpu", "many"),
    "eval_every": NUMBERS,
    "checkpoint_every": NUMBERS,
    "keep_checkpoints": NUMBERS,
    "total_steps": NUMBERS,
    "batch_size": NUMBERS,
    "base_lr": REALS,
    "warmup_steps": NUMBERS,
    "weight_decay": REALS,
    "weight_decay_kind": ("l2", "decoupled", "none"),
    "weight_decay_to": ("zero", "start", "end"),
    "mixup_alpha": REALS,
    "resize": NUMBERS,
    "crop": NUMBERS,
    "clip_norm": REALS,
    "ema_decay": REALS,
    "label_smoothing": REALS,
    "dropout": REALS,
    "freeze": ("block1", "all", "block9", "root_block,block1", ""),
    "class_weights": ("none", "balanced", "effective", "magic"),
    "initializer": ("glorot_uniform", "he_normal", "ones"),
    "random_flip": BOOLS,
    "random_crop": BOOLS,
    "apply_exif": BOOLS,
    "target": ("number", "bins:1,2", "bins:", "class", "x"),
    "on_bad_image": ("fail", "skip", "mend"),
    "scale_with_batch": BOOLS,
    "worker_hosts": ("a:1,b:2", "a", "", ":"),
    "worker_index": NUMBERS,
    "no_such_flag": ("1",),
}
USUAL = {"dataset": "builtin:patches", "model": "R26x0.5"}


@strategies.composite
def some_flags(draw):
    """Returns usual flags, of which up to three are otherwise."""
    names = draw(
        strategies.lists(
            strategies.sampled_from(sorted(FLAGS)), max_size=3, unique=True
        )
    )
    changed = {
        name: draw(strategies.sampled_from(FLAGS[name])) for name in names
    }
    return {**USUAL, **changed}


def test_any_flags_are_a_recipe_or_one_line(campaign, checks, count, tmp_path):
    demanded = "exit 0, or 1 and one line that names a flag"
    seen = {"usable": 0, "refused": 0}

    def one_line(life, flags):
        """Returns whether an error is one line about something given."""
        lines = life.printed().strip().splitlines()
        last = lines[-1] if lines else ""
        # What "folder:nowhere" names is "nowhere".
        values = [v.partition(":")[2] or v for v in flags.values()]
        about = [*flags, *filter(None, values), "flag", "dataset"]
        return (
            life.poll() == 1
            and "Traceback" not in life.printed()
            and last.startswith("bit_tf.train: ")
            and any(re.search(re.escape(word), last) for word in about)
        )

    with campaign("R18 flags made by hypothesis", demanded) as row:

        @hypothesis.settings(
            max_examples=count(40, 10_000),
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(hypothesis.HealthCheck),
            # The first that fails says enough.
            phases=[hypothesis.Phase.generate],
            report_multiple_bugs=False,
        )
        @hypothesis.given(some_flags())
        def check(flags):
            life = checks.run(
                "train",
                *(f"--{name}={value}" for name, value in flags.items()),
                f"--workdir={tmp_path / 'run'}",
                "--only_check_flags",
            )
            is_usable = life.poll() == 0
            seen["usable" if is_usable else "refused"] += 1
            row.check(
                is_usable or one_line(life, flags),
                f"{flags}: {life.printed()[-600:]}",
            )

        check()
        row.seen.update(seen)
        row.check(not (tmp_path / "run").exists(), "something was written")
        row.faults -= 1
        # Else the flags were all alike.
        assert min(seen.values()) > row.faults / 10
