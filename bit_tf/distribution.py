"""Which devices compute: names -> tf.distribute strategies."""

from collections.abc import Callable
from collections.abc import Sequence

import tensorflow as tf

from bit_tf import cluster as cluster_lib

STRATEGIES = ("auto", "one_device", "mirrored", "multi_worker", "tpu")


def build(
    name: str = "auto",
    devices: Sequence[str] | None = None,
    *,
    cluster: cluster_lib.Cluster | None = None,
    tpu: str | None = None,
) -> tf.distribute.Strategy:
    """Returns the strategy of that name.

    Args:
        name: "one_device" is the first GPU or else the CPU; "mirrored" is all
            GPUs or else all logical CPUs of this machine; "multi_worker" is
            that of every worker of a cluster; "tpu" is all cores of a TPU;
            "auto" is what is there of a TPU's name, a cluster, several GPUs,
            and otherwise one device.
        devices: logical device names such as "CPU:0", instead of those of
            this machine.
        cluster: for "multi_worker". Has to be joined before TensorFlow
            computes anything.
        tpu: for "tpu": its name, or "local" for the one of this machine.

    Raises:
        ValueError: unknown name, or nothing there of that kind.
    """
    if name not in STRATEGIES:
        raise ValueError(
            f"unknown strategy {name!r}: allowed are {', '.join(STRATEGIES)}."
        )
    if name == "auto" and (tpu or cluster):
        name = "tpu" if tpu else "multi_worker"
    for wanted, given, flags in (
        ("tpu", tpu, "--tpu=NAME, or --tpu=local"),
        (
            "multi_worker",
            cluster,
            "--worker_hosts and --worker_index, TF_CONFIG, or srun",
        ),
    ):
        if name == wanted and not given:
            raise ValueError(f"strategy {name} needs {flags}.")
        if given and name != wanted:
            raise ValueError(
                f"strategy {name} is not for {wanted}: drop --strategy, or "
                f"{flags}."
            )
    if name == "tpu":
        return _tpu(tpu)
    if name == "multi_worker":
        return _multi_worker(cluster)
    gpus = [d.name for d in tf.config.list_logical_devices("GPU")]
    cpus = [d.name for d in tf.config.list_logical_devices("CPU")]
    devices = list(devices or gpus or cpus)
    if name == "mirrored" or (name == "auto" and len(gpus) > 1):
        # On CPUs the default numbers its collectives per strategy, and two
        # strategies of one process mix them up.
        reduction = None if gpus else tf.distribute.ReductionToOneDevice()
        return tf.distribute.MirroredStrategy(devices, reduction)
    return tf.distribute.OneDeviceStrategy(devices[0])


def _multi_worker(cluster: cluster_lib.Cluster) -> tf.distribute.Strategy:
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec({"worker": list(cluster.workers)}),
        task_type="worker",
        task_id=cluster.index,
        rpc_layer="grpc",
    )
    return tf.distribute.MultiWorkerMirroredStrategy(cluster_resolver=resolver)


def _tpu(name: str) -> tf.distribute.Strategy:
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=name)
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
    except (ValueError, KeyError, OSError, tf.errors.OpError) as error:
        text = " ".join(str(error).split())[:200]
        raise ValueError(
            f"there is no TPU {name!r} that can be used ({text}): on a TPU VM "
            "install '.[tpu]' and give --tpu=local; elsewhere give the TPU's "
            "name."
        ) from error
    return tf.distribute.TPUStrategy(resolver)


def describe(strategy: tf.distribute.Strategy) -> str:
    """Returns e.g. "one device (CPU)" or "2 x GPU, mirrored"."""
    kinds = {
        device.split("device:")[-1].split(":")[0]
        for device in strategy.extended.worker_devices
    }
    kind = "/".join(sorted(kinds))
    replicas = strategy.num_replicas_in_sync
    hosts = num_hosts(strategy)
    if replicas == 1:
        return f"one device ({kind})"
    if hosts > 1:
        return f"{replicas} x {kind} on {hosts} workers"
    return f"{replicas} x {kind}, mirrored"


def num_hosts(strategy: tf.distribute.Strategy) -> int:
    """Returns how many hosts feed the strategy's devices."""
    resolver = strategy.cluster_resolver
    if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return len(resolver.cluster_spec().job_tasks("worker"))
    return strategy.extended.num_hosts if is_tpu(strategy) else 1


def is_tpu(strategy: tf.distribute.Strategy) -> bool:
    return isinstance(strategy, tf.distribute.TPUStrategy)


def has_accelerator(strategy: tf.distribute.Strategy) -> bool:
    """Returns whether any replica computes on something else than a CPU."""
    return any("CPU" not in d for d in strategy.extended.worker_devices)


def distribute(
    strategy: tf.distribute.Strategy,
    batches: Callable[[int, int], tf.data.Dataset],
) -> tf.data.Dataset | tf.distribute.DistributedDataset:
    """Lets every host prepare its part of each global batch.

    On one CPU the batches are what is computed with: TensorFlow's iterators of
    devices are tuned while they are read, see `mapping.untuned`.

    Args:
        strategy: whose replicas the batches are for.
        batches: (index of a host, number of hosts) -> its parts of all
            batches, in elements that the host's replicas divide.
    """
    is_one_device = isinstance(strategy, tf.distribute.OneDeviceStrategy)
    if is_one_device and not has_accelerator(strategy):
        return batches(0, 1)

    def of_host(context: tf.distribute.InputContext) -> tf.data.Dataset:
        hosts = context.num_input_pipelines
        replicas = context.num_replicas_in_sync // hosts
        dataset = batches(context.input_pipeline_id, hosts)
        if replicas == 1:
            return dataset
        size = tf.nest.flatten(dataset.element_spec)[0].shape[0]
        return dataset.rebatch(size // replicas, drop_remainder=True)

    return strategy.distribute_datasets_from_function(of_host)


def barrier(strategy: tf.distribute.Strategy) -> None:
    """Returns when all workers have come here."""

    @tf.function
    def count():
        return strategy.reduce("SUM", strategy.run(lambda: tf.ones(())), None)

    if num_hosts(strategy) > 1:
        count().numpy()


def agree(strategy: tf.distribute.Strategy, numbers: Sequence[int]) -> bool:
    """Returns whether all workers have given the same; all return alike.

    Args:
        strategy: whose workers call this together.
        numbers: whole, below 2**24 or so: their squares are summed exactly.
    """

    @tf.function
    def sums(values):
        both = tf.stack([values, values**2])
        return strategy.reduce("SUM", strategy.run(lambda: both), None)

    total, squares = sums(tf.constant(numbers, tf.float64)).numpy()
    # Equal only if nobody is off the mean.
    return bool((strategy.num_replicas_in_sync * squares == total**2).all())


def check_batch_size(strategy: tf.distribute.Strategy, batch_size: int) -> None:
    """Raises ValueError unless the replicas divide the global batch."""
    replicas = strategy.num_replicas_in_sync
    if batch_size % replicas:
        raise ValueError(
            f"batch_size={batch_size} does not divide among {replicas} "
            f"devices: allowed are multiples of {replicas}."
        )
