"What `make report` says at its end, and the verdicts: each sentence from a file of the run folder."

import os
import shutil

import pandas as pd
import pytest

from deepfake_nbs.claims import VERDICTS, save_claims
from deepfake_nbs.classifiers import findings
from deepfake_nbs.classifiers.findings import read_aucs, sanity_check_sentences
from deepfake_nbs.classifiers.tables import check_arithmetic, printed_table2
from deepfake_nbs.core import project_root
from deepfake_nbs.runs import TrainingError


def test_a_report_without_parts_says_what_is_missing(tmp_path):
    assert findings.describe_findings(tmp_path) == [
        "Best configuration: none, as no training run is finished.",
        "Leakage: not audited yet.",
        "Suspicious data: not looked for yet (page 04_baselines).",
        "On disk: 0 MB.",
    ]


def test_a_report_ends_with_what_its_files_hold(tmp_path, monkeypatch):
    records = {8: dict(config=dict(net="light"), crop=True), 10: dict(config=dict(net="midway"), crop=False)}
    monkeypatch.setattr(findings, "finished_runs", lambda run: records)
    monkeypatch.setattr(findings, "best_run", lambda run: 8)
    claims = tmp_path / "claims.csv"
    claims.write_text(
        "id,measured,low,high,n,status\ntable1-8-crop,yes,,,,measured\ntable2-8-auc,0.8,0.7,0.9,60,measured\ntable2-10-auc,,,,,not yet\n"
        "baselines-group-file_only-auc,0.52,0.45,0.58,60,measured\nbaselines-group-colour_histogram-auc,0.7,0.6,0.8,60,measured\n"
        "baselines-published-border_only-auc,0.9,0.8,0.95,60,measured\n"
    )
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "table-audit.csv").write_text(
        "protocol,what,total,crossing,test_images,share_of_test\ngroup,groups,72,0,0,0.0\ngroup,near-duplicates,600,3,2,0.023\n"
        "published,videos,35,32,58,0.644\npublished,identical files,600,0,0,0.0\n"
    )
    (tmp_path / "cvcs_dfd").mkdir()
    (tmp_path / "cvcs_dfd" / "rejected.csv").write_text("path,reason\na.jpg,empty\n")
    os.link(claims, tmp_path / "again.csv")
    assert findings.describe_findings(tmp_path)[:-1] == [
        "Best configuration on validation: 8 (light, cropped heads), AUC 0.800 [0.700, 0.900] on 60 test images.",
        "Leakage, group split: 3 of 600 images have a near-duplicate in another split (2% of the test images).",
        "Leakage, published split: 32 of 35 videos stand in several splits (64% of the test images).",
        "Suspicious: AUC 0.700 [0.600, 0.800] on 60 test images from colours alone; the classes differ in more than the manipulation.",
        "1 image could not be used: cvcs_dfd/rejected.csv.",
    ]
    claims.write_text(
        "id,measured,low,high,n,status\ntable2-8-auc,0.6,0.45,0.7,60,measured\nbaselines-group-file_only-auc,0.5,0.4,0.6,60,measured\n"
    )
    unsure = "on 60 test images, which is not shown to be above chance level."
    assert findings.best_run_sentence(tmp_path).endswith(f"AUC 0.600 [0.450, 0.700] {unsure}")
    assert (
        findings.sanity_check_sentences(tmp_path)[0]
        == "Nothing suspicious: file properties do not tell real from fake."
    )
    claims.write_text(
        "id,measured,low,high,n,status\ntable2-8-auc,0.6,,,60,measured\n"
    )  # Too few groups for an interval
    assert findings.best_run_sentence(tmp_path).endswith(f"AUC 0.600 (no interval: too few groups) {unsure}")
    claims.unlink()
    unread = (
        "Best configuration on validation: 8 (light, cropped heads); its test split has not been read yet."
    )
    assert findings.best_run_sentence(tmp_path) == unread
    broken = TrainingError("weights changed")

    def refuse(run):
        raise broken

    monkeypatch.setattr(findings, "best_run", refuse)
    assert findings.best_run_sentence(tmp_path) == "Best configuration: unknown (weights changed)."


