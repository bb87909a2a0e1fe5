"""Measures what this machine makes of a BiT.

python -m bit_tf.benchmark --model=R50x1 --crop=128 --batch_size=8
"""

import json
import os
import pathlib
import platform
import subprocess
import sys
import tempfile
import time

from absl import flags

from bit_tf import architecture
from bit_tf import data_flags as images
from bit_tf import execution
from bit_tf import hyperrule
from bit_tf import importing
from bit_tf import overrides
from bit_tf import program

WORKS = ("train", "inference", "export", "input")
# What the process of a measurement is told: JSON of "started", seconds since
# the epoch, or of "write", and of where the exported model is.
TOLD = "BIT_TF_BENCHMARK"

_MODEL = flags.DEFINE_string("model", "R50x1", "Architecture, such as R26x0.5.")
_CROP = flags.DEFINE_integer(
    "crop", 128, "Side of the images, pixels.", lower_bound=1
)
_BATCH_SIZE = flags.DEFINE_integer(
    "batch_size", 8, "Images of a call.", lower_bound=1
)
_WORK = flags.DEFINE_multi_enum(
    "work",
    None,
    WORKS,
    "What to measure; may be given again. train is an update; inference the "
    "network; export what bit_tf.export --form=inference writes; input the "
    "batches of training. Default: all. With --dataset train has its images.",
)
_CALLS = flags.DEFINE_integer(
    "calls", 10, "How often each is timed.", lower_bound=1
)
_REMAT = flags.DEFINE_bool("remat", False, "As bit_tf.train has it, for train.")
_PRECISION = flags.DEFINE_enum(
    "precision",
    "float32",
    execution.PRECISIONS,
    "As bit_tf.train has it, for train and inference.",
)
# Elsewhere they would be accepted and ignored.
_ONLY_FOR = {
    "remat": {"train"},
    "precision": {"train", "inference"},
    "dataset": {"train", "input"},
}
_JSON = flags.DEFINE_string(
    "json", None, "File to write the rows to as JSON lines."
)


def main() -> None:
    architecture.parse_name(_MODEL.value)
    works = _WORK.value or list(WORKS)
    for name, of in _ONLY_FOR.items():
        flag = flags.FLAGS[name]
        if flag.present and not flag.using_default_value and not of & {*works}:
            raise ValueError(
                f"{flag.serialize()} changes nothing that is measured: it is "
                f"for --work={' and --work='.join(sorted(of))}."
            )
    if TOLD in os.environ:
        row = _measured(*works, **json.loads(os.environ[TOLD]))
        pathlib.Path(_JSON.value).write_text(json.dumps(row) + "\n")
        return
    rows = []
    program.say(
        f"{_MODEL.value}, {_CROP.value} pixels, {_BATCH_SIZE.value} images a "
        f"call; {os.cpu_count()} cores"
    )
    for work in works:
        rows.append(_in_a_process_of_its_own(work))
        program.say(_line(rows[-1]))
    if _JSON.value:
        text = "".join(json.dumps(row) + "\n" for row in rows)
        pathlib.Path(_JSON.value).write_text(text)


def _in_a_process_of_its_own(work: str) -> dict:
    """Returns the row of a measurement whose memory is nobody else's."""
    given = [
        text
        for text in program.given_flags(_MODEL, images.DATASET, images.DATA_DIR)
        if not text.startswith(("--work=", "--json="))
        and work in _ONLY_FOR.get(text.lstrip("-").split("=")[0], WORKS)
    ]
    with tempfile.TemporaryDirectory() as directory:
        file = pathlib.Path(directory, "row.json")

        def run(**told):
            told["model"] = str(pathlib.Path(directory, "model"))
            done = subprocess.run(
                [
                    *(sys.executable, "-m", "bit_tf.benchmark", *given),
                    *(f"--work={work}", f"--json={file}"),
                ],
                env={**os.environ, TOLD: json.dumps(told)},
                check=False,
            )
            if done.returncode:
                raise SystemExit(done.returncode)

        if work == "export":
            # Whoever serves it did not write it.
            run(write=True)
        run(started=time.time())
        return json.loads(file.read_text())


def _measured(
    work: str, *, model: str, started: float = 0.0, write: bool = False
) -> dict:
    with importing.quickly():
        from bit_tf import benchmarking

    if write:
        benchmarking.write(
            pathlib.Path(model), model=_MODEL.value, crop=_CROP.value
        )
        return {}

    shape = {
        "model": _MODEL.value,
        "crop": _CROP.value,
        "batch_size": _BATCH_SIZE.value,
        "calls": _CALLS.value,
    }
    real = {}
    if work == "input" or (work == "train" and flags.FLAGS["dataset"].present):
        real = _real_images()
    if work == "train":
        row = benchmarking.train(
            **shape,
            **real,
            remat=_REMAT.value,
            precision=_PRECISION.value,
        )
    elif work == "inference":
        row = benchmarking.inference(**shape, precision=_PRECISION.value)
    elif work == "export":
        row = benchmarking.export(pathlib.Path(model), **shape)
    else:
        row = benchmarking.read(**real, calls=_CALLS.value)
    row["startup_seconds"] = row.pop("first_call_ended") - started
    return {
        "work": work,
        **shape,
        **row,
        "images": images.DATASET.value if real else "noise",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "onednn": os.environ.get("TF_ENABLE_ONEDNN_OPTS"),
    }


def _real_images() -> dict:
    """Returns examples, and the rule for them at the size that was asked."""
    train, _ = images.load(images.task())
    height, width = train.typical_size()
    rule = hyperrule.recipe(
        num_examples=len(train),
        image_height=height,
        image_width=width,
        model=_MODEL.value,
    )
    return {
        "examples": train,
        "recipe": overrides.override(
            rule,
            crop=_CROP.value,
            batch_size=_BATCH_SIZE.value,
            # No end while it is timed.
            total_steps=10**7,
        ),
    }


def _line(row: dict) -> str:
    text = (
        f"{row['work']:<10}{row['images_per_second']:9.1f} images/s  "
        f"{row['ms']:8.1f} ms ({row['ms_min']:.1f} to {row['ms_max']:.1f})  "
        f"{row['peak_memory_mb']:6.0f} MB  "
        f"first call after {row['startup_seconds']:.1f} s"
    )
    if "gemm_share" in row:
        text += (
            f"  {100 * row['gemm_share']:.0f} % of "
            f"{row['gemm_gflops']:.0f} GFLOP/s"
        )
    return text


def _processor() -> str:
    file = pathlib.Path("/proc/cpuinfo")
    if file.exists():
        for line in file.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor()


if __name__ == "__main__":
    flags.adopt_module_key_flags(images)
    flags.set_default(images.DATASET, "builtin:patches")
    program.run(main)
