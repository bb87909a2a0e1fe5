"""A loaded network takes its own room, and one tensor's on the way."""

import json
import math
import subprocess
import sys

import numpy as np
import pytest

from bit_tf import architecture
from bit_tf import layout
from bit_tf import npz_file

LOAD = """
import json, pathlib, sys
import keras
from bit_tf import resnet_v2, weights

def megabytes(field):
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024

path, name, classes = sys.argv[1:]
# What everything needs that is loaded only once, TensorFlow above all.
weights.save(path + ".small.npz", resnet_v2.build("R26x0.5", 2))
weights.load(path + ".small.npz", resnet_v2.build("R26x0.5", 2))
before = megabytes("VmRSS")
model = resnet_v2.build(name, int(classes), seed=None)
weights.load(path, model)
peak = megabytes("VmHWM")
last = [float(v.value.numpy().flat[-1]) for v in model.variables]
print(json.dumps({"before": before, "peak": peak, "last": last}))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
@pytest.mark.parametrize(
    "name", ["R50x1", pytest.param("R152x4", marks=pytest.mark.slow)]
)
def test_one_tensor_at_a_time_is_in_memory(name, tmp_path):
    classes = 21843
    shapes = layout.shapes(*architecture.parse_name(name), classes)
    values = {key: np.float32(1 / i) for i, key in enumerate(shapes, start=1)}
    path = tmp_path / "weights.npz"
    npz_file.write(path, shapes, lambda key: np.full(shapes[key], values[key]))
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(path), name, str(classes)],
        capture_output=True,
        text=True,
    )
    path.unlink()
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["last"] == [float(v) for v in values.values()]
    largest = 4 * max(map(math.prod, shapes.values())) / 2**20
    whole = 4 * layout.parameters(shapes) / 2**20
    above = found["peak"] - found["before"]
    print(
        f"{name}: {whole:,.0f} MiB of weights, the largest tensor "
        f"{largest:,.0f}; building and loading took {above:,.0f} at its peak"
    )
    # Layers and allocators want a little; a second copy would be far more.
    assert above < 1.05 * whole + 1.1 * largest + 48