def test_the_size_of_a_run_counts_a_linked_image_once(tmp_path):
    (tmp_path / "a.bin").write_bytes(bytes(3_000_000))
    os.link(tmp_path / "a.bin", tmp_path / "b.bin")
    assert findings.describe_findings(tmp_path)[-1] == "On disk: 3 MB."


def test_findings_of_a_test_split_with_few_groups(tmp_path):
    "Claims whose interval is not given: the report says so, and does not end in an error."
    claims = [
        dict(
            id=f"baselines-group-{name}-auc",
            published="",
            measured=0.5,
            low=float("nan"),
            high=float("nan"),
            n=60,
        )
        for name in ("file_only", "border_only")
    ]
    save_claims(claims, tmp_path)
    assert ",nan" not in (tmp_path / "claims.csv").read_text()
    assert read_aucs(tmp_path)["low"].isna().all() and read_aucs(tmp_path)["measured"].tolist() == [0.5, 0.5]
    expected = "Suspicious data: too few groups to say whether file properties, the image border tell real from fake."
    assert sanity_check_sentences(tmp_path) == [expected]


# --- verdicts ---------------------------------------------------------------------------------------------------------

NOTHING = float("nan")


@pytest.mark.parametrize(
    "low, high, verdict",
    [
        (0.01, 0.2, "reproduced"),
        (-0.2, -0.01, "contradicted"),
        (-0.1, 0.1, "compatible"),
        (NOTHING, NOTHING, "not comparable"),
    ],
)
def test_a_direction_gets_its_verdict_from_the_interval(low, high, verdict):
    assert findings.direction_verdict(low, high) == verdict


def conclude(claims=None):
    "Conclusions on made-up claims: measured, low, high, n[, protocol]."
    rows = {id: [*values, *[""] * (5 - len(values))] for id, values in (claims or {}).items()}
    measured = pd.DataFrame(rows, index=["measured", "low", "high", "n", "protocol"]).T
    table2 = printed_table2()
    table = findings.conclusions_table(measured, table2, check_arithmetic(table2))
    assert set(table["verdict"]) <= set(VERDICTS)
    assert not table[["section", "claim", "source", "published"]].eq("").any(axis=None)
    return table.set_index("claim")


def line_of(id, claims):
    listed = pd.read_csv(project_root() / "papers/original/claims.csv", dtype=str).set_index("id")
    return conclude(claims).loc[listed.loc[id, "claim"]]


def test_conclusions_without_a_run_rest_on_the_report_alone():
    table = conclude()
    assert table.verdict.value_counts().to_dict() == {"not measured": 21, "contradicted": 3, "impossible": 1}
    impossible = table[table.verdict.eq("impossible")].iloc[0]
    assert impossible.measured == "no test set gives run 7"
    assert "0.499 to 0.507 in run 7" in table.measured["All nine runs were measured on one test set"]
    assert "in 3 of 9 runs" in table.measured[table.index.str.contains("own precision")].iloc[0]
    assert findings.verdict_sentence(table.reset_index()).endswith(
        "3 contradicted, 1 impossible, 21 not measured."
    )


def test_every_conclusion_of_the_list_is_on_the_page():
    listed = pd.read_csv(project_root() / "papers/original/claims.csv", dtype=str)
    wanted = listed[listed["id"].str.startswith("conclusion-")]
    assert len(wanted) == 16 and set(wanted["claim"]) <= set(conclude().index)


def test_numbers_on_other_images_are_shown_and_never_called_wrong():
    table = conclude(
        {"baselines-forest-accuracy": [0.6, 0.5, 0.7, 88], "retrieval-common": [4.2, NOTHING, NOTHING, 60]}
    )
    forest = table.loc["Accuracy of the random forest on SIFT words"]
    assert (forest.published, forest.measured, forest.verdict) == (
        ".5843 (.6753 in a later version)",
        "0.600 [0.500, 0.700]",
        "compatible",
    )
    outside = conclude({"baselines-forest-accuracy": [0.8, 0.7, 0.9, 88]})
    assert outside.verdict["Accuracy of the random forest on SIFT words"] == "not comparable"
    more = conclude({"baselines-forest-accuracy": [0.6, 0.5, 0.7, 88], "baselines-forest-trees": [1000]})
    assert more.verdict["Accuracy of the random forest on SIFT words"] == "not comparable"
    assert table.verdict.str.cat(sep=" ").count("not comparable") == 1


