"Tables 1 and 2: what is read from finished runs, and laid beside what was published."

import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from noise_run import TINY, rewrite

from deepfake_nbs.claims import CLAIM_COLUMNS, save_claims
from deepfake_nbs.classifiers import comparison, tables
from deepfake_nbs.classifiers.leakage import leakage_table
from deepfake_nbs.classifiers.tables import result_claims, results_table, show_results, training_table
from deepfake_nbs.classifiers.training import train_run
from deepfake_nbs.core import file_sha256, write_json
from deepfake_nbs.runs import TrainingError, read_predictions, read_run


pytestmark = pytest.mark.usefixtures("one_thread")


def test_table_2_never_makes_up_a_number(run):
    results = results_table(run, n_resamples=20)
    assert len(results) == 13 * 8
    assert (
        results[results.row.gt(9) | ~results.column.isin(list(tables.RESULT_COLUMNS))].published.isna().all()
    )
    run_rows, others = results[results.row.isin([1, 8])], results[~results.row.isin([1, 8])]
    assert (run_rows.status == "run").all() and (run_rows.n == 6).all()
    assert (
        (others.status == "not run").all()
        and others[["measured", "low", "high"]].isna().all(axis=None)
        and (others.n == 0).all()
    )
    shown = show_results(results)
    assert shown.loc[3, "recall_0"] == "0.7: not run" and list(shown) == [
        *tables.RESULT_COLUMNS,
        *tables.MORE_COLUMNS,
        "n",
    ]
    assert shown.n[[1, 3, 8]].tolist() == ["6", "", "6"]


def test_table_2_is_made_of_predictions(copy):
    path = copy / "training/8/predictions.csv"
    frame = pd.read_csv(path, dtype={"group": str})
    frame.loc[frame.checkpoint == "best", "probability"] = frame.label.astype(float)
    frame.loc[(frame.checkpoint == "best") & (frame.split == "test"), "probability"] = 0.9  # always fake
    frame.to_csv(path, index=False)
    measured = results_table(copy, n_resamples=20).query("row == 8").set_index("column").measured
    fakes = read_predictions(copy / "training/8", "test").label.mean()
    assert measured["validation_accuracy"] == 1
    assert measured["test_accuracy"] == measured["precision_1"] == pytest.approx(fakes)
    assert (measured["recall_0"], measured["recall_1"]) == (0, 1) and np.isnan(measured["precision_0"])
    assert "undefined" in show_results(results_table(copy, n_resamples=20)).loc[8, "precision_0"]
    assert {row["id"]: row["measured"] for row in result_claims(copy)}["table2-8-precision_0"] is None


def test_claims_are_known_ids_with_intervals(run, root):
    results = results_table(run, n_resamples=20)
    claims = result_claims(run, results)
    known = set(pd.read_csv(root / "papers/original/claims.csv").id)
    ours = [claim for claim in claims if claim.get("published") == ""]
    assert {claim["id"] for claim in ours} == {
        f"table2-{row}-{name}" for row in (1, 8) for name in tables.MORE_COLUMNS
    }
    claims = [claim for claim in claims if claim not in ours]
    assert {claim["id"] for claim in claims} == {
        f"table2-{row}-{column}" for row in range(1, 10) for column in tables.RESULT_COLUMNS
    }
    measured = [claim for claim in claims if claim["measured"] is not None]
    assert {claim["id"].split("-")[1] for claim in measured} == {"1", "8"}
    claims = measured
    assert all(
        set(claim) <= set(CLAIM_COLUMNS) and claim["data"] == "noise" and claim["protocol"] == "group"
        for claim in claims
    )
    assert {f"table2-{row}-{column}" for row in range(1, 10) for column in tables.RESULT_COLUMNS} <= known


def test_table_1_says_what_was_asked_and_what_was_used(run):
    table = training_table(run).set_index("row")
    assert table.status.to_dict() == {row: "run" if row in (1, 8) else "not run" for row in range(1, 14)}
    assert (
        table.crop[8],
        table.crop_used[8],
        table.epochs[8],
        table.epochs_used[8],
        table.image_size_used[8],
    ) == ("yes", False, 25, 2, 48)
    assert pd.isna(table.epochs_used[3])
    assert (table.window[8], table.weight_decay[8]) == (1, 0) and pd.isna(table.window[3])


def test_the_confusion_table_has_every_cell():
    table = tables.confusion_table(pd.DataFrame(dict(label=[1, 1], probability=[0.5, 0.6])))
    assert table.to_numpy().tolist() == [[0, 0], [0, 2]]


