"""Who the workers of a run are, and that they meet before they compute."""

import concurrent.futures
import json
import socket
import subprocess
import sys
import time

import pytest

from bit_tf import cluster
from bit_tf import rendezvous
from tests import cluster_ports
from tests import programs

HOSTS = ("a:1", "b:2", "c:3")


def test_without_a_word_of_others_there_is_no_cluster():
    for environment in (
        {},
        {"TF_CONFIG": ""},
        {"TF_CONFIG": '{"cluster": {"worker": ["a:1"]}}'},
        {"SLURM_STEP_NUM_TASKS": "1", "SLURM_JOB_ID": "7"},
    ):
        assert cluster.resolve(environment) is None


def test_flags_come_before_the_environment():
    config = json.dumps({"cluster": {"worker": ["x:1", "y:1"]}})
    found = cluster.resolve(
        {"TF_CONFIG": config}, worker_hosts=HOSTS, worker_index=2
    )
    assert found == cluster.Cluster(HOSTS, 2)
    assert not found.is_chief
    for kwargs in ({"worker_hosts": HOSTS}, {"worker_index": 0}):
        with pytest.raises(ValueError, match="belong together"):
            cluster.resolve({}, **kwargs)
    with pytest.raises(ValueError, match="no workers: give --worker_hosts"):
        cluster.resolve({}, worker_hosts=(), worker_index=0)


@pytest.mark.parametrize(
    ("config", "index"),
    [
        ({"cluster": {"worker": HOSTS}, "task": {"index": 1}}, 1),
        (
            {
                "cluster": {"chief": HOSTS[:1], "worker": HOSTS[1:]},
                "task": {"type": "chief", "index": 0},
            },
            0,
        ),
        (
            {
                "cluster": {"chief": HOSTS[:1], "worker": HOSTS[1:]},
                "task": {"type": "worker", "index": 1},
            },
            2,
        ),
    ],
)
def test_tf_config_is_read(config, index):
    found = cluster.resolve({"TF_CONFIG": json.dumps(config)})
    assert found == cluster.Cluster(HOSTS, index)


@pytest.mark.parametrize(
    ("config", "wanted"),
    [
        ("{", "cannot be read"),
        ("[1]", "cannot be read"),
        ('{"cluster": {"ps": ["a:1"], "worker": ["b:1", "c:1"]}}', "'ps'"),
        ('{"cluster": {"worker": ["a", "b:1"]}}', "'a'.*host:port"),
        ('{"cluster": {"worker": ["a:1", "a:1"]}}', "twice"),
        (
            '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"index": 2}}',
            "0 to 1",
        ),
    ],
)
def test_a_wrong_tf_config_is_explained(config, wanted):
    with pytest.raises(ValueError, match=wanted):
        cluster.resolve({"TF_CONFIG": config})


@pytest.mark.parametrize(
    ("text", "nodes"),
    [
        ("one", ["one"]),
        ("one,two", ["one", "two"]),
        ("gpu[01-03,07],login", ["gpu01", "gpu02", "gpu03", "gpu07", "login"]),
        ("n[9-11]-ib", ["n9-ib", "n10-ib", "n11-ib"]),
    ],
)
def test_nodes_of_slurm_are_expanded(text, nodes):
    assert cluster.expand_nodes(text) == nodes


def test_every_task_of_a_slurm_step_is_a_worker():
    environment = {
        "SLURM_STEP_NUM_TASKS": "5",
        "SLURM_STEP_NODELIST": "n[1-3]",
        "SLURM_STEP_TASKS_PER_NODE": "2(x2),1",
        "SLURM_PROCID": "3",
        "SLURM_JOB_ID": "40007",
    }
    found = cluster.resolve(environment)
    port = 20_000 + 40_007 % 20_000
    assert found == cluster.Cluster(
        (
            f"n1:{port}",
            f"n1:{port + 1}",
            f"n2:{port}",
            f"n2:{port + 1}",
            f"n3:{port}",
        ),
        3,
    )
    for key in ("SLURM_PROCID", "SLURM_STEP_NODELIST"):
        broken = {k: v for k, v in environment.items() if k != key}
        with pytest.raises(ValueError, match="srun"):
            cluster.resolve(broken)


