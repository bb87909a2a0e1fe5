"""What the documents tell people to type exists and works."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest

from bit_tf import exportable
from bit_tf import resnet_v2
from bit_tf import saved_model
from tests import published
from tests.conftest import ROOT

DOCUMENTS = sorted(ROOT.glob("*.md")) + sorted(
    path
    for folder in ("bit_tf", "docs", "experiments")
    for path in (ROOT / folder).rglob("*.md")
)


def commands():
    """Yields the programs with their flags, as the documents show them."""
    for path in DOCUMENTS:
        text = path.read_text().replace("\\\n", " ")
        for match in re.finditer(r"python -m bit_tf\.(\w+)((?: +\S+)*)", text):
            yield path.name, match[1], re.findall(r"--(\w+)", match[2])


def test_documents_show_commands():
    assert len(list(commands())) >= 3


@pytest.mark.parametrize(
    "program",
    [
        "train",
        "evaluate",
        "predict",
        "demo",
        "fewshot",
        "vtab",
        "dedup",
        "export",
        "convert",
    ],
)
def test_flags_in_the_documents_exist(program):
    known = subprocess.run(
        [sys.executable, "-m", f"bit_tf.{program}", "--help"],
        capture_output=True,
        text=True,
        cwd=ROOT,
    ).stdout
    for document, name, flags in commands():
        if name == program:
            for flag in flags:
                # absl's own are in --helpfull.
                assert flag in ("flagfile", "help") or re.search(
                    rf"--(\[no\])?{flag}\b", known
                ), f"{document}: --{flag}"


def test_programs_in_the_documents_exist():
    for document, name, _ in commands():
        assert (ROOT / "bit_tf" / f"{name}.py").is_file(), document


def test_files_in_the_documents_exist():
    for path in DOCUMENTS:
        for target in re.findall(r"\]\(([^)#]+)\)", path.read_text()):
            if not target.startswith("http"):
                assert (path.parent / target).exists(), f"{path}: {target}"


def test_make_targets_in_the_documents_exist():
    makefile = (ROOT / "Makefile").read_text()
    for path in DOCUMENTS:
        for target in re.findall(r"`make (\w+)`", path.read_text()):
            assert f"\n{target}:" in makefile, f"{path}: {target}"


def test_the_python_of_the_weights_page_runs(tmp_path):
    (snippet,) = re.findall(
        r"```python\n(.+?)```",
        (ROOT / "docs" / "weights.md").read_text(),
        re.DOTALL,
    )
    np.savez(tmp_path / "weights.npz", **published.arrays("R50x1", 1000))
    done = subprocess.run(
        [sys.executable, "-c", snippet],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"\[\[\('n\d{8}', '.+', 0\.\d+\)", done.stdout)
    assert "(1, 2048)" in done.stdout


def test_the_readme_s_five_lines_of_python_run(tmp_path):
    (snippet,) = re.findall(
        r"```python\n(.+?)```", (ROOT / "README.md").read_text(), re.DOTALL
    )
    model = resnet_v2.build("R26x0.5", 2)
    saved_model.write(
        tmp_path / "runs" / "mine" / "saved_model",
        exportable.Exportable(
            model=model, class_names=("cat", "dog"), crop=128
        ),
    )
    from PIL import Image

    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (50, 70, 3)).astype(np.uint8)).save(
        tmp_path / "photo.jpg"
    )
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; sys.modules['bit_tf'] = None\n" + snippet,
        ],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "cat" in done.stdout or "dog" in done.stdout
