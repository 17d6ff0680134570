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
    found = re.search(r"#\|\s*default_exp:\s*([\w.]+)", "".join(cell.source for cell in code(notebook)[:1]))
    return found and found[1]


MODULES = {module_of(notebook): stem for stem, notebook in NOTEBOOKS.items() if module_of(notebook)}
PAGES = [stem for stem, notebook in NOTEBOOKS.items() if not module_of(notebook)]
RESULTS = [stem for stem in PAGES if code(NOTEBOOKS[stem])]  # The others are words alone


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
    assert in_library == set(MODULES.values()) and {PLACES[stem].parent for stem in PAGES} == {ROOT / "nbs"}
    assert len(MODULES) == len(in_library), "two notebooks export one module"


def file_of(module, package=ROOT / "deepfake_nbs"):
    return package / (module.replace(".", "/") + ".py")


def strip_paths(path):
    "nbdev writes where the notebook lies, relative to the module."
    return re.sub(r"(File to edit: |# %% )(?:\S*/)?nbs/", r"\1nbs/", path.read_text())


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
    above = [
        "deepfake_nbs",
        *path.relative_to(ROOT / "deepfake_nbs").parent.parts,
    ]  # nbdev writes `from ..core`
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name.split(".", 1) for alias in node.names]
            yield from ((rest[0], None) for first, *rest in names if first == "deepfake_nbs" and rest)
        if not isinstance(node, ast.ImportFrom):
            continue
        start = above[: len(above) - node.level + 1] if node.level else []
        module = [*start, *(node.module or "").split(".")]
        if module[0] != "deepfake_nbs":
            continue
        for alias in node.names:
            whole = ".".join(filter(None, [*module[1:], alias.name]))
            yield (whole, None) if whole in MODULES else (".".join(filter(None, module[1:])), alias.name)


def test_imports_are_found_however_they_are_written():
    found = set(imports_of(file_of("data.build")))
    assert {("core", "file_sha256"), ("data.video", "extract_frames"), ("files", "stage_folder")} <= found
    assert sum(bool(list(imports_of(file_of(module)))) for module in MODULES) > 0.8 * len(MODULES)


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


MOST_LINES = dict(function=60, cell=60, module=600)
MOST_CELLS = 90
MOST_COLUMNS = 110


@pytest.mark.parametrize("module", MODULES)
def test_exported_functions_are_short_and_public_parameters_are_typed(module):
    tree = ast.parse(file_of(module).read_text())
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    lines = {node.name: node.end_lineno - node.lineno + 1 for node in functions}
    assert not {name: n for name, n in lines.items() if n > MOST_LINES["function"]}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{module}.{node.name} has no docstring"
            bare = [
                arg.arg
                for arg in (*node.args.args, *node.args.kwonlyargs)
                if arg.annotation is None and arg.arg not in ("ax", "self")
            ]
            assert not bare, f"{module}.{node.name}: {bare} have no type"


def exported(notebook):
    "Cells that go into the module."
    return [cell for cell in code(notebook) if re.search(r"^#\| *exports?\b(?!.*false)", cell.source, re.M)]


@pytest.mark.parametrize("module", MODULES)
def test_exported_cells_and_modules_are_short(module):
    cells = {cell.id: cell.source.splitlines() for cell in exported(NOTEBOOKS[MODULES[module]])}
    assert cells, "nothing is exported"
    assert not {id: len(lines) for id, lines in cells.items() if len(lines) > MOST_LINES["cell"]}
    n_lines = len(file_of(module).read_text().splitlines())
    assert n_lines <= MOST_LINES["module"], f"{n_lines} lines"


@pytest.mark.parametrize("module", MODULES)
def test_exported_lines_are_short(module):
    cells = exported(NOTEBOOKS[MODULES[module]])
    assert not [line for cell in cells for line in cell.source.splitlines() if len(line) > MOST_COLUMNS]


@pytest.mark.parametrize("stem", MODULES.values())
def test_a_chapter_of_the_library_is_short_and_has_prose(stem):
    notebook = NOTEBOOKS[stem]
    assert sum(cell.cell_type != "raw" for cell in notebook.cells) <= MOST_CELLS
    prose = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    title, *rest = "\n".join(prose).splitlines()
    assert title.startswith("# ") and any(line.startswith("> ") for line in rest[:3]), (
        "no title, or no promise"
    )
    sentences = [line for line in rest if line and not line.startswith(("#", ">", "|", "!", ":"))]
    assert sum(len(line.split()) for line in sentences) >= 40, "a chapter says why its code is there"


