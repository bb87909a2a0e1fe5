r"""Times implementations of R50x1 in turn: A B C A B C.

python experiments/speed/compare.py > experiments/results/speed/peers.jsonl

Each contender is a process that stays alive while the others work, with the
same weights, the same images and the same number of threads. A round lets each
work once; the figures are medians over rounds of the ratio to the first. What
other processes took of the machine meanwhile is told of each round. No ratio
is given to whoever's logits are not those of the first.

"start" is from the start of a process to the end of its first update: in each
round a process of its own.
"""

import argparse
import contextlib
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np

CONTENDER = pathlib.Path(__file__).with_name("contender.py")
CLASSES = 1000
WORK = (
    *("infer:1:224", "infer:8:224", "infer:32:224"),
    *("train:8:128", "train:16:128", "train:4:480"),
    "start:8:128",
)
# The first is what the others are compared with.
CONTENDERS = {
    "infer": (
        *("timm_eager", "timm_channels_last", "timm_compiled"),
        *("transformers", "keras_naive", "bit_tf", "bit_tf_export"),
    ),
    "train": (
        *("timm_eager", "timm_channels_last", "timm_compiled"),
        *("transformers", "keras_naive", "bit_tf"),
    ),
    "start": ("keras_as_it_comes", "keras_alone", "keras_naive", "bit_tf"),
}
# Of the largest logit: rounding, and timm's epsilon of 1e-8.
TOLERANCE = 2e-3
# Of a contender's name: without oneDNN, whatever TensorFlow's default is.
WITHOUT_ONEDNN = "-onednn"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", action="append")
    parser.add_argument("--contenders")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        directory = pathlib.Path(directory)
        prepare(directory)
        for work in given.work or WORK:
            draw(directory, work)
            names = CONTENDERS[work.split(":")[0]]
            if given.contenders:
                names = given.contenders.split(",")
            for row in compare(
                names, work, directory, given.rounds, given.threads
            ):
                print(json.dumps(row), flush=True)


def prepare(directory: pathlib.Path) -> None:
    """Writes R50x1 with weights that were drawn, for all that read it."""
    subprocess.run(
        [
            *(sys.executable, str(CONTENDER.with_name("models.py"))),
            *(str(directory), "inference"),
        ],
        check=True,
        env=environment("bit_tf", os.cpu_count()),
        stdout=sys.stderr,
    )


def draw(directory: pathlib.Path, work: str) -> None:
    """Writes the images and labels of a piece of work."""
    _, batch, side = work.split(":")
    rng = np.random.default_rng(0)
    shape = (int(batch), int(side), int(side), 3)
    np.save(
        directory / "images.npy", rng.uniform(-1, 1, shape).astype(np.float32)
    )
    np.save(directory / "labels.npy", rng.integers(0, CLASSES, int(batch)))


def environment(name: str, threads: int) -> dict[str, str]:
    """Returns the environment in which a contender works."""
    return {
        **os.environ,
        "PYTHONPATH": str(CONTENDER.parents[2]),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "TF_ENABLE_ONEDNN_OPTS": "0" if name.endswith(WITHOUT_ONEDNN) else "1",
        "TF_NUM_INTRAOP_THREADS": str(threads),
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
    }


class Contender:
    """A process that works when it is told to."""

    def __init__(self, name, work, directory, threads):
        self.name = name
        before = busy()
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-W", "ignore", str(CONTENDER)),
                *(name.removesuffix(WITHOUT_ONEDNN), work, str(directory)),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(name, threads),
        )
        # Waited for before the next is started, so that none disturbs another.
        self.started = self._answer()
        if work.startswith("start"):
            seconds = time.monotonic() - before[0]
            self.first_update = {"seconds": seconds, **self.started}
            self.others_busy = busy_with_others(before, [self.started])

    def ask(self, command):
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self):
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} ended")
        return json.loads(line)

    def logits(self, directory):
        self.ask(f"logits {directory / 'logits.npy'}")
        return np.load(directory / "logits.npy")

    def close(self):
        self._process.kill()
        self._process.wait()


def compare(names, work, directory, rounds, threads):
    """Yields a row per contender."""
    measure = starts if work.startswith("start") else calls
    found, contenders, logits, others = measure(
        names, work, directory, rounds, threads
    )
    first = [answer["seconds"] for answer in found[names[0]]]
    largest = np.abs(logits[names[0]]).max()
    for name, contender in contenders.items():
        seconds = [answer["seconds"] for answer in found[name]]
        difference = float(
            np.abs(logits[name] - logits[names[0]]).max() / largest
        )
        row = {
            "work": work,
            "contender": name,
            "ms": 1e3 * statistics.median(seconds),
            "logit_difference": difference,
            "peak_mb": found[name][-1]["peak_mb"],
            **{k: contender.started[k] for k in ("ready_s", "first_s")},
            "rounds": rounds,
            "threads": threads,
            "others_busy": max(others),
            "processor": processor(),
        }
        if difference < TOLERANCE:
            ratios = [a / b for a, b in zip(seconds, first, strict=True)]
            row |= {
                "ratio": statistics.median(ratios),
                "ratio_min": min(ratios),
                "ratio_max": max(ratios),
                "peak_ratio": row["peak_mb"] / found[names[0]][-1]["peak_mb"],
            }
        yield row


def calls(names, work, directory, rounds, threads):
    """Times processes that stay; returns all by name, and others' share."""
    contenders = {}
    with contextlib.ExitStack() as stack:
        for name in names:
            contenders[name] = Contender(name, work, directory, threads)
            stack.enter_context(contextlib.closing(contenders[name]))
        found = {name: [] for name in names}
        others = []
        for _ in range(rounds):
            before = busy()
            for name, contender in contenders.items():
                found[name].append(contender.ask("run"))
            last = [answers[-1] for answers in found.values()]
            others.append(busy_with_others(before, last))
        logits = {n: c.logits(directory) for n, c in contenders.items()}
    return found, contenders, logits, others


def starts(names, work, directory, rounds, threads):
    """Times processes until their first update; returns what `calls` does."""
    contenders, logits = {}, {}
    found = {name: [] for name in names}
    others = []
    for _ in range(rounds):
        for name in names:
            contender = Contender(name, work, directory, threads)
            with contextlib.closing(contender):
                found[name].append(contender.first_update)
                others.append(contender.others_busy)
                logits[name] = contender.logits(directory)
            contenders[name] = contender
    return found, contenders, logits, others


def busy() -> tuple[float, float]:
    """Returns (wall clock, CPU seconds that the machine has worked)."""
    fields = pathlib.Path("/proc/stat").read_text().split("\n", 1)[0].split()
    user, nice, system, _, _, irq, softirq, *_ = map(int, fields[1:])
    ticks = os.sysconf("SC_CLK_TCK")
    return time.monotonic(), (user + nice + system + irq + softirq) / ticks


def busy_with_others(before, answers) -> float:
    """Returns how many cores were busy since, and not with these answers."""
    now, worked = busy()
    ours = sum(answer["total_cpu_seconds"] for answer in answers)
    return max(0.0, (worked - before[1] - ours) / (now - before[0]))


def processor() -> str:
    """Returns the processor's name."""
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


if __name__ == "__main__":
    main()
