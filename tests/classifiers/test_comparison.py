"Contracts of chapters 06a to 06d: what is read from runs, how it is compared, what the pages show."

import json
import shutil
from dataclasses import replace

import nbformat
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score
from noise_run import TINY, rewrite

from deepfake_nbs import comparison
from deepfake_nbs.comparison import (
    choose_classifier, claim_rows, finished_rows, read_predictions, read_run, results_table, show_results, training_table,
)
from deepfake_nbs.claims import CLAIM_COLUMNS, save_claims
from deepfake_nbs.core import file_sha256, write_json
from deepfake_nbs.settings import read_settings
from deepfake_nbs.metrics import classification_metrics, paired_metrics
from deepfake_nbs.classifiers.training import train_run
from deepfake_nbs.runs import TrainingError
from deepfake_nbs.classifiers.saved import load_classifier

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
    assert shown.loc[3, "recall_0"] == "0.7: not run" and list(shown) == [*comparison.RESULT_COLUMNS, *comparison.MORE_COLUMNS, "n"]
    assert shown.n[[1, 3, 8]].tolist() == ["6", "", "6"]


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
    assert (table.window[8], table.weight_decay[8]) == (1, 0) and pd.isna(table.window[3])


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


def test_the_application_gets_a_network_that_judges_heads(copy):
    assert comparison.best_row(copy / "empty") is None and choose_classifier(copy / "empty") is None
    best, other = comparison.best_row(copy), {1: 8, 8: 1}[comparison.best_row(copy)]
    assert comparison.best_row(copy, crop=True) is None
    record = read_run(copy / "training" / str(other))
    write_json(copy / "training" / str(other) / "run.json", record | dict(crop=True))
    assert (comparison.best_row(copy), comparison.best_row(copy, crop=True)) == (best, other)
    assert load_classifier(choose_classifier(copy))[1]["row"] == other, "a row of whole pictures has never seen a head alone"


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

def run_page(root, name, replaced, /, **parameters):
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


def test_06d_with_what_is_kept(root, tmp_path):
    names = run_page(root, "06b_photographs", dict(run_folder=lambda *args: tmp_path))
    areas = names["areas"]
    assert set(areas.data) == {"miniature", "real"} and areas.value.between(0, 1).all()
    assert {"file only", "row 11, xception"} <= set(areas[areas.data.eq("real")].row)
    kept = pd.read_csv(root / "papers/results/mini-real.csv", index_col="id")
    shown = areas[areas.data.eq("real") & areas.row.eq("row 11, xception")].iloc[0]
    assert shown.value == float(kept.measured["table2-11-auc"]) and shown.n == kept.n["table2-11-auc"]
    assert list(names["lines"].row) == ["row 11", *(f"row {row}" for row in (1, 2, 4, 5, 6, 7))]
    assert names["lines"].difference.notna().sum() == 6 and all(len(record["history"]) > 1 for record in names["records"].values())
    artifacts = pd.read_csv(tmp_path / "artifacts.csv", index_col="id")
    assert {"fig-photographs", "fig-recipes", "fig-recipe-epochs", "table-recipes"} <= set(artifacts.index)


def test_06d_without_kept_numbers(root, tmp_path):
    names = run_page(root, "06b_photographs", dict(run_folder=lambda *args: tmp_path), profile="full")
    assert names["areas"].empty and not names["said"]
    assert not (tmp_path / "figures/fig-photographs.png").exists()


def test_06b_with_no_row_at_all(root, tmp_path):
    names = run_page(root, "06a_classifiers", dict(run_folder=lambda *args: tmp_path, read_settings=page_settings))
    assert (names["results"].status == "not run").all() and names["classifier"] is None
    claims = pd.read_csv(tmp_path / "claims.csv")
    assert (claims[claims.id.str.startswith("table2-")].status == "not yet").all()
    assert not (tmp_path / "figures/fig-9.png").exists()


def test_06b_with_two_rows(root, copy):
    run_page(root, "06a_classifiers", dict(run_folder=lambda *args: copy, read_settings=page_settings))
    artifacts = pd.read_csv(copy / "artifacts.csv", index_col="id")
    assert (artifacts.loc[["fig-9", "table-1", "table-2"]].status == "measured").all()
    assert all((copy / path).is_file() for path in artifacts.loc[["fig-9", "table-1", "table-2"]].path)
    claims = pd.read_csv(copy / "claims.csv", index_col="id")
    assert claims.status["table2-8-test_accuracy"] == "measured" and claims.status["table2-2-test_accuracy"] == "not yet"
    assert (copy / "models/classifier/model.safetensors").is_file()


