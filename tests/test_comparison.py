"Contracts of chapters 06a, 06b and 06c: what is read from runs, how it is compared, what the pages show."

from dataclasses import replace

import nbformat
import numpy as np
import pandas as pd
import pytest
from noise_run import TINY

from deepfake_nbs import comparison
from deepfake_nbs.comparison import (
    choose_classifier, claim_rows, finished_rows, read_predictions, read_run, results_table, show_results, training_table,
)
from deepfake_nbs.core import CLAIM_COLUMNS, file_sha256, read_settings
from deepfake_nbs.training import train_run
from deepfake_nbs.xception import load_classifier

pytestmark = pytest.mark.usefixtures("one_thread")

# --- tables, claims, classifier ---------------------------------------------------------------------------------------

def test_table_2_never_makes_up_a_number(run):
    results = results_table(run, n_resamples=20)
    assert len(results) == 11 * 8
    assert results[results.row.gt(9) | ~results.column.isin(list(comparison.RESULT_COLUMNS))].published.isna().all()
    run_rows, others = results[results.row.isin([1, 8])], results[~results.row.isin([1, 8])]
    assert (run_rows.status == "run").all() and (run_rows.n == 6).all()
    assert (others.status == "not run").all() and others[["measured", "low", "high"]].isna().all(axis=None) and (others.n == 0).all()
    shown = show_results(results)
    assert shown.loc[3, "recall_0"] == "0.7: not run" and list(shown) == [*comparison.RESULT_COLUMNS, *comparison.MORE_COLUMNS]


def test_table_2_is_made_of_predictions(copy):
    path = copy / "training/8/predictions.csv"
    frame = pd.read_csv(path, dtype={"group": str})
    frame.loc[frame.checkpoint == "best", "probability"] = frame.label.astype(float)
    frame.loc[(frame.checkpoint == "best") & (frame.split == "test"), "probability"] = 0.9  # always fake
    frame.to_csv(path, index=False)
    measured = results_table(copy, n_resamples=20).query("row == 8").set_index("column").measured
    share = read_predictions(copy / "training/8", "test").label.mean()
    assert measured["validation_accuracy"] == 1
    assert measured["test_accuracy"] == measured["precision_1"] == pytest.approx(share)
    assert (measured["recall_0"], measured["recall_1"]) == (0, 1) and np.isnan(measured["precision_0"])
    assert "undefined" in show_results(results_table(copy, n_resamples=20)).loc[8, "precision_0"]
    assert {row["id"]: row["measured"] for row in claim_rows(copy)}["table2-8-precision_0"] is None


def test_claims_are_known_ids_with_intervals(run, root):
    results = results_table(run, n_resamples=20)
    claims = claim_rows(run, results)
    known = set(pd.read_csv(root / "papers/original/claims.csv").id)
    ours = [claim for claim in claims if claim.get("published") == ""]
    assert {claim["id"] for claim in ours} == {f"table2-{row}-{name}" for row in (1, 8) for name in comparison.MORE_COLUMNS}
    claims = [claim for claim in claims if claim not in ours]
    assert {claim["id"] for claim in claims} == {f"table2-{row}-{column}" for row in range(1, 10) for column in comparison.RESULT_COLUMNS}
    measured = [claim for claim in claims if claim["measured"] is not None]
    assert {claim["id"].split("-")[1] for claim in measured} == {"1", "8"}
    claims = measured
    assert all(set(claim) <= set(CLAIM_COLUMNS) and claim["data"] == "noise" and claim["protocol"] == "group" for claim in claims)
    assert {f"table2-{row}-{column}" for row in range(1, 10) for column in comparison.RESULT_COLUMNS} <= known


def test_table_1_says_what_was_asked_and_what_was_used(run):
    table = training_table(run).set_index("row")
    assert table.status.to_dict() == {row: "run" if row in (1, 8) else "not run" for row in range(1, 12)}
    assert (table.crop[8], table.crop_used[8], table.epochs[8], table.epochs_used[8], table.image_size_used[8]) == ("yes", False, 25, 2, 48)
    assert pd.isna(table.epochs_used[3])


def test_the_classifier_is_chosen_on_validation(copy):
    def set_probability(row, split, probability):
        path = copy / "training" / row / "predictions.csv"
        frame = pd.read_csv(path, dtype={"group": str})
        mask = (frame.checkpoint == "best") & (frame.split == split)
        frame.loc[mask, "probability"] = probability(frame[mask].label)
        frame.to_csv(path, index=False)

    for good, bad in (("1", "8"), ("8", "1")):
        set_probability(good, "validation", lambda label: label.astype(float))
        set_probability(good, "test", lambda label: 1.0 - label)
        set_probability(bad, "validation", lambda label: 1.0 - label)
        set_probability(bad, "test", lambda label: label.astype(float))
        place = choose_classifier(copy)
        assert load_classifier(place)[1]["row"] == int(good)
        assert file_sha256(place / "model.safetensors") == read_run(copy / "training" / good)["weights_sha256"]
    assert [p.name for p in (copy / "models").iterdir()] == ["classifier"]


def test_the_confusion_table_has_every_cell():
    table = comparison.confusion_table(pd.DataFrame(dict(label=[1, 1], probability=[0.5, 0.6])))
    assert table.to_numpy().tolist() == [[0, 0], [0, 2]]