def test_who_is_gone_is_named():
    ports = cluster_ports.free(3)
    workers = tuple(f"127.0.0.1:{port}" for port in ports)
    mine = cluster.Cluster(workers, 1)
    with socket.create_server(("127.0.0.1", ports[0])):
        assert mine.gone("") == f"worker 2 ({workers[2]})"
        with socket.create_server(("127.0.0.1", ports[2])):
            # A process that hangs still answers; TensorFlow says who it was.
            text = "reported from /job:worker/task:1: task /job:worker/task:2"
            assert mine.gone(text) == f"worker 2 ({workers[2]})"
            text = "Deadline Exceeded RPC: /tensorflow.CoordinationService/X"
            assert mine.gone(text) == f"worker 0 ({workers[0]})"
            assert mine.gone("of something else") == ""


def meet_all(indices, *, runs=("r", "r", "r"), seconds=10.0, delays=(0, 0, 0)):
    """Returns what each of three workers came to, an error or None."""
    workers = tuple(f"127.0.0.1:{port}" for port in cluster_ports.free(3))

    def one(index):
        time.sleep(delays[index])
        try:
            rendezvous.meet(
                cluster.Cluster(workers, index),
                run=runs[index],
                seconds=seconds,
                log=lambda text: None,
            )
        except ValueError as error:
            return str(error).replace("127.0.0.1:", "")
        return None

    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        return list(pool.map(one, indices))


@pytest.mark.parametrize("delays", [(0, 0, 0), (1, 0, 0), (0, 1, 0.5)])
def test_all_meet_whoever_comes_first(delays):
    assert meet_all([0, 1, 2], delays=delays) == [None] * 3


def test_who_did_not_come_is_named_to_all_who_came():
    for who, missing in (([0, 1], "worker 2"), ([1, 2], "worker 0")):
        for said in meet_all(who, seconds=1.5):
            assert said.startswith(missing) and "did not come" in said


def test_who_was_given_another_run_is_named_to_all():
    for said in meet_all([0, 1, 2], runs=("r", "r", "other")):
        assert said.startswith("worker 2") and "not given the run" in said


def test_whom_it_waits_for_is_said(monkeypatch):
    monkeypatch.setattr(rendezvous, "SAY_EVERY_SECONDS", 0.1)
    lines = []
    workers = tuple(f"127.0.0.1:{port}" for port in cluster_ports.free(2))
    with pytest.raises(ValueError):
        rendezvous.meet(
            cluster.Cluster(workers, 0),
            run="r",
            seconds=1.2,
            log=lines.append,
        )
    assert lines and lines[0] == f"waiting for worker 1 ({workers[1]})"


def test_a_stranger_on_the_port_does_not_disturb():
    ports = cluster_ports.free(2)
    workers = tuple(f"127.0.0.1:{port}" for port in ports)

    def stranger():
        time.sleep(0.3)
        with socket.create_connection(("127.0.0.1", ports[0])) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
        time.sleep(0.3)

    def worker(index):
        rendezvous.meet(
            cluster.Cluster(workers, index), run="r", seconds=10, log=print
        )

    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        chief = pool.submit(worker, 0)
        stranger()
        pool.submit(worker, 1).result()
        chief.result()


JOINING = """
import sys, time
from bit_tf import cluster, rendezvous
workers = tuple(sys.argv[1].split(","))
rendezvous._LAST_WORD_SECONDS = 1.0
with rendezvous.joining(
    cluster.Cluster(workers, 0), name="me", seconds=float(sys.argv[2])
):
    time.sleep(float(sys.argv[3]))
print("joined")
"""


def join(workers, *seconds):
    return subprocess.run(
        [sys.executable, "-c", JOINING, ",".join(workers), *map(str, seconds)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=programs.ROOT,
    )


def test_joining_does_not_wait_for_ever_and_says_for_whom():
    with socket.create_server(("127.0.0.1", 0)) as there:
        gone = cluster_ports.free(1)[0]
        workers = [
            f"127.0.0.1:{port}" for port in (1, there.getsockname()[1], gone)
        ]
        done = join(workers, 1, 600)
    assert done.returncode == 1 and not done.stdout
    assert done.stderr == (
        f"me: worker 2 (127.0.0.1:{gone}) is gone. Start all workers again "
        "with the same flags: they continue from the newest saved state.\n"
    )


def test_joining_in_time_says_nothing():
    done = join(["127.0.0.1:1", "127.0.0.1:2"], 30, 0)
    assert (done.returncode, done.stdout, done.stderr) == (0, "joined\n", "")
