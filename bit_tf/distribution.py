"""Which devices compute: names -> tf.distribute strategies."""

from collections.abc import Sequence

import tensorflow as tf

STRATEGIES = ("auto", "one_device", "mirrored")


def build(
    name: str = "auto", devices: Sequence[str] | None = None
) -> tf.distribute.Strategy:
    """Returns the strategy of that name.

    Args:
        name: "one_device" is the first GPU or else the CPU; "mirrored" is all
            GPUs or else all logical CPUs of this machine; "auto" is mirrored
            where there are several GPUs and one device elsewhere.
        devices: logical device names such as "CPU:0", instead of those.

    Raises:
        ValueError: unknown name.
    """
    if name not in STRATEGIES:
        raise ValueError(
            f"unknown strategy {name!r}: allowed are {', '.join(STRATEGIES)}."
        )
    gpus = [d.name for d in tf.config.list_logical_devices("GPU")]
    cpus = [d.name for d in tf.config.list_logical_devices("CPU")]
    devices = list(devices or gpus or cpus)
    if name == "mirrored" or (name == "auto" and len(gpus) > 1):
        # On CPUs the default numbers its collectives per strategy, and two
        # strategies of one process mix them up.
        reduction = None if gpus else tf.distribute.ReductionToOneDevice()
        return tf.distribute.MirroredStrategy(devices, reduction)
    return tf.distribute.OneDeviceStrategy(devices[0])


def describe(strategy: tf.distribute.Strategy) -> str:
    """Returns e.g. "one device (CPU)" or "2 x GPU, mirrored"."""
    kinds = {
        device.split("device:")[-1].split(":")[0]
        for device in strategy.extended.worker_devices
    }
    kind = "/".join(sorted(kinds))
    replicas = strategy.num_replicas_in_sync
    if replicas == 1:
        return f"one device ({kind})"
    return f"{replicas} x {kind}, mirrored"


def has_accelerator(strategy: tf.distribute.Strategy) -> bool:
    """Returns whether any replica computes on something else than a CPU."""
    return any("CPU" not in d for d in strategy.extended.worker_devices)


def distribute(
    strategy: tf.distribute.Strategy, batches: tf.data.Dataset
) -> tf.distribute.DistributedDataset:
    """Splits every global batch evenly over the replicas.

    Raises:
        ValueError: the batch is not a multiple of the replica count.
    """
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = (
        tf.data.experimental.AutoShardPolicy.OFF
    )
    return strategy.experimental_distribute_dataset(
        batches.with_options(options)
    )


def check_batch_size(strategy: tf.distribute.Strategy, batch_size: int) -> None:
    """Raises ValueError unless the replicas divide the global batch."""
    replicas = strategy.num_replicas_in_sync
    if batch_size % replicas:
        raise ValueError(
            f"batch_size={batch_size} does not divide among {replicas} "
            f"devices: allowed are multiples of {replicas}."
        )