@pytest.mark.parametrize("better, word", [(True, "above"), (False, "below")])
def test_06b_says_what_a_paired_test_shows(root, copy, better, word):
    "Validation chooses row 8; on the test split it is far better, or far worse, than row 1."
    for row in ("8", "1"):
        path = copy / "training" / row / "predictions.csv"
        frame = pd.read_csv(path, dtype={"group": str})
        right = frame.split.eq("validation") == (row == "8") if not better else row == "8"
        frame["probability"] = np.where(right, frame.label, 1 - frame.label).astype(float)
        frame.to_csv(path, index=False)
    replaced = dict(run_folder=lambda *args: copy, read_settings=lambda profile: replace(page_settings(profile), n_resamples=100))
    names = run_page(root, "06a_classifiers", replaced)
    assert names["chosen"] == 8 and names["against"].difference.abs().item() == 1 and np.isnan(names["against"].p.item())
    assert list(filter(None, names["said"])) == ["this many pictures cannot tell it from that of row 1"], "six groups are too few"
    many = names["against"].assign(p=0.001, low=0.5, high=1.0)
    names = run_page(root, "06a_classifiers", replaced | dict(compare_rows=lambda *args, **how: many.copy()))
    assert list(filter(None, names["said"])) == [f"it is shown to be {word} that of row 1"]


def test_06a_trains_a_row_and_an_experiment(root, copy):
    replaced = dict(run_folder=lambda *args: copy, read_settings=page_settings)
    names = run_page(root, "06_training_run", replaced, profile="smoke", row=6)
    assert names["name"] == "6" and read_run(copy / "training/6")["config"]["net"] == "light"
    names = run_page(root, "06_training_run", replaced, profile="smoke", row=6, net="midway", epochs=1, crop="no")
    assert names["name"].startswith("custom-midway-adam") and sorted(finished_rows(copy)) == [1, 6, 8]


def test_parameters_of_the_pages(root):
    def parameters(name):
        cell, = [c for c in nbformat.read(root / "nbs" / f"{name}.ipynb", as_version=4).cells if "parameters" in c.metadata.get("tags", [])]
        names = {}
        exec(cell.source, names)
        return {k: v for k, v in names.items() if not k.startswith("__")}

    both = dict(profile="mini", data="data/miniature")
    assert parameters("06a_classifiers") == both
    assert parameters("06_training_run") == both | dict(
        row=8, net="", optimiser="", learning_rate=0.0, batch_size=0, epochs=0, crop="", seed=0, protocol="", schedule="", augment="",
        window=0.0, patience=0, precision="", weights="", name="", overwrite=False)


# --- methods and protocols ---------------------------------------------------------------------------------------------

def test_methods_are_measured_against_all_real_pictures(run):
    table = comparison.method_table(run / "training" / "1", n_resamples=20)
    predictions = read_predictions(run / "training" / "1")
    assert table["method"].tolist() == ["smooth"] and table["n"].item() + table["n_real"].item() == len(predictions)
    expected = roc_auc_score(predictions["label"], predictions["probability"])
    assert table["auc"].item() == pytest.approx(expected)
    assert np.isnan(table["low"].item()) and table["why"].item().endswith("groups"), "six images are too few for an interval"


def test_only_runs_that_differ_in_nothing_but_the_split_are_compared(copy):
    assert comparison.compare_protocols(copy).empty
    twin = replace(TINY, row=0, epochs=2, protocol="published")
    train_run(copy, replace(twin, seed=7), "other-seed")
    assert comparison.compare_protocols(copy).empty
    train_run(copy, twin, "twin")
    pair = comparison.compare_protocols(copy, "accuracy")
    assert pair[["net", "seed"]].to_numpy().tolist() == [["xception", 42]]
    last = [read_predictions(copy / "training" / name, "test", "last") for name in ("twin", "1")]
    measured = [frame["probability"].ge(0.5).eq(frame["label"] == 1).mean() for frame in last]
    assert pair["difference"].item() == pytest.approx(measured[0] - measured[1])
    assert pair["low"].item() <= pair["difference"].item() <= pair["high"].item()


