"The package's front door: a few public names, each loaded when it is asked for."

import importlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from helpers.timm_run import shipped_like
from PIL import Image

import deepfake_nbs
from deepfake_nbs.application.shipped import shipped_folder

WEIGHTS = "deepfake_nbs/weights/photographs"


@pytest.mark.parametrize("name", deepfake_nbs._PUBLIC)
def test_a_public_name_is_that_of_its_module(name):
    module = importlib.import_module(f"deepfake_nbs.{deepfake_nbs._PUBLIC[name]}")
    assert getattr(deepfake_nbs, name) is getattr(module, name) and name in dir(deepfake_nbs)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'pipeline'"):
        _ = deepfake_nbs.pipeline


def test_importing_the_package_loads_nothing_heavy():
    code = (
        "import sys, deepfake_nbs; print(deepfake_nbs.__version__);"
        "print(sorted({'torch', 'numpy', 'pandas', 'fastai'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[1] == "[]" and done.stdout.startswith(deepfake_nbs.__version__)


@pytest.fixture(scope="module")
def wheel(root, tmp_path_factory):
    "A wheel of this package, with the networks that it ships, or with networks of their form that learned nothing."
    source = tmp_path_factory.mktemp("source")
    left_out = shutil.ignore_patterns("__pycache__", ".*")
    shutil.copytree(root / "deepfake_nbs", source / "deepfake_nbs", ignore=left_out)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(root / name, source)
    if not (shipped_folder() / "files.csv").is_file():
        shipped_like(source / "networks")
        shutil.rmtree(source / WEIGHTS, ignore_errors=True)
        shutil.move(source / "networks", source / WEIGHTS)
        shutil.rmtree(source / "networks-run")
    build = ["-m", "pip", "wheel", ".", "--no-deps", "--no-build-isolation", "--quiet", "--wheel-dir", "dist"]
    done = subprocess.run([sys.executable, *build], cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = (source / "dist").glob("*.whl")
    return source, built


def test_a_wheel_carries_the_networks_and_the_code_alone(wheel):
    source, built = wheel
    names = set(zipfile.ZipFile(built).namelist())
    folder = source / WEIGHTS
    files = {path.relative_to(source).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert f"{WEIGHTS}/models/classifier/model.safetensors" in files and files <= names
    assert "deepfake_nbs/py.typed" in names
    tops = {name.partition("/")[0] for name in names}
    assert tops == {"deepfake_nbs", f"deepfake_nbs-{deepfake_nbs.__version__}.dist-info"}


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    "A folder that holds what a wheel installs, and nothing of the project."
    place = tmp_path_factory.mktemp("installed")
    words = ["-m", "pip", "install", "--no-deps", "--quiet", "--target", str(place), str(wheel[1])]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return place


def check_with(installed, folder, *words):
    "Run `check` with the package as it was installed, in a folder that is no project."
    code = "import sys, deepfake_nbs.commands as c; print(c.__file__, file=sys.stderr); c.main()"
    environment = {key: value for key, value in os.environ.items() if not key.startswith("DEEPFAKE_NBS")}
    environment |= {"PYTHONPATH": str(installed)}
    command = [sys.executable, "-c", code, "check", *map(str, words)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    first, *said = done.stderr.splitlines()
    assert Path(first).is_relative_to(installed)
    return done.returncode, done.stdout, said


@pytest.fixture
def portrait(tmp_path):
    Image.effect_noise((120, 90), 60).convert("RGB").save(tmp_path / "photo.jpg")
    return tmp_path / "photo.jpg"


def test_an_installed_wheel_checks_a_photograph(installed, portrait):
    code, printed, said = check_with(installed, portrait.parent, portrait, "--whole", "--json")
    assert code == 0 and len(said) == 1 and "shipped networks" in said[0], said
    assert json.loads(printed)["verdict"] in ("real", "fake", "unsure")


def test_a_wheel_without_its_networks_says_so_in_one_line(installed, portrait, tmp_path):
    place = shutil.copytree(installed, tmp_path / "without")
    shutil.rmtree(place / "deepfake_nbs/weights")
    code, printed, said = check_with(place, portrait.parent, portrait)
    assert code == 2 and len(said) == 1 and "weights/photographs: holds no networks" in said[0], said
    assert "--run" in said[0]
