"""The notebooks call and never define, and run from the first to the last cell.

Each is executed where nothing is fetched, with parameters that make it small,
by the Python that runs the tests.
"""

import ast
import csv
import importlib.util
import itertools
import json
import pathlib
import re
import sys
import tempfile

import jupyter_client
import nbclient
import nbformat
import numpy as np
import pytest
import tensorflow as tf
from IPython.core import inputtransformer2
from jupyter_client import kernelspec

from tests import programs
from tests.conftest import ROOT

REPOSITORY = "bit-tf/bit_tf"
COLABS = ROOT / "experiments" / "colabs"
NOTEBOOKS = sorted(COLABS.glob("*.ipynb"))
every_notebook = pytest.mark.parametrize(
    "path", NOTEBOOKS, ids=lambda path: path.stem
)
# What is given instead of the values in the cell "parameters".
SMALL = {
    "quickstart": {"CROP": 32, "WEIGHTS": None},
    "fine_tune_your_folder": {
        "MODEL": "R26x0.5",
        "FLAGS": "--crop=32 --batch_size=32 --total_steps=120 --base_lr=0.03",
    },
    "use_the_saved_model": {"STEPS": 120, "CROP": 32},
    "pretrain": {"STEPS": 120, "TRANSFER_STEPS": 20, "SUBSETS": 2},
}
DEFINITIONS = (
    ast.FunctionDef,
    ast.AsyncFunctionDef,
    ast.ClassDef,
    ast.Lambda,
)


class SamePython(jupyter_client.AsyncKernelManager):
    """Starts this interpreter, whatever kernels the machine knows."""

    kernel_spec = kernelspec.KernelSpec(
        argv=[
            sys.executable,
            "-m",
            "ipykernel_launcher",
            "-f",
            "{connection_file}",
        ],
        display_name="Python 3",
        language="python",
    )


def read(path):
    return nbformat.read(path, as_version=nbformat.NO_CONVERT)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def as_python(cell) -> str:
    """Returns what IPython makes of `!` and `%`."""
    return inputtransformer2.TransformerManager().transform_cell(cell.source)


def parameters(notebook) -> dict:
    """Returns the names and values of the cell that is tagged so."""
    (cell,) = (
        cell
        for cell in notebook.cells
        if "parameters" in cell.metadata.get("tags", ())
    )
    return {
        line.targets[0].id: ast.literal_eval(line.value)
        for line in ast.parse(cell.source).body
    }


@pytest.fixture
def execute(tmp_path, monkeypatch):
    """Returns what runs a notebook in an empty directory."""
    for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path.parent / f"{name}_of_test"))

    def run(name, *, before=None):
        """Returns id of a cell -> its outputs.

        Args:
            name: of the notebook.
            before: id of a cell -> code that is run before it.
        """
        notebook = read(COLABS / f"{name}.ipynb")
        usual = parameters(notebook)
        assert set(SMALL[name]) <= set(usual)
        for cell in code_cells(notebook):
            if cell.id == "parameters":
                cell.source = "\n".join(
                    f"{key} = {value!r}"
                    for key, value in {**usual, **SMALL[name]}.items()
                )
            elif before and cell.id in before:
                cell.source = f"{before[cell.id]}\n{cell.source}"
        nbclient.NotebookClient(
            notebook,
            timeout=600,
            kernel_manager_class=SamePython,
            resources={"metadata": {"path": str(tmp_path)}},
        ).execute()
        outputs = {cell.id: cell.outputs for cell in code_cells(notebook)}
        assert outputs["install"] == []
        return outputs

    return run


def printed(outputs) -> str:
    return "".join(o.text for o in outputs if o.output_type == "stream")


def shown(outputs, kind: str) -> str:
    """Returns the one thing of a MIME type that a cell displays."""
    (found,) = (o.data[kind] for o in outputs if kind in o.get("data", ()))
    return found


def evaluation(workdir) -> dict:
    return json.loads((workdir / "evaluation.json").read_text())


def test_every_notebook_is_executed_here():
    assert {path.stem for path in NOTEBOOKS} == set(SMALL)


@every_notebook
def test_notebooks_are_stored_without_what_they_showed(path):
    notebook = read(path)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert notebook.metadata.kernelspec.name == "python3"
    for cell in code_cells(notebook):
        assert cell.outputs == []
        assert cell.execution_count is None


@every_notebook
def test_notebooks_call_and_never_define(path):
    notebook = read(path)
    assert len(notebook.cells) <= 15
    for cell in code_cells(notebook):
        for node in ast.walk(ast.parse(as_python(cell))):
            assert not isinstance(node, DEFINITIONS), cell.source


@every_notebook
def test_every_code_cell_is_explained_before_it(path):
    cells = read(path).cells
    assert cells[0].cell_type == "markdown"
    for before, cell in itertools.pairwise(cells):
        if cell.cell_type == "code":
            assert before.cell_type == "markdown", cell.source
            assert before.source.strip()