def test_a_stale_experiment_is_left_out_and_named(copy):
    "Row 1 is trained again on other data; its twin on the published split still has the old ones."
    train_run(copy, replace(TINY, row=0, epochs=2, protocol="published"), "1-published")
    results = results_table(copy, 10, "published")
    save_claims(claim_rows(copy, results, "published"), copy)
    rewrite(copy / "cvcs_dfd", lambda df: df[df.path != "train/000000.png"])
    with pytest.raises(TrainingError, match="changed since run 1 was"):
        comparison.usable_runs(copy)
    for row, net in ((1, "xception"), (8, "light")):
        train_run(copy, replace(TINY, row=row, net=net, crop=row == 8, epochs=2), str(row), overwrite=True)
    records, left_out = comparison.usable_runs(copy)
    assert list(records) == ["1", "8"] and list(left_out) == ["1-published"] and "manifest.csv: changed" in left_out["1-published"]
    results = results_table(copy, 10, "published")
    assert (results.status == "not run").all() and comparison.compare_protocols(copy).empty
    assert comparison.compare_epochs(copy, n_resamples=10).run.tolist() == ["1", "8"]
    claims = pd.read_csv(copy / "claims.csv", index_col="id").status
    assert claims["table2-1-auc-published"] == "measured"
    save_claims(claim_rows(copy, results, "published"), copy)
    claims = pd.read_csv(copy / "claims.csv", index_col="id")
    assert claims.status["table2-1-auc-published"] == "not yet" and pd.isna(claims.measured["table2-1-auc-published"])
    assert "table2-3-auc-published" not in claims.index, "a number of ours that never was leaves no line"


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"config": {}}'])
def test_a_record_that_someone_wrote_is_left_out(copy, content):
    for name in ("mine", "8"):
        (copy / "training" / name).mkdir(exist_ok=True)
        (copy / "training" / name / "run.json").write_text(content)
        with pytest.raises(TrainingError, match=f"{name}/run.json: (lacks|not the record)"):
            read_run(copy / "training" / name)
    with pytest.raises(TrainingError, match="8/run.json"):
        comparison.usable_runs(copy)
    shutil.rmtree(copy / "training/8")
    assert list(comparison.usable_runs(copy)[1]) == ["mine"] and comparison.compare_epochs(copy, n_resamples=10).run.tolist() == ["1"]


@pytest.mark.parametrize("key, value", [("code_sha256", "0"), ("processes", 2), ("manifest_sha256", "0")])
def test_a_twin_has_the_same_code_data_and_processes(run, key, value):
    records, _ = comparison.usable_runs(run)
    twin = records["1"] | {"config": records["1"]["config"] | {"protocol": "published", "row": 0, "workers": 7}}
    assert comparison.find_twin({**records, "mine": twin}, records["1"], protocol="published") == "mine"
    assert comparison.find_twin({**records, "mine": twin | {key: value}}, records["1"], protocol="published") is None


def test_how_often_a_word_is_right():
    said = pd.DataFrame(dict(label=[0, 0, 1, 1, 1, 0], probability=[0.1, 0.2, 0.2, 0.9, 0.95, 0.99], group=list("aabbcc")))
    table = comparison.measure_words(said, 0.2, 0.9, 100).set_index("word")
    assert table["n"].to_dict() == dict(real=3, fake=3) and table["value"].tolist() == pytest.approx([2 / 3, 2 / 3])
    assert table["low"].isna().all() and (table["why"] == "2 groups").all(), "two of three groups are too few for an interval"
    many = pd.concat([said.assign(group=said["group"] + str(i)) for i in range(12)])
    table = comparison.measure_words(many, 0.2, 0.9, 100).set_index("word")
    assert (table["low"] < table["value"]).all() and (table["value"] < table["high"]).all()
    never = comparison.measure_words(said, None, None, 100)
    assert never["n"].tolist() == [0, 0] and never[["value", "low", "high"]].isna().all(axis=None)
    same = comparison.measure_words(said, 0.9, 0.9, 100).set_index("word")["n"]
    assert same["fake"] == 3 and same.sum() == len(said), "no picture gets both words"


def test_validation_orders_the_rows(copy):
    ranked = comparison.rank_rows(copy, n_resamples=20)
    areas = {row: roc_auc_score(*read_predictions(copy / "training" / str(row), "validation")[["label", "probability"]].to_numpy().T)
             for row in (1, 8)}
    assert ranked["value"].to_dict() == pytest.approx(areas) and ranked["value"].is_monotonic_decreasing
    assert comparison.say_order(ranked).startswith(f"row {ranked.index[0]} with ") and comparison.say_order(ranked).count("(n=6)") == 2
    assert comparison.say_order(ranked[:0]) == "no row" and comparison.best_row(copy) == ranked.index[0]
    assert comparison.rank_rows(copy, crop=True, n_resamples=5).empty