def test_plot_history_shows_three_lines(run):
    import matplotlib.pyplot as plt

    ax = comparison.plot_history(pd.read_csv(run / "training/8/history.csv").head(1), best=1)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["loss, train", "loss, validation", "chosen: epoch 1",
                                                                         "accuracy, validation"]
    plt.close(ax.figure)


# --- the two pages ----------------------------------------------------------------------------------------------------

def run_page(root, name, replaced, **parameters):
    "Run a page's code cells in order, with some names replaced after the imports; returns its names."
    notebook, names = nbformat.read(root / "nbs" / f"{name}.ipynb", as_version=4), {}
    for cell in notebook.cells:
        if cell.cell_type == "code":
            exec(cell.source, names)
            names.update(parameters if "parameters" in cell.metadata.get("tags", []) else {},
                         **{k: v for k, v in replaced.items() if k in names})
    return names


def page_settings(profile):
    return replace(read_settings("smoke"), image_size=48, width=0.1, epoch_limit=2, n_resamples=20)


def test_06b_with_no_row_at_all(root, tmp_path):
    names = run_page(root, "06b_training_results", dict(run_folder=lambda *args: tmp_path, read_settings=page_settings))
    assert (names["results"].status == "not run").all() and names["classifier"] is None
    claims = pd.read_csv(tmp_path / "claims.csv")
    assert (claims[claims.id.str.startswith("table2-")].status == "not yet").all()
    assert not (tmp_path / "figures/fig-9.png").exists()


def test_06b_with_two_rows(root, copy):
    run_page(root, "06b_training_results", dict(run_folder=lambda *args: copy, read_settings=page_settings))
    artifacts = pd.read_csv(copy / "artifacts.csv", index_col="id")
    assert (artifacts.loc[["fig-9", "table-1", "table-2"]].status == "measured").all()
    assert all((copy / path).is_file() for path in artifacts.loc[["fig-9", "table-1", "table-2"]].path)
    claims = pd.read_csv(copy / "claims.csv", index_col="id")
    assert claims.status["table2-8-test_accuracy"] == "measured" and claims.status["table2-2-test_accuracy"] == "not yet"
    assert (copy / "models/classifier/model.safetensors").is_file()


def test_06a_trains_a_row_and_an_experiment(root, copy):
    replaced = dict(run_folder=lambda *args: copy, read_settings=page_settings)
    names = run_page(root, "06a_training_run", replaced, profile="smoke", row=6)
    assert names["name"] == "6" and read_run(copy / "training/6")["config"]["net"] == "light"
    names = run_page(root, "06a_training_run", replaced, profile="smoke", row=6, net="midway", epochs=1, crop="no")
    assert names["name"].startswith("custom-midway-adam") and sorted(finished_rows(copy)) == [1, 6, 8]


def test_parameters_of_the_pages(root):
    def parameters(name):
        cell, = [c for c in nbformat.read(root / "nbs" / f"{name}.ipynb", as_version=4).cells if "parameters" in c.metadata.get("tags", [])]
        names = {}
        exec(cell.source, names)
        return {k: v for k, v in names.items() if not k.startswith("__")}

    both = dict(profile="mini", data="data/miniature")
    assert parameters("06b_training_results") == both
    assert parameters("06a_training_run") == both | dict(
        row=8, net="", optimiser="", learning_rate=0.0, batch_size=0, epochs=0, crop="", seed=0, protocol="", schedule="", augment="",
        patience=0, precision="", weights="", overwrite=False)


# --- methods and protocols ---------------------------------------------------------------------------------------------

def test_methods_are_measured_against_all_real_pictures(run):
    table = comparison.method_table(run / "training" / "1", n_resamples=20)
    predictions = read_predictions(run / "training" / "1")
    assert table["method"].tolist() == ["smooth"] and table["n"].item() + table["n_real"].item() == len(predictions)
    expected = comparison.roc_auc_score(predictions["label"], predictions["probability"])
    assert table["auc"].item() == pytest.approx(expected) and table["low"].item() <= expected <= table["high"].item()


def test_only_runs_that_differ_in_nothing_but_the_split_are_compared(copy):
    assert comparison.compare_protocols(copy, n_resamples=10).empty
    twin = replace(TINY, row=0, epochs=2, protocol="published")
    train_run(copy, replace(twin, seed=7), "other-seed")
    assert comparison.compare_protocols(copy, n_resamples=10).empty
    train_run(copy, twin, "twin")
    pair = comparison.compare_protocols(copy, "accuracy", n_resamples=10)
    assert pair[["net", "seed"]].to_numpy().tolist() == [["xception", 42]]
    last = [read_predictions(copy / "training" / name, "test", "last") for name in ("twin", "1")]
    measured = [frame["probability"].ge(0.5).eq(frame["label"] == 1).mean() for frame in last]
    assert pair["difference"].item() == pytest.approx(measured[0] - measured[1])
    assert pair["low"].item() <= pair["difference"].item() <= pair["high"].item()


def test_the_interval_of_a_difference_is_that_of_two_independent_ones():
    rng = np.random.default_rng(0)
    samples = [rng.normal(mean, sd, 200_000) for mean, sd in ((0.8, 0.03), (0.6, 0.05))]
    each = [pd.Series(dict(zip(("value", "low", "high"), np.quantile(x, [0.5, 0.025, 0.975]), strict=True))) for x in samples]
    found = comparison.subtract_intervals(*each)
    expected = np.quantile(samples[0] - samples[1], [0.025, 0.975])
    assert [found["low"], found["high"]] == pytest.approx(expected, abs=2e-3)
