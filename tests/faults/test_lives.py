"""A run that is killed, stopped or cut off in a save ends as if it had not."""

import json
import signal
import time

import numpy as np
import pytest

from bit_tf import workdir as workdir_lib

FLAGS = (
    "--dataset=builtin:patches",
    "--examples_per_class=4",
    "--model=R26x0.5",
    "--crop=32",
    "--batch_size=4",
    "--base_lr=0.02",
    "--total_steps=60",
    "--eval_every=60",
    "--checkpoint_every=3",
    "--noexport",
)


def weights(path):
    return workdir_lib.sha256(path / "weights.npz")


def rows(path):
    """Returns the metrics without what a clock says."""
    return [
        {
            key: value
            for key, value in row.items()
            if key not in ("images_per_second", "input_share")
        }
        for row in workdir_lib.read_metrics(path)
    ]


@pytest.fixture(scope="module")
def whole(trainings, tmp_path_factory):
    """The weights and rows of a run that nothing happens to."""
    path = tmp_path_factory.mktemp("whole") / "run"
    life = trainings.run("train", *FLAGS, f"--workdir={path}")
    assert life.poll() == 0, life.printed()
    return weights(path), rows(path)


def ended_as(whole, path, life) -> bool:
    return life.poll() == 0 and (weights(path), rows(path)) == whole


def wait_for_rows(path, life, number) -> None:
    end = time.monotonic() + 120
    while time.monotonic() < end and life.poll() is None:
        if len(workdir_lib.read_metrics(path)) >= number:
            return
        time.sleep(0.01)


@pytest.mark.slow
def test_kill_9_leaves_no_trace(
    campaign, trainings, whole, count, rng, tmp_path
):
    runs, kills = count((1, 1), (20, 10))
    demanded = "weights and metrics bit-equal, by the same command alone"
    # Two thirds of a life are spent in saves.
    slow = ["slow_disk", 0.03]
    with campaign("R1 kill -9 at random instants", demanded) as row:
        row.seen["in_a_save"] = 0
        for number in range(runs):
            path = tmp_path / str(number)
            flags = (*FLAGS, f"--workdir={path}")
            for _ in range(kills):
                life = trainings.start("train", *flags, sabotage=slow)
                # Not before it has begun: that leaves nothing to lose.
                before = len(workdir_lib.read_metrics(path))
                wait_for_rows(path, life, before + 1)
                time.sleep(rng.uniform(0, 1.0))
                if life.poll() is None:
                    life.signal(signal.SIGKILL)
                    life.wait()
                    saving = list(path.glob("checkpoints/.step-*.tmp"))
                    row.seen["in_a_save"] += bool(saving)
                    row.check(True)
            life = trainings.run("train", *flags)
            row.check(ended_as(whole, path, life), life.printed()[-2000:])
            row.faults -= 1


@pytest.mark.campaign
def test_a_save_that_is_cut_off_is_no_save(
    campaign, trainings, whole, count, tmp_path
):
    demanded = "the state before or this one; then weights bit-equal"
    with campaign("R2 end at each step of a save", demanded) as row:
        for save in count((2,), (1, 3, 6)):
            report = tmp_path / f"steps{save}"
            path = tmp_path / f"{save}"
            life = trainings.run(
                *("train", *FLAGS, f"--workdir={path}"),
                sabotage=["dies_at", 0, save, str(report)],
            )
            assert life.poll() == 0, life.printed()
            steps = int(report.read_text())
            row.seen["steps_of_a_save"] = steps
            chosen = np.linspace(1, steps, count(3, min(steps, 14)))
            for point in np.unique(np.rint(chosen).astype(int)):
                path = tmp_path / f"{save}-{point}"
                flags = (*FLAGS, f"--workdir={path}")
                died = trainings.run(
                    *("train", *flags),
                    sabotage=["dies_at", int(point), save, str(report)],
                )
                assert died.poll() == 1, died.printed()
                states = [
                    json.loads((state / "state.json").read_text())["step"]
                    for state in path.glob("checkpoints/step-*")
                    if workdir_lib.verify_directory(state)
                ]
                held = max(states, default=0) in (3 * save - 3, 3 * save)
                life = trainings.run("train", *flags)
                row.check(
                    held and ended_as(whole, path, life),
                    f"save {save}, step {point}: {states}",
                )


@pytest.mark.campaign
def test_asked_to_end_it_loses_no_step(
    campaign, trainings, whole, count, rng, tmp_path
):
    demanded = "exit 143 within 5 s, its last step saved; then bit-equal"
    with campaign("R3 SIGTERM", demanded) as row:
        row.seen["slowest_s"] = 0.0
        for number in range(count(1, 10)):
            path = tmp_path / str(number)
            flags = (*FLAGS, f"--workdir={path}")
            for part in range(count(2, 4)):
                life = trainings.start("train", *flags)
                wait_for_rows(path, life, 1 + 12 * part)
                time.sleep(rng.uniform(0, 0.5))
                if life.poll() is not None:
                    continue
                began = time.monotonic()
                life.signal(signal.SIGTERM)
                code = life.wait()
                seconds = time.monotonic() - began
                row.seen["slowest_s"] = max(
                    row.seen["slowest_s"], round(seconds, 2)
                )
                if code == 0:
                    # It had made its last step.
                    continue
                last = max(r["step"] for r in workdir_lib.read_metrics(path))
                state = max(path.glob("checkpoints/step-*"))
                row.check(
                    code == 143
                    and seconds < 5
                    and int(state.name.removeprefix("step-")) == last,
                    f"{code} after {seconds:.1f} s, {state.name}, row {last}",
                )
            life = trainings.run("train", *flags)
            row.check(ended_as(whole, path, life), life.printed()[-2000:])
            row.faults -= 1


@pytest.mark.campaign
def test_a_second_run_on_one_workdir_is_refused(
    campaign, trainings, whole, count, tmp_path
):
    demanded = "the second is refused in one line; the first bit-equal"
    with campaign("R13 two runs on one workdir", demanded) as row:
        wanted = count(2, 20)
        while row.faults < wanted:
            path = tmp_path / str(row.faults)
            flags = (*FLAGS, f"--workdir={path}")
            first = trainings.start("train", *flags)
            wait_for_rows(path, first, 1)
            before = row.faults
            while row.faults < wanted:
                second = trainings.run("train", *flags)
                if first.poll() is not None:
                    break
                line = second.printed().splitlines()[-1]
                row.check(
                    second.poll() == 1 and "in use by another process" in line,
                    line,
                )
            first.wait()
            row.check(ended_as(whole, path, first), first.printed()[-2000:])
            row.faults -= 1
            assert row.faults > before, "the first ended before a second began"
