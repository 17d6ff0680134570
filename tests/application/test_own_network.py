"A network of one's own: it has a name, stands in the tables, classifies photographs and is exported."

import json
import shutil
from dataclasses import replace

import pandas as pd
import pytest
from noise_run import TINY
from helpers.page_run import page_settings, run_page
from typer.testing import CliRunner

from deepfake_nbs import core, metrics
from deepfake_nbs import runs
from deepfake_nbs.classifiers import comparison
from deepfake_nbs.classifiers import tables
from deepfake_nbs.application.cli import app
from deepfake_nbs.application.evidence import calibrated_thresholds
from deepfake_nbs.classifiers.calibration import scale_probability
from deepfake_nbs.application.models import CLASSIFIER, find_model
from deepfake_nbs.application.pipeline import Pipeline
from deepfake_nbs.application.portable import export_portable
from deepfake_nbs.settings import read_settings
from deepfake_nbs.classifiers.recipes import run_config, run_name
from deepfake_nbs.classifiers.training import train_run

pytestmark = pytest.mark.usefixtures("one_thread")


def invoke(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture(scope="module")
def mine(run, tmp_path_factory):
    "The run of noise with a network of one's own in it, and an unnamed twin of run 8 with another seed; tests must not change it."
    place = tmp_path_factory.mktemp("mine") / run.name
    shutil.copytree(run, place)
    train_run(place, replace(TINY, row=0, net="midway", epochs=2), "my network")
    train_run(place, replace(TINY, row=0, net="light", crop=True, epochs=2, seed=7), "custom-light-seed7")
    return place


def test_names_of_runs():
    settings = read_settings("smoke")
    config = run_config(8, settings, net="midway")
    assert run_name(config, settings, "Mein Netz, älter") == "Mein Netz, älter" and run_name(
        config, settings
    ).startswith("custom-midway")
    for name in (
        "..",
        "a/b",
        "/tmp/x",
        ".hidden",
        "-x",
        "a\x1b",
        "a\0",
        " a",
        "a.old",
        "x" * 101,
        "ä" * 60,
        "a\\b",
        "a:b",
    ):
        with pytest.raises(ValueError, match="expected that of a folder"):
            run_name(config, settings, name)
    for name in ("8", "custom-mine"):
        with pytest.raises(ValueError, match="reserved for a run of Table 1"):
            run_name(config, settings, name)


def test_a_row_with_another_seed_is_listed_where_it_has_a_name(run):
    record = runs.read_run(run / "training" / "8")
    other = record | dict(config=record["config"] | dict(seed=3))
    changed = record | dict(config=record["config"] | dict(net="midway"))
    found = {"8": record, "custom-seed3": other, "mine": other | dict(name="mine"), "custom-midway": changed}
    assert list(tables.own_runs(run, found)) == ["mine", "custom-midway"]


def test_it_stands_in_every_table_under_its_name(mine):
    assert list(tables.own_runs(mine)) == ["my network"], "a row with another seed is no network of one's own"
    assert list(tables.listed_runs(mine)) == [1, 8, "my network"]
    settings = tables.training_table(mine).set_index("row").loc["my network"]
    assert settings[["status", "net", "epochs_used"]].tolist() == ["run", "midway", 2]
    results = tables.results_table(mine, 10)
    own = results[results["row"].eq("my network")].set_index("column")
    right = metrics.classification_metrics(runs.read_predictions(mine / "training/my network"), 1).loc[
        "accuracy", "value"
    ]
    assert (
        own.loc["test_accuracy", "measured"] == right
        and own["published"].isna().all()
        and set(own["status"]) == {"run"}
    )
    assert tables.show_results(results).index.tolist() == [*range(1, 14), "my network"]
    assert set(comparison.rank_runs(mine, n_resamples=1).index) == {1, 8, "my network"}
    assert comparison.compare_runs(mine, 8, n_resamples=10)["row"].tolist() == [1, "my network"]
    assert "my network" in comparison.compare_epochs(mine, n_resamples=10)["run"].tolist()
    assert comparison.best_run(mine) in (1, 8) and not any(
        "network" in claim["id"] for claim in tables.result_claims(mine, results)
    )


def test_pages_of_results_show_it(root, copy):
    replaced = dict(run_folder=lambda *args: copy, read_settings=page_settings)
    names = run_page(
        root,
        "06_training_run",
        replaced,
        profile="smoke",
        row=6,
        net="midway",
        epochs=1,
        crop="no",
        name="my network",
    )
    record = json.loads((copy / "training" / "my network" / "run.json").read_text())
    assert names["name"] == record["name"] == record["run"] == "my network"
    names = run_page(root, "06a_classifiers", replaced)
    assert "run my network, midway" in set(names["everything"]["classifier"])
    compared = run_page(root, "06d_comparisons", replaced)
    assert "my network" in compared["by_method"]["row"].tolist()
    table = pd.read_csv(copy / "tables/table-2.csv")
    assert table.loc[table["row"].eq("my network"), "status"].eq("run").all()
    assert "my network" in pd.read_csv(copy / "tables/table-1.csv")["row"].tolist()


def test_the_command_line_trains_under_a_name(copy, monkeypatch):
    monkeypatch.setattr(core, "run_folder", lambda *args: copy)
    monkeypatch.setattr("deepfake_nbs.settings.read_settings", lambda profile: page_settings(profile))
    words = [
        "train",
        "--name",
        "small one",
        "--run-number",
        "8",
        "epochs=1",
        "crop=no",
        "batch_size=5",
        "precision=float32",
        "workers=1",
    ]
    done = invoke(*words)
    assert done.exit_code == 0 and "run small one: best epoch 1" in done.stdout, done.output
    done = invoke("train", "--name", "../x")
    assert done.exit_code == 2 and "expected that of a folder" in done.stderr


def test_it_classifies_with_the_thresholds_of_its_own_validation(mine, tmp_path, monkeypatch):
    folder = mine / "training" / "my network"
    photo = next((mine / "cvcs_dfd/test").glob("*.png"))
    valid = runs.read_predictions(folder, "validation")
    right = calibrated_thresholds(valid["label"], valid["probability"])
    raw = runs.read_predictions(folder).set_index("path")["probability"][f"test/{photo.name}"]
    truth = scale_probability([raw], right.temperature)[0]
    shutil.copytree(folder, tmp_path / "carried away")
    for model in (folder, folder / "model", tmp_path / "carried away"):
        pipeline = Pipeline.load(model=model)
        assert pipeline.thresholds == right and pipeline.check(
            photo, whole=True
        ).probability == pytest.approx(truth, abs=1e-3)
    done = invoke("check", photo, "--model", folder)
    assert done.exit_code == 0 and "midway, run my network, trained on" in done.stdout
    monkeypatch.chdir(mine / "training")
    assert find_model("my network") == folder / "model", "it counts from where one stands"
    assert not (mine / "models").exists(), "classifying leaves nothing in the run"


def test_what_is_no_finished_training_is_named(mine, tmp_path):
    photo = next((mine / "cvcs_dfd/test").glob("*.png"))
    (tmp_path / "half" / "checkpoint").mkdir(parents=True)
    for model in (tmp_path / "half", mine, "a\x1bb", "x" * 300, "a\0b"):
        done = invoke("check", photo, "--model", model)
        assert (done.exit_code, done.stderr.count("\n")) == (2, 1) and "\x1b" not in done.stderr, done.output
    both = invoke("check", photo, "--model", mine / "training" / "1", "--run-number", 8)
    assert both.exit_code == 2 and "run number and model both name a classifier" in both.stderr
    for row in ("1/../8", 0, True):
        with pytest.raises(ValueError, match="expected the number of a run"):
            Pipeline.load(mine, row)
    assert (
        "holds no finished training"
        in invoke("export", tmp_path / "out", "--model", tmp_path / "half").stderr
    )


def test_it_is_exported(mine, tmp_path):
    folder = mine / "training" / "my network"
    done = invoke("export", tmp_path / "out", "--model", folder)
    assert done.exit_code == 0, done.output
    photo = next((mine / "cvcs_dfd/test").glob("*.png"))
    found, expected = Pipeline.load(tmp_path / "out"), Pipeline.load(model=folder)
    assert found.thresholds == expected.thresholds and found.check(photo).probability == pytest.approx(
        expected.check(photo).probability
    )
    card = (tmp_path / "out" / "README.md").read_text()
    assert "midway, run my network" in card and "On 6 test images" in card


def test_a_run_that_may_only_be_read_is_exported(mine, tmp_path):
    shutil.copytree(mine / "training" / "1" / "model", tmp_path / "run" / CLASSIFIER)
    kept = [tmp_path / "run" / CLASSIFIER, *(tmp_path / "run" / CLASSIFIER).iterdir()]
    for path in kept:
        path.chmod(0o555 if path.is_dir() else 0o444)
    out = export_portable(tmp_path / "out", tmp_path / "run")
    assert (out / CLASSIFIER / "model.onnx").is_file() and all(
        path.stat().st_mode & 0o200 for path in [out, *out.rglob("*")]
    )
    comparison.choose_classifier(mine_copy := shutil.copytree(mine, tmp_path / "again"))
    assert all(path.stat().st_mode & 0o200 for path in (mine_copy / "models").rglob("*"))
    for path in kept:
        path.chmod(0o755)


def test_training_without_a_dataset_makes_no_folder_that_pages_take_for_a_run(tmp_path):
    with pytest.raises(
        FileNotFoundError, match="manifest.csv: no such manifest; `make report` with this profile builds it"
    ):
        train_run(tmp_path / "mini-toy", replace(TINY, row=8), "8")
    assert not (tmp_path / "mini-toy").exists()