def test_the_training_chapter_refuses_unknown_parameters():
    with pytest.raises(ValueError, match="unknown parameter 'learning_rat'; did you mean 'learning_rate'"):
        run_notebook("nbs/06_training_run.ipynb", "data/never.ipynb", {"learning_rat": "0.1"})
    assert not (ROOT / "data" / "never.ipynb").exists()


# --- What runs again --------------------------------------------------------------------------------------------------

RUN = "data/runs/smoke-miniature"
RUNS = {"06_training_run-1", "06_training_run-8", "06_training_run-1-seed2-published"}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    "A project whose notebooks only leave empty files behind, all of them done."
    folder = tmp_path_factory.mktemp("done")
    shutil.copy(ROOT / "Makefile", folder)
    for name in ("deepfake_nbs", ".ci"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for stem, path in PLACES.items():  # Code alone: stored outputs would be copied for each test
        place = folder / path.relative_to(ROOT)
        place.parent.mkdir(parents=True, exist_ok=True)
        cells = [{"cell_type": "code", "source": cell.source} for cell in code(NOTEBOOKS[stem])]
        place.write_text(json.dumps({"cells": cells}))
    fake = folder / "fake"
    fake.write_text('#!/bin/sh\nmkdir -p "$(dirname $2)"; sleep 0.02; touch $2; echo ran $(basename $2)\n')
    fake.chmod(0o755)
    (folder / "data" / "miniature" / "heads" / "Annotations").mkdir(parents=True)
    for name in ("cvcs_dfd", "cvcs_cropped_dfd"):
        (folder / RUN / name).mkdir(parents=True)
    for name in ("settings.json", "inputs.csv", "cvcs_dfd/dataset.json", "cvcs_cropped_dfd/dataset.json"):
        (folder / RUN / name).touch()
    for path in folder.rglob("*"):  # All inputs are older than all outputs
        os.utime(path, (1e9, 1e9))
    assert make(folder) == {*RESULTS, *RUNS} - {"06_training_run"}, "a page is in no report"
    assert make(folder, "library") == set(MODULES.values())
    return folder


@pytest.fixture
def project(done, tmp_path):
    "A copy of it, with the times of its files."
    return shutil.copytree(done, tmp_path / "project")


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


def touch(path):
    time.sleep(0.1)  # File times are coarse: the touch must not fall into the same tick as the last output
    os.utime(path)


NUMBERS = {"all_numbers", "conclusions", "index"}  # Of every page before them
PHOTOGRAPHS = {"07_our_faces", "08_demo", *NUMBERS}  # Of the networks of a run
RETRIEVED = {"03_image_retrieval", *PHOTOGRAPHS}
SHIPPED = "06b_photographs"  # It shows the networks of the package, through the module that measures them
AUDIT = {"06f_errors", "09a_defects", "09b_transfer", "09c_robustness", "09d_calibration", "09e_heatmaps"}
SHOWS_SHIPPED = {SHIPPED, "09b_transfer", "09d_calibration", "model_card"}
# One feature of retrieval is the classifier of page 06a, and the audit is of its runs
CHOSEN = {"06a_classifiers", "ethics", "reproduce_one_number", *RETRIEVED, *AUDIT}
COMPARED = {
    "06d_comparisons",
    "06e_report_reading",
}  # Of the same runs as page 06a, and of nothing that it left
NETWORKS = {"05_architectures", "06c_search", *SHOWS_SHIPPED, *RUNS, *COMPARED, *CHOSEN}


@pytest.mark.parametrize(
    "touched, expected",
    [
        # A module: the pages that import it, at whatever distance, and those that read what these pages left
        (
            "deepfake_nbs/application/pipeline.py",
            {"06f_errors", "09e_heatmaps", *SHOWS_SHIPPED, *PHOTOGRAPHS},
        ),
        ("deepfake_nbs/retrieval/index.py", RETRIEVED),
        ("deepfake_nbs/retrieval/report.py", RETRIEVED),
        ("deepfake_nbs/baselines/study.py", {"04_baselines", "06b_photographs", *CHOSEN}),
        ("deepfake_nbs/baselines/label_order.py", {"04_baselines", *CHOSEN}),
        ("deepfake_nbs/classifiers/training.py", NETWORKS),
        ("deepfake_nbs/classifiers/run_report.py", {*RUNS, *COMPARED, *CHOSEN}),
        (
            "deepfake_nbs/heads/training.py",
            {"02_head_detection", "06f_errors", "09e_heatmaps", *SHOWS_SHIPPED, *PHOTOGRAPHS},
        ),
        ("deepfake_nbs/heads/report.py", {"02_head_detection", *SHOWS_SHIPPED, *PHOTOGRAPHS}),
        ("deepfake_nbs/data/build.py", {"01_datasets", *NUMBERS}),
        # A notebook: it, and what reads what it left; the datasets themselves were found unchanged
        ("nbs/01_datasets.ipynb", {"01_datasets", *NUMBERS}),
        ("nbs/02_head_detection.ipynb", {"02_head_detection", "09b_transfer", *PHOTOGRAPHS}),
        ("nbs/06_training_run.ipynb", {*RUNS, *COMPARED, *CHOSEN}),
        ("nbs/06a_classifiers.ipynb", CHOSEN),
        ("nbs/06d_comparisons.ipynb", {"06d_comparisons", *NUMBERS}),
        ("nbs/06e_report_reading.ipynb", {"06e_report_reading", *NUMBERS}),
        ("nbs/06b_photographs.ipynb", {"06b_photographs"}),
        # A chapter of the library is read by no page: its module is, once it was exported
        ("nbs/library/40b_index.ipynb", set()),
        # What a run was given
        (f"{RUN}/inputs.csv", {"01_datasets", "02_head_detection", "09b_transfer", *RETRIEVED}),
        (
            f"{RUN}/settings.json",
            {
                "01_datasets",
                "02_head_detection",
                "04_baselines",
                "05_architectures",
                "06c_search",
                *RUNS,
                *COMPARED,
                *CHOSEN,
            },
        ),
        (f"{RUN}/cvcs_dfd/dataset.json", {"02_head_detection", "04_baselines", *RUNS, *COMPARED, *CHOSEN}),
        (f"{RUN}/cvcs_cropped_dfd/dataset.json", {"04_baselines", *RUNS, *COMPARED, *CHOSEN}),
    ],
)
def test_a_page_runs_again_when_what_it_uses_changed(project, touched, expected):
    touch(project / touched)
    assert make(project) == expected & {*RESULTS, *RUNS}
    assert make(project) == set()


def test_a_report_that_is_done_runs_nothing_again(project):
    assert make(project) == make(project, "library") == set()


@pytest.mark.parametrize(
    "touched, expected",
    [
        ("nbs/library/40b_index.ipynb", {"40b_index"}),
        ("deepfake_nbs/application/demo.py", {"70j_demo"}),
        (
            "deepfake_nbs/baselines/label_order.py",
            {"50e_label_order", "80a_defects", "80aa_defect_systems", "80ab_defect_study"},
        ),
        ("deepfake_nbs/heads/report.py", {"30g_report", "70ha_shipping", "70n_front"}),
    ],
)
def test_a_chapter_of_the_library_runs_again_when_what_it_uses_changed(project, touched, expected):
    touch(project / touched)
    assert make(project, "library") == expected
    assert make(project, "library") == set()


@pytest.mark.parametrize("module", ["data.build", "classifiers.training", "application.pipeline"])
def test_make_knows_every_module_that_a_module_loads(module):
    rules = subprocess.run(
        [sys.executable, ".ci/dependencies.py"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    chapter = f"$(DONE)/library/{MODULES[module]}.ipynb: "
    known = next(line for line in rules.splitlines() if line.startswith(chapter)).split()[1:]
    names = f"import sys, deepfake_nbs.{module}; print(*(n for n in sys.modules if n.startswith('deepfake_nbs.')))"
    done = subprocess.run([sys.executable, "-c", names], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = {f"{name.replace('.', '/')}.py" for name in done.stdout.split()}
    assert len(loaded) > 5 and {path for path in loaded if (ROOT / path).is_file()} <= set(known)


def test_an_interrupted_report_is_resumed(project):
    (project / f"{RUN}/nbs/06_training_run-8.ipynb").unlink()
    assert make(project) == ({"06_training_run-8", *COMPARED, *CHOSEN} & {*RESULTS, *RUNS})


def test_no_output_names_a_place_on_a_machine():
    for path in CHAPTERS:
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            shown = json.dumps(
                [output.get("data", output.get("text", "")) for output in cell.get("outputs", [])]
            )
            assert not re.search(r"PosixPath\('/|/(home|root|Users)/", shown), (
                f"{path.name}: {''.join(cell['source'])[:80]}"
            )
