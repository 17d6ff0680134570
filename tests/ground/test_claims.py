"Figures, tables and measured values under the ids of the original report."

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from deepfake_nbs import claims


def test_every_published_id_is_listed_from_the_start(tmp_path, root):
    claims.save_table(pd.DataFrame({"a": [1]}), "table-datasets", tmp_path, "01_datasets")
    claims.save_claims([], tmp_path)
    for name in ("artifacts.csv", "claims.csv"):
        published = pd.read_csv(root / "papers" / "original" / name)
        mine = pd.read_csv(tmp_path / name).set_index("id")
        assert set(published["id"]) <= set(mine.index)
        assert set(mine.status[mine.index.isin(published["id"])]) == {"not yet"}
    assert (
        pd.read_csv(tmp_path / "artifacts.csv").set_index("id").path["table-datasets"]
        == "tables/table-datasets.csv"
    )


def test_figures_and_claims_add_up(tmp_path):
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots()
    ax.plot([0, 1])
    claims.save_figure(figure, "fig-1", tmp_path, "01_datasets")
    plt.close(figure)
    first, second, undefined = "table2-1-test_accuracy", "table2-1-precision_0", "table2-8-test_accuracy"
    claims.save_claims(
        [{"id": first, "measured": 0.5, "low": 0.4, "high": 0.6, "n": 10, "protocol": "group"}], tmp_path
    )
    claims.save_claims(
        [{"id": undefined, "measured": float("nan")}, {"id": second, "measured": 0.7}], tmp_path
    )
    kept = pd.read_csv(tmp_path / "claims.csv").set_index("id")
    assert kept.status[[first, second, undefined]].tolist() == ["measured", "measured", "not yet"]
    assert kept.measured["table2-1-test_accuracy"] == 0.5 and float(kept.published[first]) == 0.85
    claims.save_claims(
        [{"id": first, "measured": None}], tmp_path
    )  # what a later run could not define must not stay
    assert (
        pd.read_csv(tmp_path / "claims.csv").set_index("id").loc[first, ["measured", "low", "n"]].isna().all()
    )
    artifacts = pd.read_csv(tmp_path / "artifacts.csv").set_index("id")
    assert (
        artifacts.status["fig-1"] == "measured"
        and Image.open(tmp_path / artifacts.path["fig-1"]).size[0] > 100
    )
    with pytest.raises(ValueError, match="unknown id 'table2-10-test_accuracy'"):
        claims.save_claims([{"id": "table2-10-test_accuracy", "measured": 0.5}], tmp_path)


def test_a_number_that_was_never_published_is_kept_when_its_claim_says_so(tmp_path):
    path = claims.save_claims(
        [{"id": "baselines-group-constant-accuracy", "published": "", "measured": 0.5, "n": 10}], tmp_path
    )
    claims.save_claims([{"id": "baselines-svm-accuracy", "published": "", "measured": 0.6}], tmp_path)
    rows = claims._read_rows(path)
    assert (
        rows["baselines-group-constant-accuracy"]["measured"] == "0.5"
        and rows["baselines-group-constant-accuracy"]["published"] == ""
    )
    assert rows["baselines-svm-accuracy"]["published"] == ".6756"  # what was published stays


def test_a_count_that_is_not_there_is_kept_as_not_yet(tmp_path):
    claims.save_claims(
        [{"id": "datasets-heads-films", "measured": None, "n": pd.NA, "protocol": "count"}], tmp_path
    )
    assert claims._read_rows(tmp_path / "claims.csv")["datasets-heads-films"]["status"] == "not yet"


# --- verdicts ---

NOTHING = float("nan")


@pytest.mark.parametrize(
    "published, measured, low, high, why, verdict, reason",
    [
        (".85", 0.84, 0.80, 0.88, {}, "compatible", "the published value lies inside the interval."),
        (".85", 0.74, 0.70, 0.78, {}, "contradicted", "the published value lies outside the interval."),
        (
            ".85",
            0.84,
            0.80,
            0.88,
            dict(images="other images"),
            "compatible",
            "inside the interval; other images.",
        ),
        (
            ".85",
            0.74,
            0.70,
            0.78,
            dict(images="other images"),
            "not comparable",
            "outside the interval; other",
        ),
        (
            ".85",
            0.84,
            0.80,
            0.88,
            dict(settings="96 px instead of 299"),
            "not comparable",
            "inside the interval; 96 px",
        ),
        (
            ".85",
            0.74,
            0.70,
            0.78,
            dict(settings="a", images="b"),
            "not comparable",
            "outside the interval; a.",
        ),
        (".85", 0.74, NOTHING, NOTHING, {}, "not comparable", "no interval, and the value is another."),
        (
            ".85",
            0.851,
            NOTHING,
            NOTHING,
            {},
            "reproduced",
            "no interval, and the value is the published one.",
        ),
        ("15000", 15000, NOTHING, NOTHING, {}, "reproduced", "the published one."),
        ("15000", 1600, NOTHING, NOTHING, {}, "contradicted", "the value is another."),
        ("4", 4, NOTHING, NOTHING, dict(images="synthetic"), "not comparable", "one; synthetic."),
        ("15000", 1600, NOTHING, NOTHING, dict(images="synthetic"), "not comparable", "another; synthetic."),
        (
            ".85",
            None,
            NOTHING,
            NOTHING,
            dict(missing="run 2 was not trained"),
            "not measured",
            "run 2 was not trained.",
        ),
        (
            ".85",
            NOTHING,
            NOTHING,
            NOTHING,
            dict(settings="a", images="b"),
            "not measured",
            "it was not measured.",
        ),
        (
            ".60",
            0.6,
            0.5,
            0.7,
            dict(impossible="no test set gives it"),
            "impossible",
            "no test set gives it.",
        ),
        (".60", None, NOTHING, NOTHING, dict(impossible="no test set gives it"), "impossible", "no test set"),
    ],
)
def test_a_published_number_gets_one_of_six_words_and_a_reason(
    published, measured, low, high, why, verdict, reason
):
    word, text = claims.number_verdict(published, measured, low, high, **why)
    assert word == verdict and word in claims.VERDICTS
    assert reason in text and text.endswith(".") and ".." not in text


