"The notebooks are the source: what they export, how they are built, and what makes a chapter run again."

import ast
import os
import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from nbdev.export import nb_export

from deepfake_nbs.pages import run_notebook

ROOT = Path(__file__).resolve().parent.parent
CHAPTERS = sorted((ROOT / "nbs").rglob("*.ipynb"))
NOTEBOOKS = {path.stem: nbformat.read(path, as_version=4) for path in CHAPTERS}
PLACES = {path.stem: path for path in CHAPTERS}
assert len(PLACES) == len(CHAPTERS), "two notebooks have one name"


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def module_of(notebook):
    found = re.search(r"#\|\s*default_exp:\s*([\w.]+)", code(notebook)[0].source)
    return found and found[1]


MODULES = {module_of(notebook): stem for stem, notebook in NOTEBOOKS.items() if module_of(notebook)}
RESULTS = [stem for stem, notebook in NOTEBOOKS.items() if not module_of(notebook)]


def test_every_module_comes_from_a_notebook(tmp_path):
    (tmp_path / "deepfake_nbs").mkdir()
    for stem in MODULES.values():
        nb_export(PLACES[stem], lib_path=tmp_path / "deepfake_nbs")
    for module in MODULES:
        made, kept = file_of(module, tmp_path / "deepfake_nbs"), file_of(module)
        assert strip_paths(made) == strip_paths(kept), (
            f"{module}.py was edited by hand, or nbdev-export was forgotten"
        )
    package = ROOT / "deepfake_nbs"
    exported = {".".join(path.relative_to(package).with_suffix("").parts) for path in package.rglob("*.py")}
    assert {name for name in exported if name.split(".")[-1] not in ("__init__", "_modidx")} == set(MODULES)


def test_the_library_has_the_modules_and_the_report_has_none():
    in_library = {stem for stem, path in PLACES.items() if path.parent.name == "library"}
    assert in_library == set(MODULES.values()) and {PLACES[stem].parent for stem in RESULTS} == {ROOT / "nbs"}
    assert len(MODULES) == len(in_library), "two notebooks export one module"


def file_of(module, package=ROOT / "deepfake_nbs"):
    return package / (module.replace(".", "/") + ".py")


def strip_paths(path):
    "nbdev writes where the notebook lies, relative to the module."
    return re.sub(r"(File to edit: |# %% )\S*?nbs/", r"\1nbs/", path.read_text())


def test_cleaning_changes_nothing_and_keeps_the_parameters(tmp_path):
    shutil.copytree(ROOT / "nbs", tmp_path / "nbs")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    subprocess.run(
        [Path(sys.executable).with_name("nbdev-clean"), "--fname", "nbs"], cwd=tmp_path, check=True
    )
    for path in CHAPTERS:
        assert (tmp_path / path.relative_to(ROOT)).read_text() == path.read_text(), (
            f"{path.name}: run nbdev-clean"
        )


@pytest.mark.parametrize("stem", RESULTS)
def test_a_results_chapter_takes_profile_and_data_and_defines_nothing(stem):
    cells = code(NOTEBOOKS[stem])
    tagged = [cell for cell in cells if "parameters" in cell.metadata.get("tags", [])]
    assert len(tagged) == 1
    names = [
        line.split(":")[0] for line in tagged[0].source.splitlines() if line and not line.startswith("#")
    ]
    assert names[:2] == ["profile", "data"]
    assert 'profile: str = "mini"' in tagged[0].source and 'data: str = "data/miniature"' in tagged[0].source
    for cell in cells:
        defined = [
            node
            for node in ast.walk(ast.parse(cell.source))
            if isinstance(node, ast.FunctionDef | ast.ClassDef)
        ]
        assert not defined, f"{stem} defines {[node.name for node in defined]}"


def imports_of(path):
    "The package's modules that a file imports from, with the names: also inside functions, and for type checkers alone."
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "deepfake_nbs":
            module, names = node.module.partition(".")[2], [alias.name for alias in node.names]
            for name in names:
                whole = f"{module}.{name}".strip(".")
                yield (whole, None) if whole in MODULES else (module, name)


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_modules_with_a_lower_number(module):
    order = sorted(MODULES, key=MODULES.get)
    used = {name for name, _ in imports_of(file_of(module))}
    assert used <= set(order), f"no such module: {used - set(order)}"
    assert all(order.index(name) < order.index(module) for name in used), used


@pytest.mark.parametrize("module", MODULES)
def test_no_module_imports_a_private_name_of_another(module):
    private = [
        f"{other}.{name}" for other, name in imports_of(file_of(module)) if name and name.startswith("_")
    ]
    assert not private


@pytest.mark.parametrize("module", MODULES)
def test_exported_functions_are_short_and_public_parameters_are_typed(module):
    tree = ast.parse(file_of(module).read_text())
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef):
            continue
        assert node.end_lineno - node.lineno < 60, (
            f"{module}.{node.name} has {node.end_lineno - node.lineno + 1} lines"
        )
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{module}.{node.name} has no docstring"
            bare = [
                arg.arg
                for arg in (*node.args.args, *node.args.kwonlyargs)
                if arg.annotation is None and arg.arg not in ("ax", "self")
            ]
            assert not bare, f"{module}.{node.name}: {bare} have no type"


