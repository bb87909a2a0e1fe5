"""Two workers as a user starts them, and what becomes of one alone."""

import os
import pathlib
import re
import signal
import socket
import subprocess
import time

import numpy as np
import pytest

from bit_tf import workdir as workdir_lib
from tests import cluster_ports
from tests import programs
from tests import test_records

FLAGS = (
    "--dataset=builtin:patches",
    "--examples_per_class=4",
    "--noexport",
    "--model=R26x0.5",
    "--crop=32",
    "--batch_size=4",
    "--base_lr=0.02",
    "--mixup_alpha=0.2",
    "--weight_decay=1e-4",
    "--ema_decay=0.9",
    "--clip_norm=1",
    "--checkpoint_every=3",
)


class Workers:
    """Two processes that train in one workdir."""

    def __init__(self, workdir, *more, flags=FLAGS, other_workdir=None):
        hosts = ",".join(f"127.0.0.1:{p}" for p in cluster_ports.free(2))
        self.logs = [
            pathlib.Path(f"{workdir}.worker{index}.log") for index in range(2)
        ]
        self.processes = []
        for index, log in enumerate(self.logs):
            with open(log, "w") as output:
                self.processes.append(
                    programs.start(
                        "train",
                        *flags,
                        *more,
                        f"--workdir={(index and other_workdir) or workdir}",
                        f"--worker_hosts={hosts}",
                        f"--worker_index={index}",
                        stdout=output,
                        stderr=output,
                    )
                )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.processes:
            process.kill()
            process.wait()

    def wait(self, seconds=400):
        """Returns both exit codes."""
        end = time.monotonic() + seconds
        return [
            process.wait(max(1, end - time.monotonic()))
            for process in self.processes
        ]

    def said(self, index):
        return self.logs[index].read_text()


def weights(workdir):
    with np.load(workdir / "weights.npz") as stored:
        return {key: stored[key] for key in stored.files}


def wait_for_rows(workdir, count, processes):
    end = time.monotonic() + 300
    while time.monotonic() < end:
        if len(workdir_lib.read_metrics(workdir)) >= count:
            return
        assert all(p.poll() is None for p in processes), "ended before"
        time.sleep(0.02)
    raise AssertionError(f"no {count} rows in time")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("whole") / "run"
    with Workers(workdir, "--total_steps=30") as workers:
        codes = workers.wait()
        said = [workers.said(index) for index in range(2)]
    assert codes == [0, 0], said
    return workdir, said


@pytest.mark.slow
def test_the_chief_alone_writes_and_speaks(whole):
    workdir, said = whole
    assert (workdir / "weights.npz").exists()
    assert (workdir / "report.html").exists()
    # Which repeat the run, also on one machine.
    assert "--worker" not in (workdir / "run.flags").read_text()
    assert "2 x CPU on 2 workers, 4 images a step, 2 on each device" in said[0]
    assert "report        " in said[0]
    # Some TensorFlows speak too.
    own = [x for x in said[1].splitlines() if not re.match("[IW]0|WARN", x)]
    assert len(own) == 2, said[1]
    rows = workdir_lib.read_metrics(workdir)
    evaluated = [row for row in rows if "top1" in row]
    assert all(row["examples"] == 320 for row in evaluated)
    steps = [row["step"] for row in rows if "train_loss" in row]
    assert steps == list(range(1, 31))


def stopped(workdir, rows, victim, number, *more, delay=0.0):
    """Sends a signal to one of two workers that train.

    Args:
        rows: of the metrics, for which it waits.
        victim: index of the worker.
        number: the signal.
        delay: seconds after that.

    Returns:
        The other's exit code, its last line, and the seconds until its end.
    """
    with Workers(workdir, *more) as workers:
        while "network " not in workers.said(0):
            assert workers.processes[0].poll() is None, workers.said(0)
            time.sleep(0.1)
        wait_for_rows(workdir, rows, workers.processes)
        time.sleep(delay)
        workers.processes[victim].send_signal(number)
        since = time.monotonic()
        code = workers.processes[1 - victim].wait(60)
        took = time.monotonic() - since
        return code, workers.said(1 - victim).splitlines()[-1], took


def is_named(code, last, victim) -> bool:
    """Returns whether the other worker ended as it should."""
    return (
        code == 1
        and f"worker {victim} (127.0.0.1:" in last
        and "is gone" in last
    )


@pytest.mark.slow
def test_a_worker_that_dies_is_named_and_leaves_no_trace(whole, tmp_path):
    rng = np.random.default_rng(int(os.environ.get("BIT_TF_TEST_SEED", "0")))
    kills = int(os.environ.get("BIT_TF_TEST_KILLS", "2"))
    for rows in np.sort(rng.integers(3, 26, kills)):
        victim = int(rng.integers(2))
        code, last, took = stopped(
            *(tmp_path / "run", rows, victim, signal.SIGKILL),
            "--total_steps=30",
            delay=rng.uniform(0, 0.3),
        )
        print(f"the other ended after {took:.1f} s")
        assert is_named(code, last, victim), last
    with Workers(tmp_path / "run", "--total_steps=30") as workers:
        assert workers.wait() == [0, 0], workers.said(0)
        assert "continuing at step" in workers.said(0)
    first, second = weights(whole[0]), weights(tmp_path / "run")
    assert first.keys() == second.keys()
    for key, value in first.items():
        np.testing.assert_array_equal(value, second[key])