@every_notebook
def test_the_first_cell_has_a_title_and_opens_this_notebook_in_colab(path):
    first = read(path).cells[0].source
    assert first.startswith("# ")
    link = re.search(r"\[!\[Open in Colab\]\(\S+\)\]\((\S+)\)", first)[1]
    assert link == (
        f"https://colab.research.google.com/github/{REPOSITORY}/blob/main/"
        f"{path.relative_to(ROOT)}"
    )


@every_notebook
@pytest.mark.parametrize("is_there", [True, False])
def test_the_second_cell_installs_what_is_missing(path, is_there, monkeypatch):
    cell = read(path).cells[1]
    called = []

    class Shell:
        def run_line_magic(self, *arguments):
            called.append(arguments)

    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: object() if is_there else None
    )
    exec(as_python(cell), {"get_ipython": Shell})
    wanted = f'install -q "bit_tf @ git+https://github.com/{REPOSITORY}"'
    assert called == ([] if is_there else [("pip", wanted)])


@every_notebook
def test_parameters_stand_at_the_top_as_plain_values(path):
    notebook = read(path)
    assert notebook.cells[3].metadata.tags == ["parameters"]
    assert all(name.isupper() for name in parameters(notebook))


@every_notebook
def test_flags_in_the_notebooks_exist(path):
    for cell in code_cells(read(path)):
        text = cell.source.replace("\\\n", " ")
        for name, arguments in re.findall(r"-m bit_tf\.(\w+) (.*)", text):
            known = programs.run(name, "--help").stdout
            for flag in re.findall(r"--(\w+)", arguments):
                assert re.search(
                    rf"--(\[no\])?{flag.removeprefix('no')}\b", known
                ), f"bit_tf.{name} --{flag}"


@every_notebook
def test_links_into_the_repository_lead_to_files(path):
    for cell in read(path).cells:
        for where, target in re.findall(
            r"github\.com/([\w-]+/\w+)/blob/main/([^)\s]+)", cell.source
        ):
            assert where == REPOSITORY
            assert (ROOT / target).is_file(), target


@every_notebook
def test_no_path_of_somebody_s_machine(path):
    text = path.read_text()
    for place in (ROOT, pathlib.Path.home(), tempfile.gettempdir()):
        assert str(place) not in text


def test_the_saved_model_is_used_without_bit_tf():
    cells = code_cells(read(COLABS / "use_the_saved_model.ipynb"))
    after = [cell.id for cell in cells].index("export") + 1
    assert cells[after:]
    assert all("bit_tf" not in cell.source for cell in cells[after:])


@pytest.mark.slow
def test_quickstart_trains_and_shows_what_came_out(execute, tmp_path):
    outputs = execute("quickstart")
    run = tmp_path / "runs" / "quickstart"
    found = evaluation(run)
    # Ten classes, so chance is 10 %.
    assert found["top1_low"] > 0.1
    assert f"{found['top1']:.1%}".replace("%", " %") in printed(
        outputs["train"]
    )
    last = printed(outputs["metrics"]).splitlines()[-1]
    assert last.startswith("step   60 ")
    assert f"top-1 {found['top1']:.1%} ({found['top1_low']:.1%} to" in last
    page = shown(outputs["report"], "text/html").replace("\xa0", " ")
    fresh = evaluation(tmp_path / "runs" / "quickstart_from_scratch")
    assert f"{100 * fresh['top1']:.1f} %" in page
    assert "scratch" in page
    assert f"{100 * found['top1']:.1f} % top-1 accuracy" in page
    assert page.count("<iframe") == 1
    assert "<html" not in page

    told = printed(outputs["predict"])
    header = re.search(r"file,.*error", told)[0].split(",")
    row = re.search(r"pictures/test/rocket/.*", told)[0].strip().split(",")
    answer = dict(zip(header, row, strict=True))
    names = [row["name"] for row in found["per_class"]]
    assert answer["file"] == "pictures/test/rocket/000.jpg"
    assert answer["class_1"] in names
    assert 0.1 < float(answer["probability_1"]) <= 1
    assert answer["error"] == ""
    assert shown(outputs["predict"], "image/jpeg")
    named = printed(outputs["applications"])
    assert len(re.findall(r"^\d+\.\d%  n\d{8}  \w", named, re.MULTILINE)) == 3


