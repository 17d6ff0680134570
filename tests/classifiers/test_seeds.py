"More seeds: which runs are trained, that the command resumes, and which runs are seeds of one."

import json
from dataclasses import replace
import pytest
from noise_run import draw_dataset
from typer.testing import CliRunner
from deepfake_nbs.application.cli import app
from deepfake_nbs.classifiers import seeds, training
from deepfake_nbs.classifiers.seeds import same_but_seed, seed_runs, train_seeds
from deepfake_nbs.classifiers.tables import own_runs, usable_runs
from deepfake_nbs.settings import read_settings

SMALL = dict(image_size=48, width=0.1, epoch_limit=1, rows=(6, 8), protocol_rows=(), schedule_rows=())


@pytest.fixture
def small(tmp_path, monkeypatch):
    "A run folder with a dataset, and a profile that trains three runs more, one epoch each."
    draw_dataset(tmp_path / "smoke-noise" / "cvcs_dfd")
    more = dict(
        seeds=(1, 2), seed_rows=(8,), more_runs=("6-32px", "6-32px-seed1"), page_rows=(), run_changes=()
    )
    settings = replace(read_settings("smoke"), **SMALL, **more)
    for module in (seeds, training):
        monkeypatch.setattr(module, "read_settings", lambda profile: settings)
        monkeypatch.setattr(module, "run_folder", lambda profile, data: tmp_path / "smoke-noise")
    return tmp_path / "smoke-noise"


def test_the_command_trains_what_is_missing_and_leaves_the_rest(small, capsys):
    train_seeds("smoke", "noise", 8)
    said = capsys.readouterr().err
    assert "run 8-seed1, 1 of 2" in said and "run 8-seed2, 2 of 2" in said and "finished: 8-seed1" in said
    before = {path: path.stat().st_mtime_ns for path in small.glob("training/*/run.json")}
    assert len(before) == 2
    result = CliRunner().invoke(app, ["train", "--seeds", "--jobs", "2"])
    assert result.exit_code == 0, result.output
    after = {path: path.stat().st_mtime_ns for path in small.glob("training/*/run.json")}
    assert after.items() > before.items() and len(after) == 4, "two runs more, the others as they were"
    training.train_together("smoke", "noise", ["8"])
    runs = usable_runs(small)[0]
    found = same_but_seed(runs, "8")
    assert list(found) == [42, 1, 2] and found[42] == "8"
    assert json.loads((small / "training" / found[2] / "run.json").read_text())["seed"] == 2
    assert [*same_but_seed(runs, "6-32px")] == [42, 1]
    assert [*own_runs(small)] == ["6-32px"], "under its name, and once however many seeds it has"


def test_each_run_is_exported_where_a_profile_names_a_tracker(small, monkeypatch):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    settings = replace(seeds.read_settings("smoke"), seeds=(1,), more_runs=(), tracker="tensorboard")
    monkeypatch.setattr(seeds, "read_settings", lambda profile: settings)
    train_seeds("smoke", "noise")
    (record,) = small.glob("training/*/run.json")
    place = small / "trackers" / "tensorboard" / record.parent.name
    read = events.EventAccumulator(str(place)).Reload()
    assert [one.step for one in read.Scalars("validation_loss")] == [1]


def test_words_for_one_run_are_refused():
    for words in (["net=midway"], ["--name", "mine"], ["--tracker", "mlflow"]):
        result = CliRunner().invoke(app, ["train", *words, "--seeds"])
        assert result.exit_code == 2 and "is for a run without --seeds" in result.output


def test_trainings_at_once_are_for_more_runs():
    for words in (["--jobs", "2"], ["--seeds", "--jobs", "0"]):
        result = CliRunner().invoke(app, ["train", *words])
        assert result.exit_code == 2 and f"--jobs {words[-1]}" in result.output


def test_trainings_at_once_are_refused_under_torchrun(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="--jobs 2 under torchrun: expected one of the two"):
        train_seeds("mini", "data/miniature", jobs=2)


def test_a_profile_without_more_runs_says_which_keys_it_lacks():
    settings = read_settings("photographs")
    with pytest.raises(ValueError, match=r"settings.ini \[photographs\]: no more runs .*seeds and seed_rows"):
        seed_runs(settings)
    with pytest.raises(ValueError, match="no more runs of configuration 7 are named"):
        seed_runs(read_settings("mini"), 7)


def test_the_help_names_the_keys():
    text = " ".join(CliRunner().invoke(app, ["train", "--help"]).output.split())
    assert "--seeds" in text and "more_runs" in text
