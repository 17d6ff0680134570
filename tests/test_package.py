"The package's front door: a few public names, each loaded when it is asked for."

import importlib
import subprocess
import sys

import pytest

import deepfake_nbs


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
