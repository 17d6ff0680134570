"Finding, checking and loading the networks of a run."

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from deepfake_nbs.application import models, shipped
from deepfake_nbs.application.cli import app
from deepfake_nbs.application.models import CLASSIFIER, find_run, fold_batch_norms, name_run, untrained_run
from deepfake_nbs.application.pipeline import Pipeline
from deepfake_nbs.application.portable import export_portable
from deepfake_nbs.core import write_json
from deepfake_nbs.checkpoints import save_weights
from deepfake_nbs.heads.detector import DETECTOR
from deepfake_nbs.heads.network import EfficientDet
from deepfake_nbs.classifiers.xception import create_model


def invoke(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def test_runs_of_ours_are_not_called_the_reports(tmp_path, photos):
    assert name_run(9) == "run 9 of Table 1" and name_run(10) == "run 10, which is ours"
    run = untrained_run(tmp_path, row=8)
    assert "run 8 of Table 1, trained on" in invoke("check", sorted(photos.iterdir())[0], "--run", run).stdout


def test_threshold_of_the_model_decides(tmp_path, photos):
    first = sorted(photos.iterdir())[0]
    for threshold, verdict in ((0.0, "fake"), (1.01, "real")):
        answer = Pipeline.load(
            untrained_run(tmp_path / verdict, head_threshold=None, crop=False, threshold=threshold)
        ).check(first)
        assert (
            answer.verdict == verdict
            and answer.thresholds.fake_above == threshold
            and answer.region == "whole image"
        )
        assert "heads were not looked for" in answer.notes[0]


def test_broken_models_are_named(tmp_path, photos):
    cut = untrained_run(tmp_path / "cut")
    weights = cut / CLASSIFIER / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    other = untrained_run(tmp_path / "other", net="midway")
    bare = untrained_run(tmp_path / "bare")
    (bare / CLASSIFIER / "model.safetensors").unlink()
    for run in (cut, other, bare):
        result = invoke("check", photos, "--run", run)
        assert result.exit_code == 2 and "model.safetensors" in result.stderr, (run.name, result.output)


def test_the_newest_run_is_taken_where_no_networks_are_shipped(tmp_path, monkeypatch, root):
    monkeypatch.delenv("DEEPFAKE_NBS_RUN", raising=False)
    monkeypatch.setattr(shipped, "shipped_folder", lambda: tmp_path / "weights")
    (tmp_path / "settings.ini").write_text((root / "settings.ini").read_text())
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="make report"):
        find_run()
    for age, name in ((100, "smoke-new"), (5000, "smoke-old")):
        made = untrained_run(tmp_path / "data" / "runs" / name) / CLASSIFIER / "config.json"
        os.utime(made, (made.stat().st_mtime - age,) * 2)
    assert find_run().name == "smoke-new"


def test_run_folder_counts_from_where_one_stands(tmp_path, photos, monkeypatch):
    untrained_run(tmp_path / "mine")
    monkeypatch.chdir(tmp_path)
    assert find_run("mine") == tmp_path / "mine"
    with pytest.raises(FileNotFoundError, match="yours"):
        find_run("yours")


@pytest.mark.parametrize(
    "change", [{"width": "a"}, {"threshold": "0.5"}, {"image_size": True}, {"net": None}, {"mean": 0.5}]
)
def test_a_broken_configuration_names_its_key(tmp_path, photos, change):
    result = invoke("check", photos, "--run", untrained_run(tmp_path / "run", **change))
    key = next(iter(change))
    assert result.exit_code == 2 and f"{key} is" in result.stderr and "config.json" in result.stderr


@pytest.mark.parametrize(
    "change",
    [
        {"image_size": 0},
        {"mean": [0.5, 0.5]},
        {"mean": [0.5, "x", 0.5]},
        {"std": [0.5, 0.0, 0.5]},
        {"n_classes": 3},
        {"threshold": np.nan},
    ],
)
def test_numbers_that_no_network_could_work_with_name_their_key(tmp_path, photos, change):
    run, key = untrained_run(tmp_path / "run", **change), next(iter(change))
    if key == "n_classes":
        save_weights(create_model("light", width=0.1, n_classes=3), run / CLASSIFIER / "model.safetensors")
    result = invoke("check", photos, "--run", run)
    assert (
        result.exit_code == 2
        and f"config.json: {key} is" in result.stderr
        and "Traceback" not in result.output
    )


