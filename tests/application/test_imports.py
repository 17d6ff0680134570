"What is loaded when: a photograph is checked without fastai, scikit-learn, pandas or matplotlib, and help without torch."

import subprocess
import sys

import pytest
from helpers.timm_run import timm_run
from PIL import Image

from deepfake_nbs.application.models import untrained_run

HEAVY = {
    "fastai",
    "sklearn",
    "matplotlib",
    "pandas",
    "papermill",
    "faiss",
    "ipywidgets",
    "cv2",
    "rich",
    "pydantic.dataclasses",
}


def loaded(code, among):
    "Which of some modules a new process has loaded after this code."
    code = f"import sys\n{code}\nprint(*sorted({among!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


MODULES = "pipeline gallery portable shipped shipping examples demo report checking cli".split()
FORKS = """
import os, sys, torch, torchvision
for name in {names!r}:
    sys.stdout.flush()
    if not os.fork():
        __import__(f"deepfake_nbs.application.{{name}}")
        print(name, *sorted({among!r} & set(sys.modules)), flush=True)
        os._exit(0)
    os.wait()
"""


@pytest.fixture(scope="module")
def loaded_by():
    "What each module loads beside torch and torchvision, which are loaded once, and the process divided then."
    code = FORKS.format(names=MODULES, among=HEAVY | {"timm"})
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {line.split()[0]: set(line.split()[1:]) for line in done.stdout.splitlines()}


@pytest.mark.parametrize("module", MODULES)
def test_starting_the_application_imports_nothing_heavy(loaded_by, module):
    assert loaded_by[module] == set()


def test_checking_a_photograph_loads_nothing_heavy(tmp_path):
    run, photo = untrained_run(tmp_path / "run"), tmp_path / "a.png"
    Image.new("RGB", (40, 30), "tan").save(photo)
    words = ["check", str(photo), "--run", str(run)]
    assert (
        loaded(
            f"from deepfake_nbs.application.cli import app\napp({words!r}, standalone_mode=False)",
            HEAVY | {"timm"},
        )
        == set()
    )


def test_a_network_of_timm_loads_timm_and_nothing_else_that_is_heavy(tmp_path):
    run, photo = timm_run(tmp_path / "run"), tmp_path / "a.png"
    Image.new("RGB", (40, 30), "tan").save(photo)
    words = ["check", str(photo), "--run", str(run)]
    code = f"from deepfake_nbs.application.cli import app\napp({words!r}, standalone_mode=False)"
    assert loaded(code, HEAVY | {"timm"}) == {"timm"}


def test_help_and_pages_do_not_wait_for_torch():
    among = HEAVY | {"torch", "torchvision"}
    assert (
        loaded(
            "from deepfake_nbs.application.cli import app\napp(['check', '--help'], standalone_mode=False)",
            among,
        )
        == set()
    )
    version = "from deepfake_nbs.application.cli import app\napp(['--version'], standalone_mode=False)"
    assert loaded(version, among) == set()
