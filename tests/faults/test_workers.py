"""Of two workers one is killed or hangs: the other says so, nothing is lost."""

import signal

import numpy as np
import pytest

from tests import test_workers


@pytest.mark.campaign
def test_a_worker_that_is_gone_is_named(campaign, count, rng, tmp_path):
    runs, kills = count((1, 2), (4, 5))
    with test_workers.Workers(tmp_path / "whole", "--total_steps=30") as pair:
        assert pair.wait() == [0, 0], pair.said(0)
    wanted = test_workers.weights(tmp_path / "whole")
    demanded = "the other ends within 60 s and names it; then bit-equal"
    with campaign("R12 one of two workers killed", demanded) as row:
        row.seen["slowest_s"] = 0.0
        for number in range(runs):
            path = tmp_path / str(number)
            for rows in np.sort(rng.integers(3, 26, kills)):
                victim = int(rng.integers(2))
                code, last, took = test_workers.stopped(
                    *(path, rows, victim, signal.SIGKILL, "--total_steps=30"),
                    delay=rng.uniform(0, 0.3),
                )
                row.seen["slowest_s"] = max(
                    row.seen["slowest_s"], round(took, 1)
                )
                row.check(test_workers.is_named(code, last, victim), last)
            with test_workers.Workers(path, "--total_steps=30") as pair:
                codes = pair.wait()
                said = pair.said(0)
            row.check(
                codes == [0, 0]
                and is_equal(test_workers.weights(path), wanted),
                said[-2000:],
            )
            row.faults -= 1


@pytest.mark.campaign
def test_a_worker_that_hangs_is_named(campaign, count, tmp_path):
    demanded = "the other ends within 60 s and names it"
    with campaign("R12 one of two workers hangs", demanded) as row:
        row.seen["slowest_s"] = 0.0
        for number in range(count(1, 5)):
            victim = number % 2
            code, last, took = test_workers.stopped(
                *(tmp_path / str(number), 1, victim, signal.SIGSTOP),
                "--total_steps=5000",
            )
            row.seen["slowest_s"] = max(row.seen["slowest_s"], round(took, 1))
            row.check(test_workers.is_named(code, last, victim), last)


def is_equal(found, wanted) -> bool:
    return found.keys() == wanted.keys() and all(
        np.array_equal(found[key], value) for key, value in wanted.items()
    )
