"""The workers of a run on several machines: who they are, who is missing."""

import dataclasses
import json
import re
import socket
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence

CONNECT_SECONDS = 2.0
# Of a job's number, so that two jobs of one machine do not meet.
SLURM_FIRST_PORT, SLURM_PORTS = 20_000, 20_000


@dataclasses.dataclass(frozen=True)
class Cluster:
    """All workers of a run, and which of them this process is.

    Args:
        workers: "host:port" of each; the first is the chief, who writes.
        index: of this one.

    Raises:
        ValueError: there are none, an address is not one or is there twice,
            or the index is not of one of them.
    """

    workers: tuple[str, ...]
    index: int

    def __post_init__(self):
        if not self.workers:
            raise ValueError(
                "no workers: give --worker_hosts host:port of each, the chief "
                "first."
            )
        for address in self.workers:
            if not re.fullmatch(r"[^\s:,]+:\d{1,5}", address):
                raise ValueError(
                    f"worker {address!r}: allowed is host:port of each, as in "
                    "--worker_hosts=host1:2222,host2:2222."
                )
        doubles = {a for a in self.workers if self.workers.count(a) > 1}
        if doubles:
            raise ValueError(
                f"worker {min(doubles)} is there twice: every worker needs an "
                "address of its own."
            )
        if not 0 <= self.index < len(self.workers):
            raise ValueError(
                f"worker index {self.index}: allowed is 0 to "
                f"{len(self.workers) - 1}, there are {len(self.workers)} "
                "workers."
            )

    @property
    def is_chief(self) -> bool:
        return self.index == 0

    def named(self, indices: Iterable[int]) -> str:
        """Returns e.g. "worker 1 (host:port), worker 3 (host:port)"."""
        return ", ".join(
            f"worker {i} ({self.workers[i]})" for i in sorted(set(indices))
        )

    def silent(self) -> list[int]:
        """Returns the indices of the others that nobody answers for."""
        return [
            index
            for index, address in enumerate(self.workers)
            if index != self.index and not _answers(address)
        ]

    def gone(self, error: str) -> str:
        """Returns the workers whose end an error of TensorFlow's is about.

        Those that nobody answers for; otherwise those that the text names, as
        a process that hangs still answers.

        Args:
            error: the text.

        Returns:
            See `named`; "" if it is about nobody's end.
        """
        silent = self.silent()
        if silent:
            return self.named(silent)
        named = {
            int(number)
            for number in re.findall(
                r"/job:worker/(?:replica:\d+/)?task:(\d+)", error
            )
        } - {self.index}
        if not named and "CoordinationService" in error:
            # Which the chief runs.
            named = {0} - {self.index}
        return self.named(named & set(range(len(self.workers))))


def farewell(gone: str) -> str:
    """Returns what the others say when workers are gone.

    Args:
        gone: see `Cluster.named`.
    """
    return (
        f"{gone} is gone. Start all workers again with the same flags: they "
        "continue from the newest saved state."
    )


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), CONNECT_SECONDS):
            return True
    except OSError:
        return False


def resolve(
    environment: Mapping[str, str],
    *,
    worker_hosts: Sequence[str] | None = None,
    worker_index: int | None = None,
) -> Cluster | None:
    """Finds the workers: given explicitly, in TF_CONFIG, or of a SLURM step.

    Args:
        environment: the process's.
        worker_hosts: "host:port" of each, chief first.
        worker_index: which of them this process is.

    Returns:
        None where nothing speaks of more than one worker.

    Raises:
        ValueError: one of the two arguments without the other, or an
            environment that cannot be read.
    """
    if (worker_hosts is None) != (worker_index is None):
        raise ValueError(
            "--worker_hosts and --worker_index belong together: all workers, "
            "and which of them this is."
        )
    if worker_hosts is not None:
        return Cluster(tuple(worker_hosts), worker_index)
    if environment.get("TF_CONFIG"):
        return _of_tf_config(environment["TF_CONFIG"])
    if int(environment.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
        return _of_slurm(environment)
    return None


def _of_tf_config(text: str) -> Cluster | None:
    """Reads {"cluster": {"worker": [...]}, "task": {"type", "index"}}."""
    try:
        config = json.loads(text)
        jobs = {job: list(at) for job, at in config.get("cluster", {}).items()}
        task = config.get("task", {})
        kind, index = task.get("type", "worker"), int(task.get("index", 0))
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"TF_CONFIG cannot be read: {error}.") from error
    # What older tools call the first worker.
    jobs["worker"] = jobs.pop("chief", []) + jobs.get("worker", [])
    if kind == "worker" and "chief" in config.get("cluster", {}):
        index += len(config["cluster"]["chief"])
    strangers = sorted((set(jobs) | {kind}) - {"worker", "chief"})
    if strangers:
        raise ValueError(
            f"TF_CONFIG has a job {strangers[0]!r}: allowed are workers, and a "
            "chief among them."
        )
    if len(jobs["worker"]) < 2:
        return None
    return Cluster(tuple(jobs["worker"]), index)


def _of_slurm(environment: Mapping[str, str]) -> Cluster:
    """Reads what srun says to each of its tasks, one worker a task."""
    try:
        nodes = expand_nodes(environment["SLURM_STEP_NODELIST"])
        tasks = [
            count
            for word in environment["SLURM_STEP_TASKS_PER_NODE"].split(",")
            for count in _repeated(word)
        ]
        index = int(environment["SLURM_PROCID"])
        job = int(environment["SLURM_JOB_ID"])
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"the SLURM environment cannot be read ({error}): start the "
            "workers with srun, or give --worker_hosts and --worker_index."
        ) from error
    port = SLURM_FIRST_PORT + job % SLURM_PORTS
    return Cluster(
        tuple(
            f"{node}:{port + local}"
            for node, count in zip(nodes, tasks, strict=True)
            for local in range(count)
        ),
        index,
    )


def _repeated(word: str) -> list[int]:
    """Reads "4(x3)" as 4, 4, 4."""
    match = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", word)
    if not match:
        raise ValueError(f"tasks per node {word!r}")
    return [int(match[1])] * int(match[2] or 1)


def expand_nodes(text: str) -> list[str]:
    """Reads SLURM's "gpu[01-03,07],login" as the names of the nodes.

    Raises:
        ValueError: it is not such a list.
    """
    nodes: list[str] = []
    # Commas within brackets belong to a word.
    for word in re.findall(r"(?:[^,\[\]]|\[[^\]]*\])+", text):
        match = re.fullmatch(r"([^\[\]]*)(?:\[([\d,-]+)\])?([^\[\]]*)", word)
        if not match:
            raise ValueError(f"node list {text!r}")
        if match[2] is None:
            nodes.append(word)
            continue
        for piece in match[2].split(","):
            first, _, last = piece.partition("-")
            nodes += [
                f"{match[1]}{number:0{len(first)}d}{match[3]}"
                for number in range(int(first), int(last or first) + 1)
            ]
    if not nodes:
        raise ValueError(f"node list {text!r}")
    return nodes
