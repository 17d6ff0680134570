"Contracts of runs: what makes two runs the same, what a folder holds, one process at a time, one line for a wrong value."

import json
from dataclasses import asdict, replace
from typing import Annotated

import pytest
from pydantic import Field

from deepfake_nbs import runs
from deepfake_nbs.core import file_sha256, write_json, write_text
from deepfake_nbs.runs import TrainingError, checked_dataclass, code_identity, differing_keys, find_existing_run, one_of, read_record

SOURCE = """
\"A module.\"
import os

class Net:
    \"A network.\"
    width = 2

    def forward(self, x):
        \"Twice.\"
        return f"{x * self.width:g}"

async def wait():
    \"Alone.\"
"""


@pytest.fixture
def identity_of(tmp_path, monkeypatch):
    "Code identity of a module with some text."
    package = tmp_path / "package"
    package.mkdir()
    monkeypatch.setattr(runs, "find_spec", lambda name: type("Spec", (), dict(origin=str(package / "code.py"))))

    def identity(text):
        write_text(package / "code.py", text)
        return code_identity(["code"])

    return identity


@pytest.mark.parametrize("old, new", [
    ("import os", "import os  # why"), ("A module.", "Another text."), ("Twice.", "Two times."), ("Alone.", "Nobody."),
    ("    width = 2", "\n\n    width = 2"), ("import os", "# %% ../nbs/x.ipynb #c001\nimport os")])
def test_comments_docstrings_and_layout_leave_a_run_the_same(identity_of, old, new):
    assert identity_of(SOURCE) == identity_of(SOURCE.replace(old, new))


@pytest.mark.parametrize("old, new", [
    ("width = 2", "width = 3"), ("x * self", "x + self"), (":g}", ":f}"), ("class Net", "class Network"), ("self, x", "self, x=1"),
    ("import os", "import os, sys"), ("async def", "def"), ("return", "y =")])
def test_other_code_is_another_run(identity_of, old, new):
    assert identity_of(SOURCE) != identity_of(SOURCE.replace(old, new))


def test_a_declared_module_must_exist():
    with pytest.raises(ModuleNotFoundError, match="deepfake_nbs.run: no such module; expected a name inside the package"):
        code_identity(["runs", "run"])
    assert code_identity(["runs", "core"]) != code_identity(["core", "runs"])


def test_a_constant_of_another_type_is_other_code(identity_of):
    assert len({identity_of(f"x = {value}") for value in ("1", "1.0", "True", "None", "'1'", "b'1'", "()", "[]", "-1")}) == 9


def test_differences_are_named_with_their_whole_key():
    ours, theirs = dict(seed=1, phase=dict(rate=0.1, epochs=2), data={}), dict(seed=1, phase=dict(rate=0.2, epochs=2), code="a")
    assert differing_keys(ours, theirs) == ["phase.rate (0.2, not 0.1)", "data (None, not {})", "code ('a', not None)"]


# --- what a folder holds ----------------------------------------------------------------------------------------------


@pytest.fixture
def finished(tmp_path):
    "A finished run of seed 1."
    for name in runs.RUN_FILES:
        write_text(tmp_path / "8" / name, "as trained")
    write_text(tmp_path / "8" / "notes.md", "mine")
    record = dict(identity=dict(seed=1), weights_sha256=file_sha256(tmp_path / "8/model/model.safetensors"))
    write_json(tmp_path / "8" / "run.json", record)
    return tmp_path / "8"


def test_a_finished_run_is_found_and_another_is_refused(finished):
    assert find_existing_run(finished, dict(seed=1)) == find_existing_run(finished, dict(seed=1), overwrite=True)
    with pytest.raises(TrainingError, match=r"8: holds another run, which differs in seed \(1, not 2\); make it again with `x`"):
        find_existing_run(finished, dict(seed=2), way_out="make it again with `x`")
    assert (finished / "run.json").is_file()
    assert find_existing_run(finished, dict(seed=2), overwrite=True) is None
    assert [path.name for path in finished.iterdir()] == ["notes.md"], "what is not ours stays"