@pytest.mark.slow
def test_a_folder_is_learnt_judged_predicted_and_exported(execute, tmp_path):
    outputs = execute("fine_tune_your_folder")
    run = tmp_path / "runs" / "mine"
    found = evaluation(run)
    assert found["top1_low"] > 0.1
    assert "   48 images in images/train/astronaut" in printed(
        outputs["folder"]
    )
    assert "recipe hyperrule/paper" in printed(outputs["train"])
    assert evaluation(run / "evaluation")["top1"] == found["top1"]
    table = shown(outputs["evaluate"], "text/markdown").splitlines()
    assert sorted(line.split(" | ")[0] for line in table[2:]) == sorted(
        f"| {row['name']}" for row in found["per_class"]
    )
    f1 = {row["name"]: row["f1"] for row in found["per_class"]}
    assert table[2].startswith(f"| {min(f1, key=f1.get)} |")

    with open(tmp_path / "predictions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    right = [row["file"].split("/")[-2] == row["class_1"] for row in rows]
    assert len(right) == found["examples"] == 320
    assert np.mean(right) == pytest.approx(found["top1"])
    table = shown(outputs["predict"], "text/markdown").splitlines()
    assert len(table) == 12
    assert rows[9]["file"] in table[-1] and rows[9]["class_1"] in table[-1]

    served = tf.saved_model.load(str(tmp_path / "served_model"))
    for row in rows[::40]:
        content = (tmp_path / row["file"]).read_bytes()
        answer = served.signatures["serving_default"](
            image_bytes=tf.constant([content])
        )
        assert answer["classes"].numpy()[0, 0].decode() == row["class_1"]
        # Six digits are written; float32 before that.
        assert float(answer["scores"][0, 0]) == pytest.approx(
            float(row["probability_1"]), rel=1e-3
        )


@pytest.mark.slow
def test_the_saved_model_answers_and_learns_where_bit_tf_is_not(
    execute, tmp_path
):
    outputs = execute(
        "use_the_saved_model",
        before={"load": "import sys; sys.modules['bit_tf'] = None"},
    )
    found = evaluation(tmp_path / "runs" / "to_export")
    assert found["top1_low"] > 0.1
    loaded = printed(outputs["load"])
    assert "images (8, 32, 32, 3)" in loaded
    assert "logits (8, 10)" in loaded
    assert "features (8, 1024)" in loaded
    served = printed(outputs["signatures"])
    assert f"{found['top1']:.2%} of 320 images right" in served
    assert re.search(r"errors: \['', 'not a JPEG.*'\]", served)
    assert "image_tensor: classes, logits, probabilities, scores" in served

    learnt = printed(outputs["keras"])
    # Of each of 8 units three kernels, scales and offsets; 4 projections; the
    # root, the last scale and offset, the head's kernel and bias.
    assert f"trainable weights: {8 * 9 + 4 + 1 + 2 + 2}" in learnt
    (before, loss_before), (_, loss_after) = (
        map(float, numbers)
        for numbers in re.findall(r"accuracy (\S+)%, loss (\S+)", learnt)
    )
    # Keras decodes and resizes a little differently.
    assert before == pytest.approx(100 * found["top1"], abs=3)
    assert loss_before != loss_after
    first, last = re.findall(r" - loss: (\S+)", learnt)
    assert float(last) < float(first)
    head = printed(outputs["new-head"])
    assert float(re.search(r"new head (\S+)%", head)[1]) > 20


@pytest.mark.slow
def test_what_is_learnt_upstream_is_where_the_transfer_starts(
    execute, tmp_path
):
    outputs = execute("pretrain")
    run = tmp_path / "runs" / "pretrain"
    recipes = {
        name: json.loads((run / name / "recipe.json").read_text())
        for name in ("upstream", "transfer")
    }
    assert recipes["upstream"]["name"] == "upstream/BiT-S"
    assert recipes["transfer"]["init_from"] == (
        "runs/pretrain/upstream/weights.npz"
    )
    assert recipes["upstream"]["init_from"] is None
    held_back = set(recipes["transfer"]["class_names"])
    assert len(held_back) == 4
    assert not held_back & set(recipes["upstream"]["class_names"])
    assert recipes["transfer"]["data"]["train_examples"] == 20
    assert "new head for 4 starts at zero" in printed(outputs["transfer"])

    # Six classes, so chance is 17 %.
    assert evaluation(run / "upstream")["top1_low"] > 1 / 6

    lines = (run / "curves" / "results.jsonl").read_text().splitlines()
    # The first says what was asked.
    rows = [json.loads(line) for line in lines[1:]]
    # Two starts, two numbers of images, two subsets.
    assert len(rows) == 8
    assert {row["model"] for row in rows} == {"scratch", "upstream"}
    table = printed(outputs["features"])
    assert re.search(r"^upstream +linear +5 ", table, re.MULTILINE)
    assert shown(outputs["features"], "image/png")
    lines = printed(outputs["numbers"]).splitlines()
    assert [line.split()[0] for line in lines] == list(recipes)
    for line in lines:
        found = evaluation(run / line.split()[0])
        assert f"top-1 {found['top1']:.1%} " in line
