"""The 19 tasks of VTAB-1k: table, JSON lines and figure.

python -m bit_tf.vtab --list
python -m bit_tf.vtab --model=BiT-M-R50x1 --output=DIR
"""

import pathlib
import statistics
import time

import numpy as np
from absl import flags

from bit_tf import catalogue
from bit_tf import importing
from bit_tf import overrides
from bit_tf import program
from bit_tf import progress as progress_lib
from bit_tf import recipe_flags as numbers
from bit_tf import search
from bit_tf import sources
from bit_tf import tfds_sets

_LIST = flags.DEFINE_bool("list", False, "Show the tasks and end.")
_MODEL = flags.DEFINE_string(
    "model",
    None,
    "What to start from: published weights such as BiT-M-R50x1, a weights "
    "file, the workdir of a run, or a network with fresh weights such as "
    "R26x0.5.",
)
_TASKS = flags.DEFINE_list("tasks", None, "Which tasks. Default: all 19.")
_RUNS = flags.DEFINE_integer(
    "runs",
    3,
    "Trainings of each task, of seeds 0, 1, ...; the paper has 3.",
    lower_bound=1,
    upper_bound=10_000,
)
_SEARCH_TRIALS = flags.DEFINE_integer(
    "search_trials",
    0,
    "Search the hyper-parameters of each task first, with so many trials on "
    f"800 of its images; the paper's appendix A has {search.TRIALS}. Default: "
    "the HyperRule.",
    lower_bound=0,
    upper_bound=10_000,
)
_SEARCH_MAX_STEPS = flags.DEFINE_integer(
    "search_max_steps",
    None,
    "Longest schedule that the search draws. Default: 16,000.",
    lower_bound=1,
    upper_bound=2**31 - 1,
)
_OUTPUT = flags.DEFINE_string(
    "output",
    None,
    "Directory for results.jsonl and vtab.png. What is in there already is not "
    "computed again.",
)
_DATA_DIR = program.define_data_dir()
flags.declare_key_flag("data_dir")
program.define_mirror()


def main() -> None:
    if _LIST.value:
        program.say(_table())
        return
    for flag in (_MODEL, _OUTPUT):
        if not flag.value:
            raise ValueError(f"--{flag.name} is missing: see --help.")
    if _SEARCH_TRIALS.value:
        for name in search.draw(0):
            if flags.FLAGS[name].present:
                raise ValueError(
                    f"--{name} is what --search_trials searches: drop one of "
                    "the two."
                )
    entries = _chosen()
    start = program.starting_point(_MODEL.value)
    with importing.quickly():
        tfds_sets.import_tfds()
        from bit_tf import curves
        from bit_tf import ledger as ledger_lib

    output = pathlib.Path(_OUTPUT.value).expanduser()
    ledger = ledger_lib.Ledger(
        output / "results.jsonl",
        about={
            "model": _MODEL.value,
            "network": start.model_name,
            "flags": program.given_flags(numbers.CROP),
            "search_trials": _SEARCH_TRIALS.value,
            "search_max_steps": _SEARCH_MAX_STEPS.value,
        },
        keys=("task", "method", "seed"),
    )
    missing = []
    for entry in entries:
        wanted = range(_RUNS.value)
        if all(_find(ledger, entry, seed) for seed in wanted):
            continue
        try:
            train, evaluation = sources.load(
                entry.task(), data_dir=_DATA_DIR.value, log=program.say
            )
        except ValueError as error:
            program.say(f"{entry.name}: left out: {error}")
            missing.append(entry.name)
            continue
        _run_task(entry, start, train, evaluation, ledger)
    _report(curves, ledger, entries, output)
    if missing:
        raise ValueError(
            f"{len(missing)} of {len(entries)} tasks are missing: "
            f"{', '.join(missing)}. Prepare them and give the same command, "
            "which computes what is missing."
        )


def _chosen() -> list[catalogue.Entry]:
    if _TASKS.value is None:
        return list(catalogue.VTAB)
    return [catalogue.find(f"vtab:{name}") for name in _TASKS.value]


def _find(ledger, entry: catalogue.Entry, seed: int) -> dict | None:
    return ledger.find(task=entry.name, method="run", seed=seed)