def test_the_ends_of_an_interval_belong_to_it():
    assert claims.number_verdict(".85", 0.9, 0.85, 0.95)[0] == "compatible"
    assert claims.number_verdict(".85", 0.8, 0.75, 0.85)[0] == "compatible"


def test_a_verdict_stays_until_its_number_is_measured_again(tmp_path):
    measured, missing = "table2-1-test_accuracy", "table2-2-test_accuracy"
    claims.save_claims(
        [dict(id=measured, measured=0.5), dict(id="table2-1-auc", published="", measured=0.6)], tmp_path
    )
    verdicts = [
        dict(id=measured, verdict="not comparable", reason="a."),
        dict(id=missing, verdict="not measured", reason="b."),
    ]
    path = claims.save_verdicts(pd.DataFrame(verdicts), tmp_path)
    claims.save_claims([dict(id="datasets-heads-films", measured=3)], tmp_path)
    rows = claims._read_rows(path)
    assert (rows[measured]["verdict"], rows[measured]["measured"]) == ("not comparable", "0.5")
    assert (rows[missing]["reason"], rows[missing]["status"]) == ("b.", "not yet")
    claims.save_claims(
        [dict(id=measured, measured=0.7), dict(id="table2-1-auc", published="", measured=None)], tmp_path
    )
    claims.save_claims([], tmp_path)
    rows = claims._read_rows(path)
    assert (rows[measured]["verdict"], rows[measured]["measured"]) == ("", "0.7")
    assert "table2-1-auc" not in rows, "a new id without a number is forgotten"


def test_a_list_of_claims_without_verdicts_is_still_read(tmp_path):
    old = "id,published,measured,low,high,n,protocol,data,status\n"
    (tmp_path / "claims.csv").write_text(f"{old}table2-1-test_accuracy,.85,0.5,,,9,group,real,measured\n")
    row = claims._read_rows(claims.save_claims([], tmp_path))["table2-1-test_accuracy"]
    assert row["measured"] == "0.5" and row["verdict"] == row["reason"] == "" and row["status"] == "measured"


# --- published values and what they imply ---


def implied_fakes(**published):
    real = claims.implied_real_fraction(published, claims.PRECISION_AND_RECALL)
    return None if real is None else (1 - real[1], 1 - real[0])


def test_the_fraction_of_fakes_follows_from_precision_and_recall():
    low, high = implied_fakes(
        precision_0=f"{240 / 310:.6f}", precision_1=f"{630 / 690:.6f}", recall_0=".800000", recall_1=".900000"
    )
    assert low <= 0.7 <= high and high - low < 1e-4  # 300 real, 700 fake
    assert implied_fakes(precision_0=".9999", precision_1=".5000", recall_0=".5000", recall_1=".5000") is None
    low, high = implied_fakes(precision_0=".8428", precision_1=".8980", recall_0=".7811", recall_1=".9297")
    assert 0.674 < low < high < 0.675


def test_the_fraction_of_fakes_in_the_report_s_test_set():
    published = claims.published_values()
    low, high = claims.implied_majority(published)
    assert 0.674 < low < high < 0.675
    impossible = published.copy()
    impossible["epoch-8-precision_0"], impossible["epoch-8-recall_1"] = ".9999", ".5000"
    assert np.isnan(claims.implied_majority(impossible)).all()


@pytest.mark.parametrize("real, right_real, right_fake", [(300, 240, 630), (500, 10, 499), (1, 1, 999)])
def test_a_test_set_that_exists_is_possible(real, right_real, right_fake):
    fake = 1000 - real
    called_real, called_fake = right_real + fake - right_fake, right_fake + real - right_real
    printed = dict(
        recall_0=right_real / real,
        recall_1=right_fake / fake,
        precision_0=right_real / called_real,
        precision_1=right_fake / called_fake,
        test_accuracy=(right_real + right_fake) / 1000,
    )
    low, high = claims.implied_real_fraction({name: f"{value:.3f}" for name, value in printed.items()})
    assert low - 1e-9 <= real / 1000 <= high + 1e-9


def test_published_values_keep_their_digits():
    published = claims.published_values()
    assert published["baselines-svm-accuracy"] == ".6756" and published.index.is_unique
