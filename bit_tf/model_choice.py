"""Which network a training starts from, as --model and --init_from say."""

import pathlib

from bit_tf import architecture
from bit_tf import download
from bit_tf import program
from bit_tf import recipe_flags as numbers
from bit_tf import train_flags as given
from bit_tf import weights_file
from bit_tf import workdir as workdir_lib
from bit_tf import zoo


def _is_published(name: str) -> bool:
    return name.startswith("BiT-") or name in zoo.ENTRIES


def check_name() -> None:
    """Raises ValueError for a --model that there is not."""
    if given.MODEL.value is not None:
        if _is_published(given.MODEL.value):
            zoo.find(given.MODEL.value)
        else:
            architecture.parse_name(given.MODEL.value)


def start(workdir: workdir_lib.Workdir) -> tuple[str, str | None]:
    """Returns the architecture, and the weights to start from or None.

    Without flags, those that the run in the workdir was begun with; or the
    default's, which are fetched, or the shipped where that is not possible.

    Raises:
        ValueError: there are no such weights.
    """
    name, init_from = given.MODEL.value, given.INIT_FROM.value
    if name is not None and _is_published(name):
        return zoo.find(name).architecture, init_from or name
    if name is not None:
        return name, init_from
    if init_from:
        return _architecture_of(program.weights_file(init_from)), init_from
    if workdir.recipe.exists():
        kept = workdir.read_recipe()
        return kept["model"], kept["init_from"]
    if given.RECIPE.value == "upstream":
        program.say(f"model {given.SMALL_MODEL}; choose another with --model")
        return given.SMALL_MODEL, None
    try:
        program.weights_file(given.DEFAULT_MODEL)
    except download.UnreachableError as error:
        program.say(
            f"warning: {error}\nwarning: the small {zoo.SHIPPED} is trained "
            f"instead of {given.DEFAULT_MODEL}: expect much less of it. "
            f"--model={zoo.SHIPPED} says that you want it"
        )
        return zoo.find(zoo.SHIPPED).architecture, zoo.SHIPPED
    program.say(f"model {given.DEFAULT_MODEL}; choose another with --model")
    return zoo.find(given.DEFAULT_MODEL).architecture, given.DEFAULT_MODEL


def architecture_said(workdir: workdir_lib.Workdir) -> str:
    """Returns the architecture that `start` would, and fetches nothing.

    A file that is here is looked into.
    """
    name, init_from = given.MODEL.value, given.INIT_FROM.value
    if name is not None and _is_published(name):
        check_initializer(init_from or name)
    if init_from:
        check_initializer(init_from)
        if pathlib.Path(init_from).expanduser().exists():
            path = program.weights_file(init_from)
            if name is None:
                return _architecture_of(path)
            if not _is_published(name):
                checked(init_from, name)
        elif name is None and not _is_published(init_from):
            raise ValueError(f"--init_from={init_from}: there is no such file.")
    if name is None and init_from is None and workdir.recipe.exists():
        return workdir.read_recipe()["model"]
    if name is None and given.RECIPE.value == "upstream":
        return given.SMALL_MODEL
    name = name or init_from or given.DEFAULT_MODEL
    return zoo.find(name).architecture if _is_published(name) else name


def check_initializer(init_from: str | None) -> None:
    """Raises ValueError for an --initializer where nothing is fresh."""
    if init_from and numbers.INITIALIZER.value is not None:
        raise ValueError(
            f"--initializer={numbers.INITIALIZER.value} is for fresh weights, "
            f"and these start from {init_from}: drop one of the two."
        )


def _architecture_of(path: pathlib.Path) -> str:
    with weights_file.opened(path) as stored:
        return stored.architecture


def checked(init_from: str, model_name: str) -> pathlib.Path:
    """Returns the file to start from, whose tensors fit the network."""
    path = program.weights_file(init_from)
    with weights_file.opened(path, expected=model_name):
        return path
