"""Whatever runs an exported model finds what the network finds."""

import io
import json
import subprocess
import sys

import pytest
from PIL import Image

from bit_tf import sources
from bit_tf import tasks
from tests import programs

# Of the largest logit.
ALLOWED = {"tflite float16": 1e-2}
USUALLY_ALLOWED = 1e-5
# With eight bits, how often the same class is first.
AGREEMENT = {"tflite dynamic": 0.98, "tflite int8": 0.98}


@pytest.mark.campaign
def test_every_runtime_agrees_with_the_network(campaign, rng, tmp_path):
    # Answers of a network that learnt nothing are close calls.
    trained = programs.run(
        "train",
        "--flagfile=experiments/quickstart.flags",
        *("--noexport", f"--workdir={tmp_path / 'run'}"),
    )
    assert trained.returncode == 0, trained.stderr
    images = tmp_path / "images"
    images.mkdir()
    _, few = sources.load(tasks.parse("builtin:patches"))
    for number, index in enumerate(rng.permutation(len(few))[:150]):
        image = Image.open(io.BytesIO(few.contents[index]))
        width, height = rng.integers(33, 200, 2)
        image.convert("RGB").resize((width, height), Image.BICUBIC).save(
            images / f"{number}.jpg", quality=95
        )
    demanded = "logits within 1e-5, float16 1e-2, 8 bits 98 % alike"
    with campaign("R16 exports x images, without bit_tf", demanded) as row:
        done = subprocess.run(
            [
                *(sys.executable, "experiments/consumers.py"),
                *(f"--images={images}", f"--weights={tmp_path / 'run'}"),
                "--models=R26x0.5",
            ],
            cwd=programs.ROOT,
            check=True,
            capture_output=True,
            text=True,
        )
        for line in done.stdout.splitlines():
            seen = json.loads(line)
            name = seen["consumer"]
            if "losses" in seen:
                first, *_, last = seen["losses"]
                row.check(last < first, line)
                continue
            if name in AGREEMENT:
                held = seen.get("agreement", 0) >= AGREEMENT[name]
            else:
                allowed = ALLOWED.get(name, USUALLY_ALLOWED)
                held = seen.get("largest_difference", 1) <= allowed
            row.check(held, line)
            row.faults += seen.get("images", 1) - 1
