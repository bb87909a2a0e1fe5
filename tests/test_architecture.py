"""The house holds: imports go down, flags stay under the roof."""

import ast
import pathlib

import pytest

import bit_tf

PACKAGE = pathlib.Path(bit_tf.__file__).parent
FLOORS = {
    0: "architecture layout zoo labels tensors recipe overrides hyperrule "
    "upstream tasks subsets examples holdout listed_files estimate progress "
    "execution interruption cluster rendezvous probes labelling catalogue "
    "search metrics outcomes imbalance model_card patience cells "
    "neighbours",
    1: "layers blocks resnet_v2 folding alternatives formulations ahead "
    "normalisation losses preprocessing mapping mixup optimizer "
    "distribution workdir events decoding image_file scan duplicates pages "
    "beside folder rows listing arrays archives encoded npz_file h5_file "
    "h5_weights safetensors_file torch_weights weights_file download ledger "
    "serving warmup ordering",
    2: "starting data records weights pretrained checkpoint saved_model "
    "exportable portable sources tfds_sets update imagenet21k kept_images",
    3: "evaluation loop journal report training conversion classifier "
    "prediction judging trials curves plots pairs_page demonstration "
    "demo_server benchmarking",
    4: "program importing data_flags model_flags recipe_flags train_flags "
    "model_choice train evaluate predict demo fewshot vtab dedup export "
    "convert prepare benchmark applications",
}
FLOOR_OF = {
    name: floor for floor, names in FLOORS.items() for name in names.split()
}
VERBS = (
    "train",
    "evaluate",
    "predict",
    "demo",
    "fewshot",
    "vtab",
    "dedup",
    "export",
    "convert",
    "prepare",
    "benchmark",
    "applications",
)


def imports(module: str) -> set[str]:
    """Returns the dotted names a module imports, also inside functions."""
    tree = ast.parse((PACKAGE / f"{module}.py").read_text())
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def own_imports(module: str) -> set[str]:
    return {
        name.split(".")[1]
        for name in imports(module)
        if name.startswith("bit_tf.")
    }


def test_every_module_has_a_floor():
    modules = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"}
    assert modules == set(FLOOR_OF)


@pytest.mark.parametrize("module", sorted(FLOOR_OF))
def test_imports_only_go_down(module):
    for imported in own_imports(module):
        assert FLOOR_OF[imported] <= FLOOR_OF[module], imported


def test_there_is_no_cycle():
    done: set[str] = set()

    def visit(module, path):
        assert module not in path, " -> ".join([*path, module])
        if module not in done:
            for imported in own_imports(module):
                visit(imported, [*path, module])
            done.add(module)

    for module in FLOOR_OF:
        visit(module, [])


def test_programs_are_imported_by_no_one():
    for module in FLOOR_OF:
        assert not own_imports(module) & set(VERBS)


@pytest.mark.parametrize("module", sorted(FLOOR_OF))
def test_only_programs_know_flags(module):
    if FLOOR_OF[module] < 4:
        assert not any(name.startswith("absl") for name in imports(module))


@pytest.mark.parametrize("module", FLOORS[0].split())
def test_the_ground_floor_needs_no_tensorflow(module):
    heavy = {"tensorflow", "keras", "jinja2", "matplotlib", "PIL"}
    assert not {name.split(".")[0] for name in imports(module)} & heavy


def test_modules_are_imported_not_symbols():
    for module in FLOOR_OF:
        for name in imports(module):
            if name.startswith("bit_tf."):
                assert name.count(".") == 1, name
