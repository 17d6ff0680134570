"Settings, seeds and what every command leans on."

import json
import subprocess
import sys
import numpy as np
import pytest
from deepfake_nbs import core


def test_root_is_found_from_below_and_from_elsewhere(root, monkeypatch, tmp_path):
    for place in (root / "nbs", root, tmp_path):
        monkeypatch.chdir(place)
        assert core.project_root() == root
    assert core.resolve("../x") == root.parent / "x" and core.resolve(tmp_path) == tmp_path


def test_seed_gives_the_same_numbers():
    import random

    import torch

    def draw():
        core.set_seed(7)
        return random.random(), np.random.rand(), torch.rand(1).item()

    assert draw() == draw()


def test_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    path = core.write_text(tmp_path / "a" / "x.txt", "old")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(core.os, "replace", fail)
    with pytest.raises(OSError, match="No space"):
        core.write_text(path, "new")
    assert path.read_text() == "old" and [entry.name for entry in path.parent.iterdir()] == ["x.txt"]


def test_run_record_is_whole(tmp_path):
    manifest = core.write_text(tmp_path / "manifest.csv", "path\n")
    record = core.run_record({"row": 8}, seed=3, manifest=manifest, wall_seconds=1.5)
    assert record["manifest_sha256"] == core.file_sha256(manifest) and record["weights_sha256"] is None
    assert record["wall_seconds"] == 1.5 and record["versions"]["torch"] and isinstance(record["dirty"], bool)
    json.loads(core.write_json(tmp_path / "run.json", record).read_text())
    assert core.caption_line(record).startswith("run 8, commit ")
    line = core.caption_line(record)
    assert core.caption_line(record | {"note": ""}) == line
    assert core.caption_line(record | {"note": "no ImageNet weights"}) == f"{line}; no ImageNet weights"


def test_core_starts_fast():
    "Classifying a photograph must not wait for libraries that it does not use."
    heavy = {"torch", "pandas", "matplotlib", "sklearn", "fastai", "papermill"}
    code = f"import sys, deepfake_nbs.core; print(sorted({heavy!r} & set(sys.modules)))"
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.strip()
        == "[]"
    )
