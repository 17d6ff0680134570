"A network of your own: it has a name and stands in the tables and on the pages."
import json
from dataclasses import replace

import pandas as pd
import pytest
from helpers.page_run import page_settings, run_page
from noise_run import TINY
from typer.testing import CliRunner

from deepfake_nbs import metrics
from deepfake_nbs.classifiers import comparison, tables
from deepfake_nbs.classifiers import training as classifiers_training
from deepfake_nbs.classifiers.recipes import run_config, run_name
from deepfake_nbs.classifiers.training import train_run
from deepfake_nbs.runs import read_predictions, read_run
from deepfake_nbs.settings import read_settings


pytestmark = pytest.mark.usefixtures("one_thread")


def test_names_of_runs():
    settings = read_settings("smoke")
    config = run_config(8, settings, net="midway")
    assert run_name(config, settings, "Mein Netz, älter") == "Mein Netz, älter" and run_name(config, settings).startswith("custom-midway")
    for name in ("..", "a/b", "/tmp/x", ".hidden", "-x", "a\x1b", "a\0", " a", "a.old", "x" * 101, "ä" * 60, "a\\b", "a:b"):
        with pytest.raises(ValueError, match="expected that of a folder"):
            run_name(config, settings, name)
    for name in ("8", "custom-mine"):
        with pytest.raises(ValueError, match="which is reserved for a run of Table 1"):
            run_name(config, settings, name)


def test_a_run_with_another_seed_is_listed_where_it_has_a_name(run):
    record = read_run(run / "training" / "8")
    other = record | dict(config=record["config"] | dict(seed=3))
    changed = record | dict(config=record["config"] | dict(net="midway"))
    runs = {"8": record, "custom-seed3": other, "mine": other | dict(name="mine"), "custom-midway": changed}
    assert list(tables.own_runs(run, runs)) == ["mine", "custom-midway"]


def test_it_stands_in_every_table_under_its_name(mine):
    assert list(tables.own_runs(mine)) == ["my network"], "a run with another seed is no network of your own"
    assert list(tables.listed_runs(mine)) == [1, 8, "my network"]
    settings = tables.training_table(mine).set_index("row").loc["my network"]
    assert settings[["status", "net", "epochs_used"]].tolist() == ["run", "midway", 1]
    results = tables.results_table(mine, 10)
    own = results[results["row"].eq("my network")].set_index("column")
    right = metrics.classification_metrics(read_predictions(mine / "training/my network"), 1).loc["accuracy", "value"]
    assert own.loc["test_accuracy", "measured"] == right and own["published"].isna().all() and set(own["status"]) == {"run"}
    assert tables.show_results(results).index.tolist() == [*range(1, 12), "my network"]
    assert set(comparison.rank_runs(mine, n_resamples=1).index) == {1, 8, "my network"}
    assert comparison.compare_runs(mine, 8, n_resamples=10)["row"].tolist() == [1, "my network"]
    assert "my network" in comparison.compare_epochs(mine, n_resamples=10)["run"].tolist()
    assert comparison.best_run(mine) in (1, 8) and not any("network" in claim["id"] for claim in tables.result_claims(mine, results))


def test_06a_and_06b_show_it(root, copy):
    replaced = dict(run_folder=lambda *args: copy, read_settings=page_settings)
    names = run_page(root, "06_training_run", replaced, profile="smoke", row=6, net="midway", epochs=1, crop="no", name="my network")
    record = json.loads((copy / "training" / "my network" / "run.json").read_text())
    assert names["name"] == record["name"] == record["run"] == "my network"
    names = run_page(root, "06a_classifiers", replaced)
    assert "run my network, midway" in set(names["everything"]["classifier"]) and "my network" in names["by_method"]["row"].tolist()
    table = pd.read_csv(copy / "tables/table-2.csv")
    assert table.loc[table["row"].eq("my network"), "status"].eq("run").all()
    assert "my network" in pd.read_csv(copy / "tables/table-1.csv")["row"].tolist()


def test_the_command_line_trains_under_a_name(copy, monkeypatch):
    monkeypatch.setattr(classifiers_training, "run_folder", lambda *args: copy)
    monkeypatch.setattr(classifiers_training, "read_settings", lambda profile: page_settings(profile))
    words = ["--name", "small one", "--run-number", "8", "epochs=1", "crop=no", "batch_size=5", "precision=float32", "workers=1"]
    done = CliRunner().invoke(classifiers_training.train_app, words)
    assert done.exit_code == 0 and "run small one: best epoch 1" in done.stdout, done.output
    done = CliRunner().invoke(classifiers_training.train_app, ["--name", "../x"])
    assert done.exit_code == 2 and "expected that of a folder" in done.stderr


def test_training_without_a_dataset_makes_no_folder_that_pages_take_for_a_run(tmp_path):
    with pytest.raises(FileNotFoundError, match="manifest.csv: no such manifest; `make report` with this profile builds it"):
        train_run(tmp_path / "mini-toy", replace(TINY, row=8), "8")
    assert not (tmp_path / "mini-toy").exists()