# --- row against row, crops, epochs -----------------------------------------------------------------------------------

def predictions(probability, labels=None, suffix="png"):
    n = len(probability)
    labels = np.arange(n) % 2 if labels is None else labels
    return pd.DataFrame(dict(path=[f"test/{i:03d}.{suffix}" for i in range(n)], label=labels, probability=probability,
                             group=[f"g{i}" for i in range(n)]))


def test_common_pictures_line_up_crops_and_photographs():
    first, second = predictions(np.linspace(0, 1, 6), suffix="jpg"), predictions(np.linspace(0, 1, 8)).iloc[[7, 1, 3]]
    pair = comparison.common_pictures(first, second)
    assert [frame.picture.tolist() for frame in pair] == [["test/001", "test/003"]] * 2
    assert pair[0].path.tolist() == ["test/001.jpg", "test/003.jpg"] and pair[1].path.tolist() == ["test/001.png", "test/003.png"]


def test_a_paired_difference_is_narrower_than_two_intervals():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 300)
    skill = 0.5 + 0.15 * (labels - 0.5) + rng.normal(0, 0.15, 300)
    first, second = (predictions((skill + rng.normal(0, 0.02, 300) + worse * (0.5 - labels)).clip(0, 1), labels) for worse in (0.0, 0.06))
    pair = paired_metrics(first, second, 300).loc["auc"]
    alone = [classification_metrics(frame, 300).loc["auc"] for frame in (first, second)]
    assert pair.difference == pytest.approx(alone[0].value - alone[1].value)
    assert pair.high - pair.low < alone[0].high - alone[0].low and 0 < pair.low and pair.p < 0.05
    assert alone[0].low < alone[1].high, "the two intervals overlap, the paired one excludes zero"


def test_p_is_honest_where_there_is_no_difference():
    rng, ps = np.random.default_rng(1), []
    for _ in range(60):
        labels = rng.integers(0, 2, 80)
        first, second = (predictions((0.5 + 0.2 * (labels - 0.5) + rng.normal(0, 0.2, 80)).clip(0, 1), labels) for _ in range(2))
        ps.append(paired_metrics(first, second, 100).p["auc"])
    assert np.mean(np.array(ps) < 0.05) < 0.15 and np.mean(np.array(ps) < 0.5) > 0.25


def test_rows_are_compared_on_what_both_have(copy):
    table = comparison.compare_rows(copy, 8, n_resamples=20)
    assert table.row.tolist() == [1] and table.n.item() == 6
    own = [read_predictions(copy / "training" / row) for row in ("8", "1")]
    areas = [roc_auc_score(frame.label, frame.probability) for frame in own]
    assert table.difference.item() == pytest.approx(areas[0] - areas[1])


def test_crops_are_compared_on_common_pictures(copy):
    assert comparison.compare_crops(copy, n_resamples=10).empty, "row 8 asked for crops, there were none, so nothing was cropped"
    shutil.copytree(copy / "cvcs_dfd", copy / "cvcs_cropped_dfd")
    rewrite(copy / "cvcs_cropped_dfd", lambda df: df[df.path != "test/000004.png"])
    train_run(copy, replace(TINY, row=7, crop=True, epochs=1), "7")
    crops = comparison.compare_crops(copy, n_resamples=10)
    assert crops[["cropped_row", "whole_row", "n", "n_cropped", "n_whole"]].to_numpy().tolist() == [[7, 1, 5, 5, 6]]


def test_an_early_epoch_is_compared_with_the_last(run):
    table = comparison.compare_epochs(run, n_resamples=20).set_index("run")
    assert table.index.tolist() == ["1", "8"] and (table.early_epoch == 1).all() and (table.last_epoch == 2).all()
    frames = [read_predictions(run / "training" / "1", "test", name) for name in ("early", "last")]
    accuracy = [((frame.probability >= 0.5) == frame.label).mean() for frame in frames]
    assert table.difference["1"] == pytest.approx(accuracy[0] - accuracy[1])