@pytest.mark.parametrize(
    "name, content, words",
    [
        ("cvcs_cropped_dfd/dataset.json", {"plan": "x"}, "plan is 'x'; expected an object"),
        *(
            ("cvcs_cropped_dfd/dataset.json", {"plan": {"margin": bad}}, f"margin is {bad!r}")
            for bad in (None, "wide", -3)
        ),
        ("preprocessing.json", {"margin": [0.2]}, "margin is [0.2]"),
    ],
)
def test_a_broken_margin_is_named(tmp_path, photos, name, content, words):
    run = untrained_run(tmp_path)
    write_json(run / name, content)
    result = invoke("check", photos, "--run", run)
    assert result.exit_code == 2 and f"{name}: {words}" in result.stderr and "Traceback" not in result.output


def test_a_missing_or_cut_detector_is_named(tmp_path, photos):
    for name, spoil in (
        ("gone", Path.unlink),
        ("cut", lambda path: path.write_bytes(path.read_bytes()[:500])),
    ):
        run = untrained_run(tmp_path / name)
        spoil(run / DETECTOR / "model.safetensors")
        result = invoke("check", photos, "--run", run)
        assert result.exit_code == 2 and "head_detector" in result.stderr and "Traceback" not in result.output
    result = invoke("check", photos, "--run", untrained_run(tmp_path / "none", head_threshold=None))
    assert result.exit_code == 2 and "head_detector" in result.stderr, "a network of heads needs a detector"


def test_a_run_of_another_version_is_named(tmp_path, photos):
    result = invoke("check", photos, "--run", untrained_run(tmp_path, version="7.2.0"))
    assert result.exit_code == 2 and "version 7.2.0" in result.stderr and "make report" in result.stderr


@pytest.mark.parametrize(
    "mine, theirs, opens",
    [
        ("0.2.0", "0.1.0", True),
        ("0.2.3", "0.1.7", True),
        ("0.1.0", "0.2.0", True),
        ("0.2.0", "0.2.9", True),
        ("0.2.0", "0.3.0", False),
        ("0.3.0", "0.1.0", False),
        ("0.2.0", "1.2.0", False),
        ("1.1.0", "0.1.0", False),
    ],
)
def test_versions_that_write_the_same_files_open_the_models_of_each_other(monkeypatch, mine, theirs, opens):
    monkeypatch.setattr(models, "version", lambda name: mine)
    if opens:
        assert models.check_version({"version": theirs}, Path("config.json")) is None
        return
    said = f"config.json: made by version {theirs} of deepfake_nbs, this is {mine}; run `make report` again"
    with pytest.raises(ValueError, match=re.escape(said)):
        models.check_version({"version": theirs}, Path("config.json"))


def test_a_run_and_a_portable_model_of_version_0_1_are_opened(tmp_path, photos, monkeypatch):
    first, run = sorted(photos.iterdir())[0], untrained_run(tmp_path / "run", version="0.1.0")
    portable = export_portable(tmp_path / "portable", run)
    assert json.loads((portable / CLASSIFIER / "config.json").read_text())["version"] == "0.1.0"
    monkeypatch.setattr(models, "version", lambda name: "0.2.0")
    now = Pipeline.load(untrained_run(tmp_path / "now")).check(first)
    for place in (run, portable):
        old = Pipeline.load(place).check(first)
        assert (old.classifier["version"], old.versions["deepfake_nbs"]) == ("0.1.0", "0.2.0")
        assert old.probability == now.probability and old.heads == now.heads


@pytest.mark.parametrize("option", ["--run-number", "--row"])
def test_a_run_that_was_not_trained_is_named(heads_run, photos, option):
    result = invoke("check", photos, "--run", heads_run, option, 3)
    assert result.exit_code == 2 and "training/3" in result.stderr


@pytest.mark.parametrize("name", ["xception", "midway", "light", "detector"])
def test_folding_norms_changes_nothing(name):
    torch.manual_seed(1)
    model = EfficientDet() if name == "detector" else create_model(name, width=0.1)
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.running_mean.normal_(0, 0.1)
        norm.running_var.uniform_(0.5, 1.5)
        torch.nn.init.uniform_(norm.weight, 0.8, 1.2)
        torch.nn.init.normal_(norm.bias, 0, 0.1)
    x = (
        torch.randint(0, 256, (2, 3, 128, 128), dtype=torch.uint8)
        if name == "detector"
        else torch.randn(2, 3, 96, 96)
    )
    with torch.inference_mode():
        before = model.eval()(x)
        after = fold_batch_norms(model)(x)
    for old, new in zip(before, after, strict=True):
        assert (old - new).abs().max() <= 1e-3 * max(1, old.abs().max())
    left = sum(isinstance(module, torch.nn.BatchNorm2d) for module in model.modules())
    assert left == 0 if name != "detector" else left < len(norms) / 2
