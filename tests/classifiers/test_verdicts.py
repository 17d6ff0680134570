"Whether a network learned, and why a published result gets its verdict."

import numpy as np
import pandas as pd
import pytest

from deepfake_nbs.classifiers import verdicts
from deepfake_nbs.metrics import classification_metrics
from deepfake_nbs.runs import read_predictions

NOTHING = float("nan")


@pytest.mark.parametrize(
    "auc, low, high, word",
    [
        (0.7, 0.51, 0.9, "learned"),
        (0.7, 0.5, 0.9, "did not learn"),
        (0.55, 0.45, 0.65, "did not learn"),
        (0.3, 0.2, 0.4, "did not learn"),
        (0.5, NOTHING, NOTHING, "did not learn"),  # One prediction for all images: no interval
        (0.8, NOTHING, NOTHING, "unknown"),
        (NOTHING, NOTHING, NOTHING, "unknown"),
    ],
)
def test_a_network_learned_where_its_interval_lies_above_one_half(auc, low, high, word):
    assert verdicts.learning_word(auc, low, high) == word


def test_validation_goes_before_test_unless_it_cannot_tell():
    rows = {
        "table2-1-validation_auc": [0.52, 0.45, 0.6],
        "table2-1-auc": [0.7, 0.6, 0.8],
        "table2-2-auc": [0.7, 0.6, 0.8],
        "table2-3-validation_auc": [0.6, NOTHING, NOTHING],
        "table2-3-auc": [0.55, 0.4, 0.7],
        "table2-8-auc-published": [0.9, 0.8, 0.95],
        "baselines-group-svm-auc": [0.9, 0.8, 0.95],
    }
    learned = verdicts.learned_runs(pd.DataFrame(rows, index=["measured", "low", "high"]).T)
    assert learned["learned"].to_dict() == {1: "did not learn", 2: "learned", 3: "did not learn"}
    assert learned.loc[1, "text"] == "validation AUC 0.520 [0.450, 0.600]"
    assert learned.loc[3, "text"].startswith("test AUC")
    assert verdicts.learned_runs(verdicts.read_measured("no/file.csv")).empty


def test_the_interval_of_a_run_is_that_of_its_validation_groups(run):
    rows = {row["id"]: row for row in verdicts.learning_claims(run)}
    assert set(rows) == {"table2-1-validation_auc", "table2-8-validation_auc"}
    for number in (1, 8):
        predictions = read_predictions(run / "training" / str(number), "validation")
        auc, row = classification_metrics(predictions).loc["auc"], rows[f"table2-{number}-validation_auc"]
        assert row["measured"] == pytest.approx(auc["value"], abs=1e-4) and row["n"] == len(predictions)
        assert row["low"] == pytest.approx(auc["low"], abs=1e-4, nan_ok=True) and row["published"] == ""


@pytest.mark.parametrize(
    "id, run, result",
    [
        ("table2-8-recall_0", 8, True),
        ("epoch-24-accuracy", 8, True),
        ("heads-phase1-map", None, True),
        ("datasets-heads-films", None, True),
        ("table1-8-net", None, False),
        ("heads-phase1-epochs", None, False),
        ("conclusion-run_3", None, False),
        ("training-dropout", None, False),
    ],
)
def test_ids_tell_results_and_their_run(id, run, result):
    assert verdicts.run_of_claim(id) == run and verdicts.is_result(id) is result


def all_claims(root, **measured):
    claims = pd.read_csv(root / "papers/original/claims.csv", dtype=str).assign(measured="", low="", high="")
    for id, values in measured.items():
        row = claims["id"].eq(id.replace("__", "-"))
        assert row.any(), id
        claims.loc[row, ["measured", "low", "high"]] = [str(value) for value in values]
    return claims


def decide(root, measured, records=None, learned=None, data="own", absent=""):
    learned = learned if learned is not None else verdicts.learned_runs(verdicts.read_measured("no"))
    claims = all_claims(root, **measured)
    found = verdicts.result_verdicts(claims, records or {}, learned, data, absent)
    assert found.index.equals(claims.index) and found["id"].tolist() == claims["id"].tolist()
    results = found["id"].map(verdicts.is_result).astype(bool)
    assert found["verdict"].ne("").eq(results).all() and found["reason"].ne("").eq(results).all()
    return found.set_index("id")


RECORD = dict(config=dict(image_size=299, width=1.0), epochs=25, crop=True)
OWN = dict(
    datasets__challenge__images=(15000, "", ""), datasets__faceforensics__originals=(1000, "", "")
)  # A data root that holds as much as the report counted