def test_the_two_readings_of_table_2(copy):
    assert (results_table(copy, 10, "published").status == "not run").all()
    train_run(copy, replace(TINY, row=0, epochs=2, protocol="published"), "1-published")
    leaking = results_table(copy, 10, "published")
    assert leaking[leaking.status == "run"].row.unique().tolist() == [1]
    frame = read_predictions(copy / "training" / "1-published", "test", "last")
    cell = leaking.query("row == 1 and column == 'test_accuracy'").measured.item()
    assert cell == pytest.approx(((frame.probability >= 0.5) == frame.label).mean())
    claims = claim_rows(copy, leaking, "published")
    assert {claim["protocol"] for claim in claims} == {"published"} and all(claim["id"].endswith("-published") for claim in claims)


def test_settings_are_claims_and_epochs_wait_for_a_long_run(run, root):
    known = pd.read_csv(root / "papers/original/claims.csv", dtype=str).set_index("id").published
    settings = {claim["id"]: claim["measured"] for claim in comparison.setting_claims(run)}
    assert set(settings) == {id for id in known.index if id.startswith(("table1-", "training-"))}
    assert settings["table1-8-net"] == "light" and settings["table1-8-crop"] == "no" and settings["table1-1-epochs"] == 2
    assert settings["table1-2-net"] is None and settings["training-decay"] == pytest.approx(0.05) and settings["training-decay_epochs"] == 5
    epochs = {claim["id"]: claim["measured"] for claim in comparison.epoch_claims(run)}
    assert set(epochs) == {id for id in known.index if id.startswith("epoch-")} and set(epochs.values()) == {None}


def test_a_claim_of_an_epoch_says_which_one_was_read(copy):
    path = copy / "training/8/run.json"
    write_json(path, json.loads(path.read_text()) | dict(epochs=25, early_epoch=8))
    claims = {claim["id"]: claim["protocol"] for claim in comparison.epoch_claims(copy, 10)}
    assert claims["epoch-24-accuracy"] == "group, epoch 25" and claims["epoch-8-accuracy"] == "group"


# --- arithmetic -------------------------------------------------------------------------------------------------------

def test_the_published_table_contradicts_itself_in_two_rows(root):
    table = comparison.check_arithmetic(pd.read_csv(root / "papers/original/table2.csv", dtype=str, index_col="row"))
    assert table.index[~table.possible_if_rounded.astype(bool)].tolist() == [3, 7]
    assert table.index[~table.possible_if_cut.astype(bool)].tolist() == [7, 8, 9]
    assert table.real_low.drop(7).min() > 0.25 and table.real_high.drop(7).max() < 0.42 and table.real_low[7] > 0.42


@pytest.mark.parametrize("real, right_real, right_fake", [(300, 240, 630), (500, 10, 499), (1, 1, 999)])
def test_a_test_set_that_exists_is_possible(real, right_real, right_fake):
    fake = 1000 - real
    said_real, said_fake = right_real + fake - right_fake, right_fake + real - right_real
    row = dict(recall_0=right_real / real, recall_1=right_fake / fake, precision_0=right_real / said_real,
               precision_1=right_fake / said_fake, test_accuracy=(right_real + right_fake) / 1000)
    low, high = comparison.implied_real_share({name: f"{value:.3f}" for name, value in row.items()})
    assert low - 1e-9 <= real / 1000 <= high + 1e-9


def test_06b_with_everything(root, copy):
    "Both protocols, both schedules, crops and baselines' absence: every cell runs and says something."
    shutil.copytree(copy / "cvcs_dfd", copy / "cvcs_cropped_dfd")
    for name, config in {"9": replace(TINY, row=9, epochs=1), "7": replace(TINY, row=7, crop=True, epochs=1),
                         "1-published": replace(TINY, row=0, epochs=2, protocol="published"),
                         "1-cosine": replace(TINY, row=0, epochs=2, schedule="cosine")}.items():
        train_run(copy, config, name)
    names = run_page(root, "06a_classifiers", dict(run_folder=lambda *args: copy, read_settings=page_settings))
    tables = pd.read_csv(copy / "artifacts.csv", index_col="id").query("status == 'measured'").index
    wanted = {"table-1", "table-2", "table-2-published", "table-row-against-row", "table-crops-and-whole", "table-methods",
              "table-protocols", "table-epochs", "table-arithmetic", "table-variants", "table-all-rows", "fig-9", "fig-all-rows"}
    assert wanted <= set(tables) and len(names["against"]) == 3 and not (names["against"].holm < names["against"].p).any()
    claims = pd.read_csv(copy / "claims.csv", index_col="id").status
    assert claims["table2-1-auc"] == claims["table2-1-test_accuracy-published"] == claims["table1-1-net"] == "measured"
    assert claims["epoch-8-accuracy"] == "not yet"