def test_lines_of_exported_code_fit_a_page():
    for stem in MODULES.values():
        for cell in code(NOTEBOOKS[stem]):
            if re.search(r"^#\|\s*export", cell.source, re.M):
                long = [line for line in cell.source.splitlines() if len(line) > 110]
                assert not long, f"{stem}: {len(long[0])} characters: {long[0]}"


def test_the_training_chapter_refuses_unknown_parameters():
    with pytest.raises(ValueError, match="unknown parameter 'learning_rat'; did you mean 'learning_rate'"):
        run_notebook("nbs/06_training_run.ipynb", "data/never.ipynb", {"learning_rat": "0.1"})
    assert not (ROOT / "data" / "never.ipynb").exists()


# --- What runs again --------------------------------------------------------------------------------------------------


@pytest.fixture
def project(tmp_path):
    "A project whose notebooks only leave empty files behind, all of them done."
    shutil.copy(ROOT / "Makefile", tmp_path)
    for folder in ("nbs", "deepfake_nbs", ".ci"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    fake = tmp_path / "fake"
    fake.write_text('#!/bin/sh\nmkdir -p "$(dirname $2)"; sleep 0.02; touch $2; echo ran $(basename $2)\n')
    fake.chmod(0o755)
    run = tmp_path / "data" / "runs" / "smoke-miniature"
    (run / "cvcs_dfd").mkdir(parents=True)
    for name in ("settings.json", "inputs.csv", "cvcs_dfd/dataset.json"):
        (run / name).touch()
    for path in tmp_path.rglob("*"):  # All inputs are older than all outputs
        os.utime(path, (1e9, 1e9))
    first = make(tmp_path)
    assert {"index", "07_our_faces", "06_training_run-8"} <= first and not first & set(MODULES.values())
    assert make(tmp_path, "library") == set(MODULES.values())
    return tmp_path


def make(folder, target="pages"):
    "Which notebooks `make pages` or `make library` runs."
    command = ["make", target, "ROWS=1 8 1-seed2-published", "RUNNER=./fake"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return set(re.findall(r"^ran (\S+)\.ipynb$", done.stdout, re.M))


def test_the_name_of_a_run_becomes_its_parameters(project):
    name = "data/runs/smoke-miniature/nbs/06_training_run-1-seed2-published.ipynb"
    command = ["make", "-n", "RUNNER=./fake", "-W", "nbs/06_training_run.ipynb"]
    done = subprocess.run([*command, name], cwd=project, capture_output=True, text=True, check=True)
    assert "-p row 1 -p seed 2 -p protocol published -p overwrite True" in done.stdout
    cosine = [*command, name.replace("1-seed2-published", "8-cosine")]
    done = subprocess.run(cosine, cwd=project, capture_output=True, text=True, check=True)
    assert "-p row 8 -p schedule cosine -p overwrite True" in done.stdout
    name = name.replace("1-seed2-published", "8")
    done = subprocess.run([*command, name], cwd=project, capture_output=True, text=True, check=True)
    assert "-p row 8 " in done.stdout and "seed" not in done.stdout and "protocol" not in done.stdout


PAGES = {"03_image_retrieval", "07_our_faces", "08_demo", "index"}  # Of what the data and the networks say
TRAINED = {"06a_classifiers", "ethics", *PAGES}
ROWS = {"06_training_run-1", "06_training_run-8", "06_training_run-1-seed2-published"}


@pytest.mark.parametrize(
    "touched, expected",
    [
        (None, set()),
        ("deepfake_nbs/application.py", {"70a_application", "07_our_faces", "08_demo", "index"}),
        ("nbs/01_datasets.ipynb", {"01_datasets", "index"}),  # the dataset itself was found unchanged
        (
            "deepfake_nbs/retrieval.py",
            {"40a_retrieval", "03_image_retrieval", "70a_application", "07_our_faces", "08_demo", "index"},
        ),
        ("deepfake_nbs/baselines.py", {"50a_baselines", "04_baselines", "06b_photographs", *TRAINED}),
        ("nbs/06a_classifiers.ipynb", TRAINED),
        ("deepfake_nbs/training.py", {"60d_training", "60g_comparison", *ROWS, *TRAINED}),
        ("deepfake_nbs/comparison.py", {"60g_comparison", "06b_photographs", *ROWS, *TRAINED}),
        ("data/runs/smoke-miniature/inputs.csv", {"01_datasets", *PAGES}),
        ("data/runs/smoke-miniature/settings.json", {"01_datasets", "04_baselines", *ROWS, *TRAINED}),
        ("data/runs/smoke-miniature/cvcs_dfd/dataset.json", {"04_baselines", *ROWS, *TRAINED}),
    ],
)
def test_a_chapter_runs_again_when_what_it_uses_changed(project, touched, expected):
    if touched:
        time.sleep(
            0.1
        )  # File times are coarse: the touch must not fall into the same tick as the last output
        os.utime(project / touched)
    assert make(project) == expected
    assert make(project) == set()


def test_an_interrupted_report_goes_on(project):
    (project / "data/runs/smoke-miniature/nbs/06_training_run-8.ipynb").unlink()
    assert make(project) == {"06_training_run-8", *TRAINED}


def test_no_output_names_a_place_on_a_machine():
    for path in sorted((ROOT / "nbs").glob("*.ipynb")):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            shown = json.dumps(
                [output.get("data", output.get("text", "")) for output in cell.get("outputs", [])]
            )
            assert not re.search(r"PosixPath\('/|/(home|root|Users)/", shown), (
                f"{path.name}: {''.join(cell['source'])[:80]}"
            )