@pytest.mark.slow
def test_a_worker_that_hangs_is_named_within_a_minute(tmp_path):
    # The one that the others are served by.
    code, last, _ = stopped(
        tmp_path / "run", 1, 0, signal.SIGSTOP, "--total_steps=5000"
    )
    assert is_named(code, last, 0), last


@pytest.mark.slow
def test_workers_that_see_different_states_do_not_go_on(tmp_path):
    with Workers(tmp_path / "run", "--total_steps=30") as workers:
        wait_for_rows(tmp_path / "run", 8, workers.processes)
    with Workers(
        tmp_path / "run",
        "--total_steps=30",
        other_workdir=tmp_path / "empty",
    ) as workers:
        assert workers.wait(120) == [1, 1]
        for index in range(2):
            last = workers.said(index).splitlines()[-1]
            assert "do not go on from the same state" in last


@pytest.mark.slow
def test_one_worker_that_is_asked_to_end_ends_both_at_one_step(tmp_path):
    flags = ("--total_steps=5000", "--eval_every=1")
    with Workers(tmp_path / "run", *flags) as workers:
        wait_for_rows(tmp_path / "run", 1, workers.processes)
        workers.processes[1].terminate()
        assert workers.wait(60) == [143, 143]
        last = [workers.said(index).splitlines()[-1] for index in range(2)]
    assert last[0] == last[1]
    assert "which is saved; the same command continues" in last[0]
    step = last[0].split("step ")[1].split(",")[0]
    saved = sorted((tmp_path / "run" / "checkpoints").iterdir())
    assert saved[-1].name == f"step-{int(step):08d}"
    # Its evaluation would have kept whoever asked waiting.
    rows = workdir_lib.read_metrics(tmp_path / "run")
    evaluated = [row["step"] for row in rows if "top1" in row]
    assert evaluated == list(range(1, int(step)))


@pytest.mark.parametrize(
    "file_format",
    [
        pytest.param("array_record", marks=pytest.mark.thorough),
        pytest.param("tfrecord", marks=pytest.mark.slow),
    ],
)
def test_workers_read_a_set_with_several_labels(tmp_path, file_format):
    (tmp_path / "data").mkdir()
    test_records.prepare(tmp_path / "data", file_format, several=True)
    flags = [f for f in FLAGS if "dataset" not in f and "per_class" not in f]
    with Workers(
        tmp_path / "run",
        *("--dataset=numbers", f"--data_dir={tmp_path / 'data'}"),
        *("--total_steps=6", "--loss=sigmoid"),
        flags=flags,
    ) as workers:
        assert workers.wait() == [0, 0], workers.said(0)
        assert "60 images to train on, 11 to evaluate on" in workers.said(0)


@pytest.mark.slow
def test_a_worker_that_dies_after_they_met_is_named_within_a_minute(tmp_path):
    ports = cluster_ports.free(2)
    flags = (
        *FLAGS,
        f"--workdir={tmp_path / 'run'}",
        f"--worker_hosts=127.0.0.1:{ports[0]},127.0.0.1:{ports[1]}",
    )
    # In the place of the chief, to hear what a worker says to it.
    with socket.create_server(("127.0.0.1", ports[0])) as server:
        worker = programs.start("train", *flags, "--worker_index=1")
        connection, _ = server.accept()
        with connection:
            said = connection.recv(4096)
        worker.kill()
        worker.wait()
    chief = programs.start(
        "train", *flags, "--worker_index=0", stderr=subprocess.PIPE, text=True
    )
    # In the place of that worker, which goes as soon as it has met the chief.
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            with socket.create_connection(("127.0.0.1", ports[0])) as to_chief:
                to_chief.sendall(said)
                assert to_chief.recv(4096) == b"go\n"
            break
        except ConnectionRefusedError:
            time.sleep(0.2)
    try:
        error = chief.communicate(timeout=60)[1]
    finally:
        chief.kill()
    assert chief.returncode == 1
    last = error.splitlines()[-1]
    assert last.startswith(f"bit_tf.train: worker 1 (127.0.0.1:{ports[1]}) is")


def test_another_run_is_refused_before_it_begins(tmp_path):
    hosts = ",".join(f"127.0.0.1:{p}" for p in cluster_ports.free(2))
    chief = programs.start(
        "train",
        *FLAGS,
        f"--workdir={tmp_path / 'run'}",
        f"--worker_hosts={hosts}",
        "--worker_index=0",
    )
    try:
        done = programs.run(
            "train",
            *FLAGS,
            # Decides when they wait for each other.
            "--eval_every=7",
            f"--workdir={tmp_path / 'run'}",
            f"--worker_hosts={hosts}",
            "--worker_index=1",
        )
        assert done.returncode == 1
        assert "worker 1" in done.stderr and "not given the run" in done.stderr
        assert chief.wait(60) == 1
    finally:
        chief.kill()
