"Settings, seeds and what every command leans on."
import json
import subprocess
import sys
from dataclasses import replace
import numpy as np
import pytest
from deepfake_nbs import core
from deepfake_nbs.core import read_settings


@pytest.mark.parametrize("profile", ["smoke", "mini", "full"])
def test_every_profile_reads(profile):
    settings = read_settings(profile)
    assert settings.name == profile and sum(settings.fractions) == pytest.approx(1) and settings.rows


def test_runs_are_rows_and_pairs_on_both_splits():
    settings = replace(read_settings("mini"), rows=(1, 3), protocol_rows=(1, 3), protocol_seeds=(2, 42), schedule_rows=(3,))
    assert settings.runs == ["1", "3", "1-published", "3-published", "1-seed2", "1-seed2-published", "3-cosine"]
    assert replace(settings, protocol_rows=(), schedule_rows=()).runs == ["1", "3"]


@pytest.mark.parametrize(
    "old, new, words",
    [
        ("image_limit = 600", "image_limt = 600", ["image_limt", "did you mean 'image_limit'"]),
        ("image_limit = 600", "image_limit = 4.5", ["image_limit = '4.5'", "expected int"]),
        ("\nrows = 1 2", "\nrows = one two", ["rows = 'one two", "expected"]),
        ("protocol_rows = 8", "protocol_rows = 12", ["protocol_rows is (12,)", "expected some of rows"]),
        ("schedule_rows = 8", "schedule_rows = 12", ["schedule_rows is (12,)", "expected some of rows"]),
        ("balance = false", "balance = perhaps", ["balance = 'perhaps'", "expected bool"]),
        ("train_fraction = 0.70", "train_fraction = 0.90", ["fractions", "add up to 1"]),
        ("train_fraction = 0.70", "train_fraction = nan", ["fractions", "add up to 1"]),
        ("split_protocol = group", "split_protocol = frames", ["split_protocol", "'group' or 'published'"]),
        ("seed = 42", "", ["'seed' is missing"]),
        ("width = 0.25", "width = 0", ["width is 0", "above 0"]),
        ("epoch_limit = 3", "epoch_limit = -1", ["epoch_limit is -1", "0 or more"]),
    ],
)
def test_bad_settings_name_the_key(tmp_path, root, old, new, words):
    text = (root / "settings.ini").read_text()
    assert old in text
    (tmp_path / "settings.ini").write_text(text.replace(old, new, 1) if "seed" not in old else text.replace(old, new))
    with pytest.raises(ValueError) as error:
        read_settings("smoke", tmp_path / "settings.ini")
    assert all(word in str(error.value) for word in words) and "settings.ini" in str(error.value)


def test_unknown_profile_and_missing_file(tmp_path):
    with pytest.raises(ValueError, match="did you mean 'mini'"):
        read_settings("minni")
    with pytest.raises(FileNotFoundError, match="nothing.ini"):
        read_settings("smoke", tmp_path / "nothing.ini")


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
    "Judging a photograph must not wait for libraries that it does not use."
    heavy = {"torch", "pandas", "matplotlib", "sklearn", "fastai", "papermill"}
    code = f"import sys, deepfake_nbs.core; print(sorted({heavy!r} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
