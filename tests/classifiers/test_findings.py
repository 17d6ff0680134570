"What `make report` says at its end, and the verdicts: each sentence from a file of the run folder."

import os

import pandas as pd
import pytest

from deepfake_nbs.claims import save_claims
from deepfake_nbs.classifiers import findings
from deepfake_nbs.classifiers.findings import read_aucs, sanity_check_sentences
from deepfake_nbs.classifiers.tables import check_arithmetic, printed_table2
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
        "Suspicious: colours alone give AUC 0.700 [0.600, 0.800] on 60 test images; the classes differ in more than the manipulation.",
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


def conclude(claims=None, **saved):
    measured = pd.DataFrame(claims or {}, index=["measured", "low", "high", "n"]).T
    table2 = printed_table2()
    table = findings.conclusions_table(
        measured,
        lambda name: saved.get(name.replace("-", "_"), pd.DataFrame()),
        table2,
        check_arithmetic(table2),
    )
    assert set(table["verdict"]) <= set(findings.VERDICTS) and not table[
        ["section", "claim", "published"]
    ].eq("").any(axis=None)
    return table.set_index("claim")


def test_conclusions_without_a_run_rest_on_the_report_alone():
    table = conclude()
    assert table.verdict.value_counts().to_dict() == {"not measured": 8, "contradicted": 2, "impossible": 1}
    impossible = table[table.verdict.eq("impossible")].iloc[0]
    assert impossible.measured == "no test set gives run 7"
    assert "0.499 to 0.507 in run 7" in table.measured["All nine runs were measured on one test set"]
    assert findings.verdict_sentence(table.reset_index()).endswith(
        "2 contradicted, 1 impossible, 8 not measured."
    )


def test_numbers_on_other_images_are_shown_and_never_called_wrong():
    table = conclude(
        {"baselines-forest-accuracy": [0.6, 0.5, 0.7, 88], "retrieval-common": [4.2, NOTHING, NOTHING, 60]}
    )
    forest = table.loc["Accuracy of the random forest on SIFT words"]
    assert (forest.published, forest.measured, forest.verdict) == (
        ".5843 (.6753 in a later version)",
        "0.600 [0.500, 0.700]",
        "not comparable",
    )
    assert table.verdict.str.cat(sep=" ").count("not comparable") == 2


@pytest.mark.parametrize(
    "phase2, verdict",
    [([0.8, 0.7, 0.9], "reproduced"), ([0.5, 0.45, 0.62], "compatible"), ([0.2, 0.1, 0.3], "contradicted")],
)
def test_fine_tuning_is_a_direction(phase2, verdict):
    table = conclude({"heads-phase1-map": [0.5, 0.4, 0.6, 57], "heads-phase2-map": [*phase2, 57]})
    row = table.loc["Fine-tuning raises the average precision of the head detector"]
    assert (row.verdict, row.published) == (verdict, ".85 to .88")


def test_the_saved_tables_answer_leakage_cropping_and_epochs():
    audit = pd.DataFrame(
        [
            dict(protocol=protocol, what="groups", total=72, crossing=crossing)
            for protocol, crossing in (("group", 0), ("published", 36))
        ]
    )
    crops = pd.DataFrame([dict(cropped_row=2, whole_row=3, difference=0.1, low=0.05, high=0.15, n=88)])
    early = pd.DataFrame(
        [
            dict(run="8-cosine", early_epoch=1, last_epoch=25, difference=0.5, low=0.4, high=0.6, n=88),
            dict(run=8, early_epoch=8, last_epoch=25, difference=0.02, low=0.01, high=0.03, n=88),
        ]
    )
    table = conclude(table_audit=audit, table_crops_and_whole=crops, table_epochs=early)
    assert table.loc[
        "The test images are independent of the training images", ["measured", "verdict"]
    ].tolist() == ["36 of 72 groups in several splits", "contradicted"]
    row = table.loc["MidwayXception is better on whole images than on head crops (runs 3 and 2)"]
    assert row.measured == "AUC difference -0.100 [-0.150, -0.050]" and row.verdict == "contradicted"
    claim = "Run 8 is better after epoch 8 than after epoch 24"
    assert (
        table.loc[claim, "verdict"] == "reproduced"
        and "+0.020 [+0.010, +0.030]" in table.loc[claim, "measured"]
    )
    short = conclude(table_epochs=early.assign(last_epoch=3))
    assert short.loc[claim, "verdict"] == "not comparable"
