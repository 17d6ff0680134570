"All published numbers beside what a run measured, and what its networks have seen."

import json
from dataclasses import replace

import pandas as pd
import pytest

from deepfake_nbs.classifiers import numbers
from deepfake_nbs.core import write_json
from deepfake_nbs.settings import read_settings


@pytest.fixture
def claims(tmp_path):
    return numbers.published_beside(tmp_path / "none", "claims", numbers.MEASURED)


def test_a_run_fills_lines_and_loses_none(tmp_path, claims):
    measured = claims.assign(measured="0.5", status=["measured", *["not yet"] * (len(claims) - 1)])
    measured.to_csv(tmp_path / "claims.csv", index=False)
    found = numbers.published_beside(tmp_path, "claims", numbers.MEASURED)
    assert found["id"].tolist() == claims["id"].tolist() and found["status"].value_counts()["measured"] == 1
    assert found["published"].tolist() == claims["published"].tolist()


def test_progress_counts_results_and_leaves_settings_out(claims):
    results = claims[~numbers.is_setting(claims)]
    table = numbers.progress_table(results.assign(status="measured"))
    assert table["published"].sum() == table["measured"].sum() == len(results) < len(claims)
    assert not results["id"].str.startswith("table1-").any()


@pytest.mark.parametrize(
    "rows, limit, expected",
    [
        ((1, 2, 3, 4, 5, 6, 7, 8, 9), 3, "trains every run of table 2."),
        ((1, 2, 3, 4, 5, 6, 7, 8), 24, "does not train run 9: their numbers are gaps."),
        (
            (1, 3),
            3,
            "does not train runs 2, 4, 5, 6, 7, 8, 9: their numbers are gaps. Numbers after epochs 8",
        ),
    ],
)
def test_the_sentence_names_what_is_not_trained(tmp_path, claims, rows, limit, expected):
    (tmp_path / "claims.csv").write_text("id\n")
    settings = replace(
        read_settings("smoke"), rows=rows, epoch_limit=limit, protocol_rows=(), schedule_rows=()
    )
    said = numbers.progress_sentence(claims, claims, settings, tmp_path, "data/miniature")
    assert expected in said and said.startswith(f"Run `{tmp_path.name}`, seed 42: 0 of ")
    assert ("this profile stops at" in said) == (limit == 3 and len(rows) < 9)


def test_a_precision_of_a_finished_run_that_has_none_is_undefined(claims):
    claims = numbers.add_photographs(claims)
    row = claims["id"].eq("table2-1-test_accuracy")
    claims.loc[row, ["real measured", "measured"]] = ["0.71249", "0.5"]
    claims.loc[claims["id"].str.startswith("table2-1-precision"), "real measured"] = ""
    view = numbers.results_view(claims)
    assert view.loc[row, ["real measured", "measured"]].values.tolist() == [["0.712", "0.5"]]
    assert view.loc[claims["id"].str.startswith("table2-1-precision"), "real measured"].eq("undefined").all()


def test_networks_say_what_they_have_seen(run, tmp_path):
    record = dict(counts=dict(train=7), backbone_weights="none", weights_sha256=None)
    copy = tmp_path / "run"
    (copy / "head_detection" / "phase2").mkdir(parents=True)
    write_json(copy / "head_detection" / "phase2" / "run.json", record)
    (copy / "training").symlink_to(run / "training")
    (copy / "cvcs_dfd").symlink_to(run / "cvcs_dfd")
    (copy / "cvcs_cropped_dfd").symlink_to(run / "cvcs_cropped_dfd")
    table = numbers.networks_table(copy).set_index("network")
    assert {"run 1", "run 8", "head detector"} <= set(table.index)
    assert table.loc["head detector", ["images", "weights"]].tolist() == [7, ""]
    kept = json.loads((run / "training" / "8" / "run.json").read_text())
    assert kept["weights_sha256"].startswith(table.loc["run 8", "weights"])
    assert "never seen a person" in numbers.networks_sentence(table, "miniature")
    assert "`photos`" in numbers.networks_sentence(table, "photos")
    assert "`miniature`" in numbers.networks_sentence(pd.DataFrame(), "miniature")
