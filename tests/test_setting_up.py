"Setting up, names of folders, the hook for notebooks, and what `make` says: in copies of the project with stand-ins for python and pip."

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parent.parent


def script(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


INSIDE = r"""
case "$1 $2" in
"-c import"*) exit 0 ;;
"-m pip") echo "pip $*" >> "$LOG"; test -z "$FAIL" || { echo "no space" >&2; exit 1; } ;;
*) exec "$REAL" "$@" ;;
esac"""
OUTSIDE = r"""
case "$1 $2" in
"-m venv") echo "venv $*" >> "$LOG"; mkdir -p "$3/bin"; cp "$STANDIN" "$3/bin/python" ;;
*) exec "$REAL" "$@" ;;
esac"""


class Project:
    "A copy of what set-up needs, in a folder whose name has a blank, with a python and a pip that only write down what they were asked."

    def __init__(self, folder):
        self.folder, self.log = folder / "my project", folder / "log"
        self.folder.mkdir()
        for name in ("Makefile", "requirements.lock", "pyproject.toml", "settings.ini"):
            shutil.copy(ROOT / name, self.folder)
        shutil.copytree(ROOT / ".ci", self.folder / ".ci")
        self.python, self.inside = (
            script(folder / "stand ins" / "python3", OUTSIDE),
            script(folder / "stand ins" / "inside", INSIDE),
        )

    def make(self, *words, **environment):
        self.log.unlink(missing_ok=True)
        more = dict(LOG=str(self.log), REAL=sys.executable, STANDIN=str(self.inside), FAIL="") | environment
        command = ["make", *words, f"PYTHON={self.python}"]
        done = subprocess.run(
            command, cwd=self.folder, capture_output=True, text=True, env=os.environ | more, check=False
        )
        self.calls = self.log.read_text().splitlines() if self.log.exists() else []
        return done

    @property
    def mark(self):
        return self.folder / ".venv" / "ready"


@pytest.fixture
def project(tmp_path):
    return Project(tmp_path)


@pytest.fixture
def full(project):
    "With the notebooks and their modules."
    for name in ("nbs", "deepfake_nbs"):
        shutil.copytree(ROOT / name, project.folder / name)
    return project


def kinds(calls):
    return [re.sub(r".*(venv|--require-hashes|--editable).*", r"\1", call) for call in calls]


ALL = ["venv", "--require-hashes", "--editable"]


def test_the_environment_is_made_once_and_follows_the_content_of_the_lock(project):
    done = project.make("setup")
    assert done.returncode == 0 and kinds(project.calls) == ALL, done.stderr
    assert not any("--clear" in call for call in project.calls)
    own = project.folder / ".venv" / "lib" / "mine.txt"
    own.parent.mkdir()
    own.write_text("kept")
    done = project.make("setup")
    assert done.stdout == done.stderr == "" and project.calls == []
    for name in (
        "requirements.lock",
        "pyproject.toml",
    ):  # As after a checkout of another commit with the same lock
        os.utime(project.folder / name)
    assert project.make("setup").returncode == 0 and project.calls == []
    with open(project.folder / "pyproject.toml", "a") as file:
        file.write("\n# changed\n")
    project.make("setup")
    assert kinds(project.calls) == ["--editable"]
    with open(project.folder / "requirements.lock", "a") as file:
        file.write("\n# changed\n")
    done = project.make("setup")
    assert (
        kinds(project.calls) == ["--require-hashes", "--editable"] and "not downloaded again" in done.stdout
    )
    assert own.read_text() == "kept"


def test_a_set_up_that_failed_goes_on(project):
    done = project.make("setup", FAIL="yes")
    assert done.returncode and "goes on from here" in done.stderr and "Traceback" not in done.stderr
    half = project.folder / ".venv" / "lib" / "python3.11" / "site-packages"
    for name, files in {
        "whole-1.dist-info": ("METADATA", "RECORD"),
        "cut-1.dist-info": ("METADATA",),
    }.items():
        (half / name).mkdir(parents=True)
        for file in files:
            (half / name / file).touch()
    done = project.make("setup")
    assert done.returncode == 0 and kinds(project.calls) == ALL[1:]  # The environment itself was there
    assert [path.name for path in half.iterdir()] == [
        "whole-1.dist-info"
    ]  # pip would have taken the other for installed
    project.make("setup")
    assert project.calls == []


def test_an_environment_of_somebody_else_is_left_alone(project):
    own = project.folder / ".venv" / "bin" / "python"
    own.parent.mkdir(parents=True)
    own.write_text("mine")
    for command in ("setup", "test", "lab", "keep"):
        done = project.make(command)
        assert done.returncode and project.calls == [] and own.read_text() == "mine"
        assert done.stderr.startswith(".venv was not made by this project and is left as it is; move it away")
    project.mark.touch()  # As the sentence says; an older version of this project left an empty one too
    script(own, INSIDE)
    assert project.make("setup").returncode == 0 and kinds(project.calls) == ALL[1:]


def test_a_link_is_followed_and_never_emptied(project, tmp_path):
    link, place = project.folder / ".venv", tmp_path / "elsewhere"
    link.symlink_to(place)
    done = project.make("setup")
    assert (
        done.returncode
        and "is a link to" in done.stderr
        and "does not exist" in done.stderr
        and project.calls == []
    )
    place.mkdir()
    assert project.make("setup").returncode == 0 and kinds(project.calls) == ALL and link.is_symlink()
    (place / "foreign.txt").write_text("kept")
    (project.folder / "requirements.lock").write_text("# another\n")
    assert project.make("setup").returncode == 0 and kinds(project.calls) == ALL[1:]
    assert (place / "foreign.txt").read_text() == "kept" and link.is_symlink()
    project.mark.unlink()
    assert (
        project.make("setup").returncode
        and project.calls == []
        and (place / "foreign.txt").read_text() == "kept"
    )


def test_a_python_that_is_gone_is_replaced(project):
    project.make("setup")
    (project.folder / ".venv" / "bin" / "python").unlink()
    assert project.make("setup").returncode == 0 and kinds(project.calls) == ALL


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_set_up_that_is_stopped_says_so_in_one_line_and_goes_on(project, number):
    script(project.inside, 'case "$2" in pip) exec sleep 600 ;; esac')
    environment = os.environ | dict(
        LOG=str(project.log), REAL=sys.executable, STANDIN=str(project.inside), FAIL=""
    )
    process = subprocess.Popen(
        ["make", "setup", f"PYTHON={project.python}"],
        cwd=project.folder,
        text=True,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout.readline().startswith("Setting up .venv")
    while (
        process.poll() is None and not project.mark.exists()
    ):  # Before, there is nothing that could be half made
        pass
    (os.killpg if number == signal.SIGINT else os.kill)(
        process.pid, number
    )  # A terminal asks all of them, `kill` make alone
    said = process.communicate(timeout=60)[1].splitlines()
    assert said[0] == "Setting up .venv was stopped; the next make goes on from here" and all(
        "make: ***" in line for line in said[1:]
    )
    assert (
        project.mark.read_text() in ("", "unfinished yes\n")
        and not (project.folder / ".venv" / "lib").exists()
    )
    script(project.inside, INSIDE)
    script(project.folder / ".venv" / "bin" / "python", INSIDE)
    assert project.make("setup").returncode == 0 and kinds(project.calls)[-2:] == ALL[1:]


def test_a_set_up_that_was_stopped_before_its_mark_had_a_name_is_ours(project):
    (project.folder / ".venv").mkdir()
    (project.folder / ".venv" / ".ready-new").write_text("unfinished y")
    assert project.make("setup").returncode == 0 and kinds(project.calls) == ALL


# --- Names of folders -------------------------------------------------------------------------------------------------

COMMANDS = ["report", "bench", "demo", "keep", "publish", "help"]


@pytest.mark.parametrize("sign", [" ", "\t", *"$%:;=#[](){}&|<>*?!'\"`\\^"])
def test_a_folder_that_make_cannot_name_is_refused_by_every_command_alike(project, sign):
    said = set()
    for command in COMMANDS:
        done = project.make(command, f"DATA=/sets/a{sign}b")
        assert done.returncode == 2 and done.stdout == "" and project.calls == []
        said.add(done.stderr)
    shown = "a blank" if sign.isspace() else sign
    assert (
        len(said) == 1
        and f"DATA holds {shown}, which make cannot handle; expected a folder, or a symbolic link"
        in said.pop()
    )


NAMES = {
    "data/miniature": "miniature",
    "./data/../data/miniature/": "miniature",
    "../sets/größe-1.2_x+y@z,w~": "größe-1.2_x+y@z,w~",
    "/sets/写真": "写真",
    "data": "data",
}


@pytest.mark.parametrize("data", NAMES)
def test_the_run_is_named_as_the_package_names_it(full, data):
    from deepfake_nbs.core import run_folder

    name = NAMES[data]
    said = full.make("-n", "pages", f"DATA={data}").stdout
    known_as = "data/miniature" if name == "miniature" else data
    assert f" data/runs/smoke-{name}/nbs/index.ipynb -p profile smoke -p data {known_as}\n" in said
    assert run_folder("smoke", data).name == f"smoke-{name}"


def test_the_project_may_lie_in_a_folder_with_a_blank_but_its_name_names_no_run(project):
    done = project.make("-n", "-o", "setup", "pages", "DATA=.")
    assert (
        done.returncode == 2
        and "DATA is the folder 'my project', a name that make cannot handle" in done.stderr
    )


# --- What make says ---------------------------------------------------------------------------------------------------


def test_a_newcomer_can_ask_what_a_report_would_do(full):
    done = full.make("-n", "report")
    assert done.returncode == 0 and done.stderr == "", done.stderr
    pages = re.findall(r"^\.venv/bin/deepfake-nbs run nbs/(\S+)\.ipynb", done.stdout, re.M)
    assert pages[0] == "01_datasets" and pages[-1] == "index" and len(pages) == len(set(pages))
    assert not (full.folder / ".venv").exists()


def test_a_report_hands_its_plan_to_its_pages(full):
    plan = '$(echo $DEEPFAKE_NBS_PLAN | wc -w): $(echo $DEEPFAKE_NBS_PLAN | cut -d" " -f1)'
    script(full.folder / "fake", f'mkdir -p "$(dirname $2)"; touch $2; echo "$2 of {plan}"')
    run = full.folder / "data" / "runs" / "smoke-miniature"
    (run / "cvcs_dfd").mkdir(parents=True)
    for name in ("settings.json", "inputs.csv", "cvcs_dfd/dataset.json"):
        (run / name).touch()
    for path in full.folder.rglob("*"):  # All inputs are older than all outputs
        os.utime(path, (1e9, 1e9))
    script(
        full.folder / ".venv/bin/python",
        'case "$2" in *findings*) echo "Leakage: none" ;; *s.runs*) ;; *runs*) echo 1 8-published ;; esac',
    )
    command = ["-o", "setup", "-o", "prepare", "report", "RUNNER=./fake"]
    lines = full.make(*command).stdout.splitlines()
    ran = [line for line in lines if ".ipynb of " in line]
    first = "data/runs/smoke-miniature/nbs/01_datasets.ipynb"
    assert ran[0] == f"{first} of {len(ran)}: {first}" and len(ran) == len(set(ran))
    with_code = [page for page in (ROOT / "nbs").glob("*.ipynb") if '"cell_type": "code"' in page.read_text()]
    assert len(ran) == len(with_code), "no heads, so one page less; one page runs twice"
    assert sum("06_training_run" in line for line in ran) == 2
    assert "Leakage: none" in lines[lines.index(ran[-1]) :] and "Done: data/runs/smoke-miniature" in lines[-5]
    (run / "nbs" / "08_demo.ipynb").unlink()
    again = [line for line in full.make(*command).stdout.splitlines() if ".ipynb of " in line]
    assert [line.partition(" of ")[0].rpartition("/")[2] for line in again] == ["08_demo.ipynb"]


def test_lab_opens_the_front_page_anywhere(project):
    def lab(**environment):
        clean = dict(DISPLAY="", WAYLAND_DISPLAY="", BROWSER="") | environment
        return project.make("-n", "-o", "setup", "lab", **clean).stdout

    assert "--LabApp.default_url=/lab/tree/nbs/index.ipynb" in lab() and "--no-browser" in lab()
    assert "--no-browser" not in lab(DISPLAY=":0")
    assert ("--allow-root" in lab()) == (os.getuid() == 0)


def test_saving_a_page_that_was_only_looked_at_changes_nothing(tmp_path):
    "`make lab` gives JupyterLab this hook; what it adds to a notebook is gone before the file is written."
    from nbdev.clean import clean_jupyter

    assert "--ContentsManager.pre_save_hook=nbdev.clean.clean_jupyter" in (ROOT / "Makefile").read_text()
    for path in sorted((ROOT / "nbs").glob("*.ipynb")):
        page = nbformat.read(path, 4)
        page.metadata.kernelspec["display_name"] = "Python 3 (ipykernel)"
        page.metadata["language_info"] = dict(name="python", version="3.12.1", file_extension=".py")
        for cell in page.cells:
            cell.metadata["trusted"] = True
        clean_jupyter(path=str(path), model=dict(type="notebook", content=page))
        assert json.loads(nbformat.writes(page)) == json.loads(path.read_text(encoding="utf-8")), path.name


def test_the_hook_cleans_what_is_committed_and_no_more(tmp_path):
    def git(*words):
        hooked = [
            "git",
            "-c",
            "user.name=a",
            "-c",
            "user.email=a@b.example",
            "-c",
            "core.hooksPath=.githooks",
            *words,
        ]
        return subprocess.run(hooked, cwd=tmp_path, capture_output=True, text=True, check=True).stdout

    shutil.copytree(ROOT / ".githooks", tmp_path / ".githooks")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    script(tmp_path / ".venv/bin/nbdev-clean", f'exec "{Path(sys.executable).with_name("nbdev-clean")}" "$@"')
    (tmp_path / "nbs").mkdir()
    for name in ("ethics", "library/00c_files"):
        shutil.copy(ROOT / "nbs" / f"{name}.ipynb", tmp_path / "nbs")
    (tmp_path / ".gitignore").write_text(".venv\n")
    git("init", "-q", ".")
    git("add", "-A")
    git("commit", "-qm", "first")
    page = tmp_path / "nbs" / "ethics.ipynb"
    edited = page.read_text().replace("# Ethics and terms", "# Ethics")
    page.write_text(edited.replace('"display_name": "python3"', '"display_name": "Python 3 (ipykernel)"'))
    git("add", "-A")
    git("commit", "-qm", "second")
    assert "ipykernel" not in page.read_text() and "# Ethics\\n" in page.read_text()
    assert (
        git("status", "--porcelain") == "" and git("show", "--stat", "--format=", "HEAD").count("ipynb") == 1
    )


# --- What the README says ---------------------------------------------------------------------------------------------


def test_the_readme_names_commands_and_files_that_exist():
    page = "\n".join(cell.source for cell in nbformat.read(ROOT / "nbs" / "using.ipynb", 4).cells)
    text = (ROOT / "README.md").read_text() + (ROOT / "CONTRIBUTING.md").read_text() + page
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
    assert set(re.findall(r"\bmake ([a-z]+)", text)) - {"the"} <= targets
    for name in re.findall(r"nbs/([\w/]+)\.ipynb", text):
        assert (ROOT / "nbs" / f"{name}.ipynb").is_file()
    assert "papermill nbs/" not in text, (
        "papermill only prints a notice when a parameter is misspelt; the runner refuses it"
    )
    commands = re.findall(r"deepfake-nbs run (nbs/\S+) \S+((?:\s+\\?\s*-p \w+ \S+)+)", text)
    assert commands
    for command in commands:
        cells = nbformat.read(ROOT / command[0], 4).cells
        known = next(cell.source for cell in cells if "parameters" in cell.metadata.get("tags", []))
        assert all(re.search(rf"^{name}:", known, re.M) for name in re.findall(r"-p (\w+)", command[1]))


def test_the_size_of_the_environment_is_what_the_readme_says():
    said = int(re.search(r"(\d+) GB on disk", (ROOT / "README.md").read_text())[1])
    assert f"{said} GB on disk" in (ROOT / ".ci" / "environment.py").read_text()
    site = Path(nbformat.__file__).parent.parent
    size = sum(path.lstat().st_size for path in site.rglob("*") if not path.is_dir())
    if not (site / "nvidia").is_dir():
        pytest.skip(
            "the libraries for GPUs are not installed here: the environment is smaller than the README says"
        )
    assert said * 0.75 < size / 1e9 < said * 1.15
