"""A long run neither grows nor slows."""

import pathlib
import time

import numpy as np
import pytest

from bit_tf import workdir as workdir_lib
from tests.faults import test_lives


def process(pid: int) -> dict[str, float]:
    """Returns what Linux tells of a process."""
    root = pathlib.Path(f"/proc/{pid}")
    status = dict(
        line.split(":", 1)
        for line in (root / "status").read_text().splitlines()
    )
    return {
        "mb": int(status["VmRSS"].split()[0]) / 1e3,
        "threads": int(status["Threads"]),
        "files": len(list((root / "fd").iterdir())),
    }


@pytest.mark.campaign
def test_a_soak(campaign, trainings, count, tmp_path):
    total = count(600, 20_000)
    path = tmp_path / "run"
    demanded = "below 1 MB per 1,000 steps; no more files, threads, time a step"
    with campaign(f"R19 soak of {total:,} steps", demanded) as row:
        life = trainings.start(
            "train",
            *test_lives.FLAGS,
            f"--total_steps={total}",
            f"--checkpoint_every={total // 40}",
            f"--eval_every={total // 20}",
            f"--workdir={path}",
        )
        seen = []
        while life.poll() is None:
            rows = workdir_lib.read_metrics(path)
            if rows:
                seen.append({"step": rows[-1]["step"], **process(life.pid)})
            time.sleep(max(0.2, total / 20_000))
        assert life.poll() == 0, life.printed()
        # What is allocated once is there by then.
        steady = [s for s in seen if 0.3 * total < s["step"] < 0.98 * total]
        # The least of each stretch: what evaluations and states need for a
        # moment is no growth.
        stretches = [
            steady[part[0] : part[-1] + 1]
            for part in np.array_split(np.arange(len(steady)), 20)
        ]
        least = {
            name: [min(s[name] for s in part) for part in stretches]
            for name in ("mb", "files", "threads")
        }
        at = [part[0]["step"] for part in stretches]
        slope, _ = np.polyfit(at, least["mb"], 1)
        pace = [
            r["images_per_second"]
            for r in workdir_lib.read_metrics(path)
            if "images_per_second" in r and r["step"] > 0.1 * total
        ]
        half = len(pace) // 2
        drift = np.median(pace[:half]) / np.median(pace[half:]) - 1
        row.seen |= {
            "mb_per_1000_steps": round(1e3 * slope, 3),
            "slower_by": round(float(drift), 3),
        }
        # Short, what is noise is not small beside what is measured.
        limit = 1 if total > 10_000 else 30
        row.check(1e3 * slope < limit, f"{1e3 * slope:.2f} MB")
        for name in ("files", "threads"):
            first, last = least[name][:10], least[name][10:]
            row.check(max(last) <= max(first), f"{name} {first} {last}")
        # What else the machine does may end meanwhile: faster is no fault.
        row.check(total < 10_000 or drift < 0.05, f"{drift:.3f}")
