"""What upstream training costs on machines that were not at hand.

python experiments/upstream/scaling.py

Prints the tables of SCALING.md: counted work, data sheets, one measured rate,
and assumptions that are named. Nothing here was timed on an accelerator.
"""

import dataclasses
import math

from bit_tf import architecture
from bit_tf import layout
from bit_tf import upstream

# JPEGs of 500 x 375 pixels decoded, cropped and scaled per core and second,
# measured on one core of an AMD EPYC (Zen 3).
DECODED_PER_CORE = 800
# Of the peak that convolutions reach, assumed: those of R50x1 wait for memory,
# those of R152x4 are large.
REACHED = {"R50x1": 0.15, "R152x4": 0.35}
SIDE = upstream.CROP
BATCH = upstream.BATCH_SIZE


@dataclasses.dataclass(frozen=True)
class Machine:
    """Data sheets of the vendors.

    Args:
        chips: in all.
        hosts: that feed them.
        cores: of each host, virtual.
        peak: of a chip in bfloat16, FLOP/s.
        memory: of a chip, bytes.
        link: between chips, bytes/s that one sends while it receives.
    """

    name: str
    chips: int
    hosts: int
    cores: int
    peak: float
    memory: float
    link: float


MACHINES = (
    Machine("8 x A100", 8, 1, 96, 312e12, 80e9, 300e9),
    Machine("64 x H100", 64, 8, 208, 989e12, 80e9, 50e9),
    Machine("TPU v4-256", 128, 32, 240, 275e12, 32e9, 150e9),
)
RUNS = (("BiT-S", "R50x1"), ("BiT-M", "R50x1"), ("BiT-L", "R152x4"))


def parameters(name: str, classes: int) -> int:
    depth, width = architecture.parse_name(name)
    return layout.parameters(layout.shapes(depth, width, classes))


def row(run: str, model: str, machine: Machine) -> list[str]:
    facts = upstream.UPSTREAMS[run]
    steps = upstream.recipe(
        num_examples=facts.num_examples, name=run
    ).total_steps
    weights = parameters(model, facts.num_classes)
    # Two FLOP a multiply-add, three passes.
    work = 6 * architecture.multiplications(model, SIDE) * BATCH
    compute = work / (machine.chips * machine.peak * REACHED[model])
    # A ring: every chip sends the float32 gradients nearly twice.
    share = 2 * (machine.chips - 1) / machine.chips
    network = share * 4 * weights / machine.link
    cores = machine.hosts * machine.cores
    decoding = BATCH / (DECODED_PER_CORE * cores)
    # Weights, momentum and gradients in float32; four copies of the
    # activations in bfloat16.
    held = 12 * weights
    each = BATCH // machine.chips
    image = 8 * architecture.activations(model, SIDE)
    parts = 1
    while held + each / parts * image > 0.9 * machine.memory:
        parts *= 2
    slowest = max(compute, network, decoding)
    limit = {compute: "compute", network: "network", decoding: "input"}
    needed = math.ceil(BATCH / max(compute, network) / DECODED_PER_CORE)
    return [
        f"{run} {model}",
        machine.name,
        f"{each}" + (f" in {parts} parts" if parts > 1 else ""),
        f"{1e3 * compute:,.0f}",
        f"{1e3 * network:,.1f}",
        f"{1e3 * decoding:,.0f}",
        limit[slowest],
        f"{needed:,} of {cores:,}",
        _duration(steps * slowest),
    ]


def _duration(seconds: float) -> str:
    hours = seconds / 3600
    if hours < 1:
        return f"{60 * hours:.0f} min"
    return f"{hours:.0f} h" if hours < 48 else f"{hours / 24:,.0f} days"


def table(heads: list[str], rows: list[list[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def counted(run: str, model: str) -> list[str]:
    facts = upstream.UPSTREAMS[run]
    weights = parameters(model, facts.num_classes)
    steps = upstream.recipe(
        num_examples=facts.num_examples, name=run
    ).total_steps
    work = 6 * architecture.multiplications(model, SIDE) * BATCH
    return [
        f"{run} {model}",
        f"{weights / 1e6:,.0f} M",
        f"{work:.2g}",
        f"{steps:,}",
        f"{work * steps:.2g}",
        f"{4 * weights / 1e9:.2f} GB",
    ]


def main() -> None:
    print(
        table(
            ["", "Weights", "FLOP a step", "Steps", "FLOP", "Gradients"],
            [counted(*run) for run in RUNS],
        )
    )
    print()
    print(
        table(
            [
                "",
                "Machine",
                "Images a chip",
                "Compute, ms",
                "Network, ms",
                "Input, ms",
                "Limit",
                "Input cores",
                "Whole run",
            ],
            [row(*run, machine) for run in RUNS for machine in MACHINES],
        )
    )


if __name__ == "__main__":
    main()