@pytest.mark.parametrize("name", runs.RUN_FILES)
@pytest.mark.parametrize("change", [lambda path: path.unlink(), lambda path: path.write_text("changed")])
def test_a_run_without_its_files_or_with_other_weights_is_trained_again(finished, name, change):
    change(finished / name)
    whole = (finished / name).is_file() and name != "model/model.safetensors"
    assert (find_existing_run(finished, dict(seed=1)) is not None) == whole == (finished / "run.json").is_file()


def test_a_checkpoint_is_resumed_or_refused(tmp_path):
    write_json(tmp_path / "8/checkpoint-0002/state.json", dict(identity=dict(seed=1)))
    (tmp_path / "8/checkpoint-0003.partial").mkdir()
    (tmp_path / "8/.checkpoint-0003.building").mkdir()
    assert runs.latest_checkpoint(tmp_path / "8").name == "checkpoint-0002"
    assert find_existing_run(tmp_path / "8", dict(seed=1)) is None and runs.latest_checkpoint(tmp_path / "8")
    with pytest.raises(TrainingError, match="seed"):
        find_existing_run(tmp_path / "8", dict(seed=2))
    assert find_existing_run(tmp_path / "8", dict(seed=2), overwrite=True) is None and not (tmp_path / "8").exists()
    assert runs.latest_checkpoint(tmp_path / "nowhere") is None


@pytest.mark.parametrize("text", ["{", "[]", "null", ""])
def test_a_strange_record_is_named(finished, text):
    (finished / "run.json").write_text(text)
    with pytest.raises(TrainingError, match="run.json: not the record of a run"):
        read_record(finished)


def test_a_missing_record_is_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="run.json: train it first"):
        read_record(tmp_path, "train it first")


def test_runs_of_an_older_version_still_open(root):
    folder = root / "data/runs/smoke-miniature/training"
    names = [path.parent for path in folder.glob("*/run.json")]
    if not names:
        pytest.skip("no finished run on this machine")
    assert all(json.dumps(runs.read_run(path)) for path in names)


# --- configurations ---------------------------------------------------------------------------------------------------


@checked_dataclass
class Part:
    rate: float = Field(0.1, gt=0, lt=1)


@checked_dataclass
class Config:
    epochs: int = Field(3, ge=1)
    name: Annotated[str, one_of(("adam", "adamw"))] = "adam"
    part: Part = Part()
    size: int | None = None

    def __post_init__(self):
        if self.epochs == 7:
            raise ValueError("epochs is 7, and name says nothing")


@pytest.mark.parametrize("values, message", [
    (dict(epochs=0), "epochs is 0, expected at least 1"), (dict(epochs=2.5), "epochs is 2.5, expected int"),
    (dict(epochs=True), "epochs is True, expected int"), (dict(name="sgd"), "unknown name 'sgd', expected one of adam, adamw"),
    (dict(name=3), "name is 3, expected str"), (dict(epochs=7), "epochs is 7, and name says nothing"),
    (dict(epochs=float("nan")), "epochs is nan, expected int")])
def test_a_wrong_value_is_one_line(values, message):
    with pytest.raises(ValueError) as error:
        Config(**values)
    assert str(error.value) == message


def test_a_limit_with_two_ends_is_said_whole():
    for value in (0, 1.0, float("nan")):
        with pytest.raises(ValueError, match=f"rate is {value}, expected more than 0 and less than 1"):
            Part(rate=value)


def test_a_configuration_is_frozen_and_comes_back(tmp_path):
    config = Config(epochs=2, part=Part(rate=0.5))
    with pytest.raises(AttributeError):
        config.epochs = 3
    assert asdict(config) == dict(epochs=2, name="adam", part=dict(rate=0.5), size=None) and replace(config, epochs=2) == config
    assert json.loads(write_json(tmp_path / "c.json", config).read_text()) == asdict(config)