def _run_task(entry, start, train, evaluation, ledger) -> None:
    """Trains a task as often as asked, after a search if that is asked."""
    from bit_tf import trials

    recipe = numbers.resolve(
        numbers.hyperrule_of(train, start.model_name),
        train,
        batch_size=numbers.BATCH_SIZE.value,
        task=entry.task(),
        # As the protocol has them.
        apply_exif=False,
    )
    if _SEARCH_TRIALS.value:
        best = _search(entry, start, recipe, train, ledger)
        recipe = overrides.override(recipe, **best)
    trial = trials.Trials(start, recipe, evaluation)
    for seed in range(_RUNS.value):
        if not _find(ledger, entry, seed):
            row = _train(trial, recipe, train, f"{entry.name} {seed}", seed)
            ledger.add(
                {"task": entry.name, "method": "run", "seed": seed, **row}
            )
            program.say(
                f"{entry.name}  seed {seed}: top-1 {100 * row['top1']:.2f} %"
            )


def _train(trial, recipe, train, what: str, seed: int) -> dict:
    began = time.monotonic()
    status = progress_lib.Progress(recipe.total_steps)
    final = trial.run(
        train,
        seed=seed,
        progress=lambda step: status.update(
            step, f"{what}: step {step}/{recipe.total_steps}"
        ),
    )
    status.clear()
    return {
        **final.summary(),
        "train_examples": len(train),
        "seconds": round(time.monotonic() - began, 2),
    }


def _search(entry, start, recipe, train, ledger) -> dict:
    """Returns what did best on images that were held out of the training."""
    from bit_tf import loop
    from bit_tf import trials

    # 800 and 200: the protocol's two parts, in this order.
    cut = len(train) * 4 // 5
    parts = (
        train.subset(np.arange(cut)),
        train.subset(np.arange(cut, len(train))),
    )
    for index in range(_SEARCH_TRIALS.value):
        key = {"task": entry.name, "method": "search", "seed": index}
        if ledger.find(**key):
            continue
        drawn = search.draw(index, max_steps=_SEARCH_MAX_STEPS.value)
        own = overrides.override(recipe, **drawn)
        try:
            row = _train(
                trials.Trials(start, own, parts[1]),
                own,
                parts[0],
                f"{entry.name}, trial {index}",
                0,
            )
        except loop.NotFiniteError:
            row = {"top1": 0.0, "remark": "the loss was not finite"}
        ledger.add({**key, **row, "drawn": drawn})
    rows = [
        row
        for row in ledger.rows
        if row["task"] == entry.name and row["method"] == "search"
    ]
    return max(rows, key=lambda row: row["top1"])["drawn"]


def _report(curves, ledger, entries, output: pathlib.Path) -> None:
    rows = [
        row
        for row in ledger.rows
        if row["method"] == "run" and row["seed"] < _RUNS.value
    ]
    groups = curves.summarize(rows, ("task",))
    if not groups:
        return
    order = [entry.name for entry in entries]
    groups = [g for g in groups if g["task"] in order]
    groups.sort(key=lambda group: order.index(group["task"]))
    program.say(curves.table(groups, ("task",)))
    medians = {group["task"]: group["median"] for group in groups}
    scores = catalogue.vtab_scores(medians)
    for name, score in scores.items():
        program.say(f"{name:<12} {100 * score:.2f} %  (mean of medians)")
    means = [
        catalogue.vtab_scores(
            {row["task"]: row["top1"] for row in rows if row["seed"] == seed}
        ).get("mean")
        for seed in range(_RUNS.value)
    ]
    means = [mean for mean in means if mean is not None]
    if len(means) > 1:
        program.say(
            f"the mean of each run: median {100 * statistics.median(means):.2f}"
            f" +- {100 * statistics.stdev(means):.2f} %, {len(means)} runs"
        )
    curves.draw_vtab(
        output / "vtab.png", medians, scores, title=str(_MODEL.value)
    )
    program.say(f"results       {output / 'results.jsonl'}")
    program.say(f"figure        {output / 'vtab.png'}")


def _table() -> str:
    """Returns the tasks as text, one a line."""
    lines = [
        ("task", "group", "classes", "tfds", "train", "test", "images", "")
    ]
    for entry in catalogue.VTAB:
        notes = []
        if not entry.random_flip:
            notes.append("no flip")
        if not entry.random_crop:
            notes.append("no crop")
        if entry.remark:
            notes.append(entry.remark)
        lines.append(
            (
                entry.name,
                entry.group,
                str(entry.classes),
                entry.location,
                entry.train_split,
                entry.eval_split,
                f"{entry.eval_examples:,}",
                "; ".join(notes),
            )
        )
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) for cell, width in zip(line, widths, strict=True)
        ).rstrip()
        for line in lines
    )


if __name__ == "__main__":
    flags.adopt_module_key_flags(numbers)
    program.run(main)