@pytest.mark.parametrize(
    "phase2, verdict",
    [([0.8, 0.7, 0.9], "reproduced"), ([0.5, 0.45, 0.62], "compatible"), ([0.2, 0.1, 0.3], "contradicted")],
)
def test_fine_tuning_is_a_direction(phase2, verdict):
    table = conclude({"heads-phase1-map": [0.5, 0.4, 0.6, 57], "heads-phase2-map": [*phase2, 57]})
    row = table.loc["Fine-tuning raises the average precision of the head detector"]
    assert (row.verdict, row.published) == (verdict, ".85 to .88")


@pytest.mark.parametrize(
    "low, high, verdict", [(0.01, 0.2, "reproduced"), (-0.2, -0.1, "contradicted"), (-0.1, 0.1, "compatible")]
)
def test_a_conclusion_about_runs_is_a_direction(low, high, verdict):
    row = line_of(
        "conclusion-adam",
        {"conclusion-adam": [(low + high) / 2, low, high, 900, "group, 3 seeds a run; AUC"]},
    )
    assert row.verdict == verdict and row.measured.endswith("(AUC; 3 seeds a run)") and row.n == 900
    assert (row.source, row.published) == ("its text", "accuracy .843; .824 and .776")


def test_networks_that_did_not_learn_are_not_compared():
    claim = {"conclusion-adam": [0.1, 0.05, 0.15, 900, "group; AUC"]}
    chance = {f"table2-{number}-validation_auc": [0.52, 0.45, 0.6, 900] for number in (2, 4, 5)}
    row = line_of("conclusion-adam", claim | chance)
    assert row.verdict == "not comparable" and "none of these networks learned" in row.measured
    one = chance | {"table2-2-validation_auc": [0.7, 0.65, 0.75, 900]}
    assert line_of("conclusion-adam", claim | one).measured.endswith("; runs 4 and 5 did not learn")
    assert line_of("conclusion-adam", claim | one).verdict == "reproduced", (
        "one that learned beats two that did not"
    )
    too_few = {id: [0.6, NOTHING, NOTHING, 20] for id in chance}
    assert line_of("conclusion-adam", claim | too_few).verdict == "reproduced", (
        "unknown stands against nothing"
    )


@pytest.mark.parametrize("id", ["conclusion-epoch_8", "conclusion-more_epochs"])
def test_a_claim_about_epoch_24_needs_as_many_epochs(id):
    claim = {id: [0.02, 0.01, 0.03, 88, "group, 1 seed a run; accuracy, epoch 8 minus 25, run 8"]}
    long, short = (line_of(id, claim | {"table1-8-epochs": [n, NOTHING, NOTHING, ""]}) for n in (25, 3))
    assert long.verdict == "reproduced" and "+0.020 [+0.010, +0.030]" in long.measured
    assert short.verdict == "not comparable" and "trained for 3 epochs, not 24" in short.measured
    assert line_of(id, claim).verdict == "not comparable"


def test_leakage_and_settings_without_predictions():
    leak = {
        "conclusion-independence": [-36, NOTHING, NOTHING, 72, "published; 36 of 72 groups in several splits"]
    }
    row = line_of("conclusion-independence", leak)
    assert (row.measured, row.verdict) == (
        "36 of 72 groups in several splits of the leakage audit",
        "contradicted",
    )
    none = {
        "conclusion-independence": [0, NOTHING, NOTHING, 72, "published; 0 of 72 groups in several splits"]
    }
    assert line_of("conclusion-independence", none).verdict == "not comparable"
    search = {
        "conclusion-small_c": [
            -0.02,
            NOTHING,
            NOTHING,
            NOTHING,
            "group; validation accuracy, best C below 1 ...",
        ]
    }
    row = line_of("conclusion-small_c", search)
    assert row.verdict == "not comparable" and "no predictions kept" in row.measured


