r"""Prints which operations a call of a TensorFlow contender spends its time in.

python experiments/speed/hotspots.py keras_naive train:8:128

Milliseconds of a call, summed over the operations of a kind and over threads:
means of CALLS calls. See compare.py for names and work.
"""

import collections
import pathlib
import sys
import tempfile

import compare
import contender
import tensorflow as tf
from tensorflow.tsl.profiler.protobuf import xplane_pb2

CALLS = 5
SHOWN = 16
# A loop that XLA compiled is no operation of TensorFlow's.
LOOP = "CpuExecutable::ExecuteAsyncOnStream"


def main(name: str, work: str) -> None:
    with tempfile.TemporaryDirectory() as directory:
        directory = pathlib.Path(directory)
        compare.prepare(directory)
        compare.draw(directory, work)
        _, once = contender.CONTENDERS[name](contender.Work(work, directory))
        for _ in range(2):
            once()
        tf.profiler.experimental.start(str(directory / "profile"))
        for _ in range(CALLS):
            once()
        tf.profiler.experimental.stop()
        (file,) = (directory / "profile").rglob("*.xplane.pb")
        space = xplane_pb2.XSpace.FromString(file.read_bytes())
    spent, count = collections.Counter(), collections.Counter()
    for plane in space.planes:
        names = {key: event.name for key, event in plane.event_metadata.items()}
        for line in plane.lines if "CPU" in plane.name else ():
            for event in line.events:
                if kind := kind_of(names[event.metadata_id]):
                    spent[kind] += event.duration_ps / 1e9 / CALLS
                    count[kind] += 1 / CALLS
    print(f"{name}, {work}: {spent.total():.0f} ms in operations")
    for kind, milliseconds in spent.most_common(SHOWN):
        print(f"{milliseconds:8.1f} ms {count[kind]:6.0f}  {kind}")


def kind_of(event: str) -> str | None:
    """Returns the kind of operation, None for what is none."""
    if event == LOOP:
        return "loops compiled by XLA"
    # "name in the graph:kind"
    label, colon, kind = event.partition(":")
    is_operation = colon and kind.isidentifier() and "$" not in label
    return kind if is_operation else None


if __name__ == "__main__":
    main(*sys.argv[1:])