def test_plot_history_shows_three_lines(run):
    import matplotlib.pyplot as plt

    ax = tables.plot_history(pd.read_csv(run / "training/8/history.csv").head(1), best=1)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [
        "loss, train",
        "loss, validation",
        "chosen: epoch 1",
        "accuracy, validation",
    ]
    ax = tables.plot_history(pd.read_csv(run / "training/8/history.csv"), best=1, auc=True)
    assert ax.get_legend().get_texts()[-1].get_text() == "AUC, validation"
    plt.close("all")


def test_a_stale_named_run_is_left_out_and_named(copy):
    "Run 1 is trained again on other data; its counterpart on the published split still has the old ones."
    train_run(copy, replace(TINY, row=0, epochs=2, protocol="published"), "1-published")
    results = results_table(copy, 10, "published")
    save_claims(result_claims(copy, results, "published"), copy)
    rewrite(copy / "cvcs_dfd", lambda df: df[df.path != "train/000000.png"])
    with pytest.raises(TrainingError, match="changed since run 1 was"):
        tables.usable_runs(copy)
    for row, net in ((1, "xception"), (8, "light")):
        train_run(copy, replace(TINY, row=row, net=net, crop=row == 8, epochs=2), str(row), overwrite=True)
    records, left_out = tables.usable_runs(copy)
    assert (
        list(records) == ["1", "8"]
        and list(left_out) == ["1-published"]
        and "manifest.csv: changed" in left_out["1-published"]
    )
    results = results_table(copy, 10, "published")
    assert (results.status == "not run").all() and leakage_table(copy).empty
    assert comparison.compare_epochs(copy, n_resamples=10).run.tolist() == ["1", "8"]
    claims = pd.read_csv(copy / "claims.csv", index_col="id").status
    assert claims["table2-1-auc-published"] == "measured"
    save_claims(result_claims(copy, results, "published"), copy)
    claims = pd.read_csv(copy / "claims.csv", index_col="id")
    assert claims.status["table2-1-auc-published"] == "not yet" and pd.isna(
        claims.measured["table2-1-auc-published"]
    )
    assert "table2-3-auc-published" not in claims.index, "a number of ours that never was leaves no line"


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"config": {}}'])
def test_a_record_that_someone_wrote_is_left_out(copy, content):
    for name in ("mine", "8"):
        (copy / "training" / name).mkdir(exist_ok=True)
        (copy / "training" / name / "run.json").write_text(content)
        with pytest.raises(TrainingError, match=f"{name}/run.json: (lacks|not the record)"):
            read_run(copy / "training" / name)
    with pytest.raises(TrainingError, match="8/run.json"):
        tables.usable_runs(copy)
    shutil.rmtree(copy / "training/8")
    assert list(tables.usable_runs(copy)[1]) == ["mine"] and comparison.compare_epochs(
        copy, n_resamples=10
    ).run.tolist() == ["1"]


@pytest.mark.parametrize("key, value", [("code_sha256", "0"), ("processes", 2), ("manifest_sha256", "0")])
def test_a_matching_run_has_the_same_code_data_and_processes(run, key, value):
    records, _ = tables.usable_runs(run)
    twin = records["1"] | {
        "config": records["1"]["config"] | {"protocol": "published", "row": 0, "workers": 7}
    }
    assert tables.find_matching_run({**records, "mine": twin}, records["1"], protocol="published") == "mine"
    assert (
        tables.find_matching_run({**records, "mine": twin | {key: value}}, records["1"], protocol="published")
        is None
    )


def make_run_9(run, weights=b""):
    "Run 9 with the settings of run 1, as where a profile cuts the epochs of both; every prediction is .9."
    place = run / "training/9"
    shutil.copytree(run / "training/1", place)
    model = place / "model/model.safetensors"
    model.write_bytes(model.read_bytes() + weights)
    record = json.loads((place / "run.json").read_text())
    changes = dict(run="9", config=record["config"] | dict(row=9), weights_sha256=file_sha256(model))
    write_json(place / "run.json", record | changes)
    frame = pd.read_csv(place / "predictions.csv", dtype={"group": str})
    frame.assign(probability=0.9).to_csv(place / "predictions.csv", index=False)


def test_two_runs_with_the_same_settings_keep_their_own_numbers(copy):
    before = results_table(copy, 10).query("row == 1").measured.to_numpy()
    make_run_9(copy, b" ")
    results = results_table(copy, 10)
    cells = results.query("row == 9").set_index("column").measured
    assert (cells["recall_0"], cells["recall_1"]) == (0, 1), "its own predictions, not those of run 1"
    assert np.array_equal(results.query("row == 1").measured.to_numpy(), before, equal_nan=True)
    claims = {claim["id"]: claim["measured"] for claim in result_claims(copy, results)}
    assert claims["table2-9-recall_1"] == 1 and tables.one_training(results) == []
    (pair,) = comparison.compare_repeats(copy).to_dict("records")
    assert (pair["first"], pair["second"], pair["same"], pair["value_second"]) == (1, 9, False, 0.5)
    assert pair["difference"] == pytest.approx(pair["value_first"] - 0.5)


