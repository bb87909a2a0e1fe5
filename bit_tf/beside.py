"""Other runs, put beside one: what they got on the same images."""

import dataclasses
import json

from bit_tf import workdir as workdir_lib

# As many as are told apart in one picture.
MOST = 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """What a run got.

    Args:
        name: how it is called beside others.
        start: what it started from, in words.
        updates: how many it made.
        batch_size: of each.
        top1: share of the images that was right in the end.
        low: of its 95 % interval.
        high: the same.
        curve: (step, top1) of its evaluations.
    """

    name: str
    start: str
    updates: int
    batch_size: int
    top1: float
    low: float
    high: float
    curve: tuple[tuple[int, float], ...]


def read(name: str, path: str, fingerprint: str) -> Run:
    """Returns a run that has ended.

    Args:
        name: how it is to be called.
        path: its workdir.
        fingerprint: of the images that both are to be evaluated on.

    Raises:
        ValueError: it has not ended, or was evaluated on other images, or its
            images have several labels or a number each.
    """
    workdir = workdir_lib.Workdir(path)
    if not workdir.recipe.is_file() or not workdir.evaluation.is_file():
        raise ValueError(
            f"{workdir.path} holds no run that has ended: --beside takes "
            "workdirs of bit_tf.train."
        )
    summary = json.loads(workdir.evaluation.read_text())
    if "top1_low" not in summary or "map" in summary:
        raise ValueError(
            f"{workdir.path}: --beside is for images of one class each."
        )
    if workdir.read_recipe()["data"]["eval_fingerprint"] != fingerprint:
        raise ValueError(
            f"--beside={path}: it was evaluated on other images, and cannot be "
            "compared."
        )
    return of_run(workdir, summary, name=name)


def of_run(
    workdir: workdir_lib.Workdir, summary: dict, *, name: str = "this run"
) -> Run:
    """Returns what a run got, of which there is a recipe and an evaluation."""
    kept = workdir.read_recipe()
    return Run(
        name=name,
        start=f"{kept['model']}, {kept['init_from'] or 'fresh weights'}",
        updates=kept["total_steps"],
        batch_size=kept["batch_size"],
        top1=summary["top1"],
        low=summary["top1_low"],
        high=summary["top1_high"],
        curve=tuple(
            (row["step"], row["top1"])
            for row in workdir_lib.read_metrics(workdir.path)
            if "top1" in row
        ),
    )