def test_cosine_is_read_from_the_claims_of_retrieval():
    ids = [f"retrieval-original-all-none-harris-{how}-map" for how in ("cosine", "euclidean")]
    row = line_of("conclusion-cosine", {ids[0]: [0.5, 0.45, 0.55, 126], ids[1]: [0.3, 0.25, 0.35, 126]})
    assert row.verdict == "reproduced" and row.measured.startswith("+0.200 [+0.100, +0.300]")


@pytest.fixture
def project(tmp_path, monkeypatch):
    root = project_root()
    (tmp_path / "papers" / "results").mkdir(parents=True)
    shutil.copytree(root / "papers" / "original", tmp_path / "papers" / "original")
    shutil.copy(root / "settings.ini", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_claims(path, **values):
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [
        f"{id.replace('__', '-')},{value},{value - 0.1},{value + 0.1},90,group; AUC,measured"
        for id, value in values.items()
    ]
    path.write_text("\n".join(["id,measured,low,high,n,protocol,status", *lines]) + "\n")


def test_two_sets_of_data_stand_side_by_side(project):
    run, kept = project / "data" / "runs" / "mini-miniature", project / "papers" / "results"
    empty = findings.measured_sets(run, "mini", "data/miniature")
    assert list(empty) == ["embedded data", "photographs"] and all(
        len(claims) == 0 for _, claims in empty.values()
    )
    write_claims(kept / "mini-real.csv", conclusion__adam=-0.2)
    write_claims(kept / "mini-miniature.csv", conclusion__adam=0.05)
    without = findings.measured_sets(run, "mini", "data/miniature")
    assert without["embedded data"][0] == "results/mini-miniature.csv"
    write_claims(run / "claims.csv", conclusion__adam=0.2)
    sets = findings.measured_sets(run, "mini", "data/miniature")
    assert {name: text for name, (text, _) in sets.items()} == {
        "embedded data": "mini-miniature/claims.csv",
        "photographs": "results/mini-real.csv",
    }
    table2 = printed_table2()
    tables = {
        n: findings.conclusions_table(c, table2, check_arithmetic(table2)) for n, (_, c) in sets.items()
    }
    beside = findings.conclusions_beside(tables).set_index("claim")
    row = beside[beside.index.str.startswith("Adam")].iloc[0]
    assert row["embedded data: verdict"] == "reproduced" and row["photographs: verdict"] == "contradicted"
    assert row["embedded data: measured"] == "+0.200 [+0.100, +0.300] (AUC) (n=90)"
    write_claims(run / "tables" / "results-retrieval.csv", beyond__the__report=0.4)
    more = findings.measured_sets(run, "mini", "data/miniature")["embedded data"][1]
    assert list(more.index) == ["conclusion-adam", "beyond-the-report"], (
        "as in the file that is kept of the run"
    )
    assert beside.shape[1] + 1 == 8, "a table for reading has at most eight columns"
    assert list(beside)[1:3] == ["embedded data: verdict", "photographs: verdict"], "seen on a telephone"
    text = findings.conclusions_text(sets, tables)
    assert text.startswith("Reproduced on embedded data and photographs: no conclusion. Refuted on ")
    assert (
        "on the photographs:" in text
        and "agree on 24 conclusions" in text
        and "`results/mini-real.csv`" in text
    )


def test_the_other_set_falls_back_to_mini_and_photographs_stand_first_on_their_own_page(project):
    kept = project / "papers" / "results"
    write_claims(kept / "mini-real.csv", conclusion__adam=-0.2)
    assert (
        findings.measured_sets(project / "no", "full", "data/own")["photographs"][0]
        == "results/mini-real.csv"
    )
    assert list(findings.measured_sets(project / "no", "mini", "../shared/real")) == [
        "photographs",
        "embedded data",
    ]
    write_claims(kept / "smoke-real.csv", conclusion__adam=0.2)
    smoke = findings.measured_sets(project / "no", "smoke", "data/own")
    assert smoke["photographs"][0] == "results/mini-real.csv", "the smallest profile is no evidence"
    write_claims(kept / "full-real.csv", conclusion__adam=0.2)
    assert (
        findings.measured_sets(project / "no", "full", "data/own")["photographs"][0]
        == "results/full-real.csv"
    )