def test_numbers_of_one_training_are_known_as_such(copy):
    assert comparison.compare_repeats(copy).empty
    make_run_9(copy)
    assert tables.one_training(results_table(copy, 10)) == [[1, 9]]
    assert comparison.compare_repeats(copy)["same"].tolist() == [True]
    train_run(copy, replace(TINY, row=0, epochs=2, protocol="published"), "1-published")
    assert tables.one_training(results_table(copy, 10, "published")) == [[1, 9]]


def test_a_cell_is_the_mean_over_the_seeds_that_are_there(copy):
    for seed in (1, 2):
        train_run(copy, replace(TINY, row=0, epochs=2, seed=seed), f"again-{seed}")
    results = results_table(copy, 10)
    names = ["1", "again-1", "again-2"]
    frames = [read_predictions(copy / "training" / name) for name in names]
    found = results.query("row == 1 and column == 'test_accuracy'").iloc[0]
    assert found.measured == pytest.approx(
        np.mean([((frame.probability >= 0.5) == frame.label).mean() for frame in frames])
    )
    assert found.seeds == 3 and set(results.query("row == 8").seeds) == {1}
    protocols = {claim["id"]: claim.get("protocol") for claim in result_claims(copy, results)}
    assert protocols["table2-1-test_accuracy"] == "group, 3 seeds"
    assert protocols["table2-8-test_accuracy"] == "group"
    table = comparison.compare_runs(copy, 8, n_resamples=10)
    assert table[["row", "seeds"]].to_numpy().tolist() == [[1, 1]], "run 8 has one seed in common with it"
    assert comparison.compare_epochs(copy, n_resamples=10).run.tolist() == ["1", "8"], "no line for a seed"


def test_a_run_below_chance_did_not_learn():
    area = pd.DataFrame(dict(low=[0.4, 0.6, np.nan]), index=["auc"] * 3)
    words = [tables._learned({"validation": area.iloc[[i]]}) for i in range(3)]
    assert words == ["no", "yes", ""] and tables._learned({}) == ""


def test_the_two_readings_of_table_2(copy):
    assert (results_table(copy, 10, "published").status == "not run").all()
    train_run(copy, replace(TINY, row=0, epochs=2, protocol="published"), "1-published")
    leaking = results_table(copy, 10, "published")
    assert leaking[leaking.status == "run"].row.unique().tolist() == [1]
    frame = read_predictions(copy / "training" / "1-published", "test", "last")
    cell = leaking.query("row == 1 and column == 'test_accuracy'").measured.item()
    assert cell == pytest.approx(((frame.probability >= 0.5) == frame.label).mean())
    claims = result_claims(copy, leaking, "published")
    assert {claim["protocol"] for claim in claims} == {"published"} and all(
        claim["id"].endswith("-published") for claim in claims
    )


def test_settings_are_claims_and_epochs_wait_for_a_long_run(run, root):
    known = pd.read_csv(root / "papers/original/claims.csv", dtype=str).set_index("id").published
    settings = {claim["id"]: claim["measured"] for claim in tables.setting_claims(run)}
    assert set(settings) == {id for id in known.index if id.startswith(("table1-", "training-"))}
    assert (
        settings["table1-8-net"] == "light"
        and settings["table1-8-crop"] == "no"
        and settings["table1-1-epochs"] == 2
    )
    assert (
        settings["table1-2-net"] is None
        and settings["training-decay"] == pytest.approx(0.05)
        and settings["training-decay_epochs"] == 5
    )
    epochs = {claim["id"]: claim["measured"] for claim in tables.epoch_claims(run)}
    assert set(epochs) == {id for id in known.index if id.startswith("epoch-")} and set(epochs.values()) == {
        None
    }


def test_a_claim_of_an_epoch_says_which_one_was_read(copy):
    path = copy / "training/8/run.json"
    write_json(path, json.loads(path.read_text()) | dict(epochs=25, early_epoch=8))
    claims = {claim["id"]: claim["protocol"] for claim in tables.epoch_claims(copy, 10)}
    assert claims["epoch-24-accuracy"] == "group, epoch 25" and claims["epoch-8-accuracy"] == "group"


def test_the_published_table_contradicts_itself_in_two_runs():
    table = tables.check_arithmetic(tables.printed_table2())
    assert table.index[~table.possible_if_rounded.astype(bool)].tolist() == [3, 7]
    assert table.index[~table.possible_if_cut.astype(bool)].tolist() == [7, 8, 9]
    assert (
        table.real_low.drop(7).min() > 0.25
        and table.real_high.drop(7).max() < 0.42
        and table.real_low[7] > 0.42
    )