def test_each_branch_of_a_training_result(root):
    accuracy = dict(table2__8__test_accuracy=(0.86, 0.82, 0.9))
    outside = dict(table2__8__test_accuracy=(0.7, 0.65, 0.75))
    id, records = "table2-8-test_accuracy", {"8": RECORD}
    inside = decide(root, accuracy, records).loc[id]
    assert inside["verdict"] == "compatible" and inside["learned"] == "unknown"
    assert decide(root, outside, records).loc[id, "verdict"] == "not comparable"
    assert "images of `own` are not the report's" in decide(root, outside, records).loc[id, "reason"]
    assert decide(root, outside | OWN, records).loc[id, "verdict"] == "contradicted"
    small = {"8": RECORD | dict(config=dict(image_size=192, width=0.25), epochs=10, crop=False)}
    reason = decide(root, accuracy, small).loc[id, "reason"]
    for part in (
        "192 px instead of 299",
        "width 0.25 instead of 1",
        "10 epochs instead of 25",
        "whole images instead of head crops",
    ):
        assert part in reason
    assert "training record is missing" in decide(root, accuracy).loc[id, "reason"]


def test_a_network_that_did_not_learn_is_not_compared(root):
    learned = pd.DataFrame(
        dict(learned=["did not learn"], text=["validation AUC 0.520 [0.450, 0.600]"]), index=[8]
    )
    measured = OWN | dict(table2__8__test_accuracy=(0.86, 0.82, 0.9), epoch__8__accuracy=(0.86, 0.82, 0.9))
    found = decide(root, measured, {"8": RECORD}, learned)
    for id in ("table2-8-test_accuracy", "epoch-8-accuracy"):
        assert found.loc[id, ["verdict", "learned"]].tolist() == ["not comparable", "did not learn"]
        assert "did not learn (validation AUC 0.520 [0.450, 0.600])" in found.loc[id, "reason"]
    assert found.loc["table2-8-recall_0", "learned"] == "", "no number, no network behind it"


def test_the_test_numbers_of_run_7_are_impossible_and_its_validation_is_not(root):
    found = decide(root, dict(table2__7__test_accuracy=(0.778, 0.7, 0.8)), {"7": RECORD})
    seven = found[found.index.str.startswith("table2-7-")]
    assert seven["verdict"].value_counts().to_dict() == {"impossible": 5, "not measured": 1}
    assert seven.loc["table2-7-validation_accuracy", "verdict"] == "not measured"
    assert found["verdict"].eq("impossible").sum() == 5


def test_what_is_missing_says_why(root):
    records = {"8": RECORD | dict(epochs=10), "2": RECORD}
    found = decide(root, {}, records)["reason"]
    assert found["table2-1-test_accuracy"] == "run 1 was not trained."
    assert found["table2-2-precision_0"] == "undefined: the network predicts this class for no test image."
    assert found["table2-2-test_accuracy"] == "the test images of run 2 have not been read."
    assert found["epoch-24-accuracy"] == "run 8 was trained for 10 epochs; epoch 24 is read in a run of 24."
    assert found["heads-phase1-map"].startswith("the page “Head detection” measured no such number")
    gone = decide(root, {}, records, absent="no run is kept")
    assert gone["reason"][gone["verdict"].eq("not measured")].eq("no run is kept.").all()


def test_settings_of_detector_and_forest_are_read_from_the_claims(root):
    measured = OWN | dict(
        heads__phase1__map=(0.86, 0.8, 0.9), heads__phase1__epochs=(4, "", ""), heads__phase1__batch_size=(32, "", ""),
        baselines__forest__accuracy=(0.58, 0.5, 0.65), baselines__forest__trees=(500, "", ""),
    )  # fmt: skip
    found = decide(root, measured)
    assert found.loc["heads-phase1-map", "reason"].endswith("; 4 epochs instead of 50.")
    assert found.loc["baselines-forest-accuracy", "verdict"] == "compatible"
    more = decide(root, measured | dict(baselines__forest__trees=(1000, "", "")))
    assert more.loc["baselines-forest-accuracy", "verdict"] == "not comparable"
    assert found.loc["datasets-challenge-images", "verdict"] == "reproduced"


@pytest.mark.parametrize(
    "data, text", [("miniature", "synthetic portraits"), ("real", "stand-in sets"), ("mine", "`mine`")]
)
def test_other_images_are_named(root, data, text):
    claims = all_claims(root, datasets__challenge__images=(1600, "", ""))
    assert text in verdicts.image_difference(claims, data)
    assert verdicts.image_difference(all_claims(root, **OWN), data) == ""


def test_counts_of_verdicts_keep_the_order_of_the_words():
    words = pd.Series(["not measured", "compatible", "not measured", ""])
    assert verdicts.count_verdicts(words) == "1 compatible, 2 not measured"
    assert verdicts.count_verdicts(pd.Series([], dtype=object)) == ""
    assert np.isnan(verdicts.read_measured("no").get("measured", pd.Series(dtype=float)).sum()) == 0
