"What `make report` says at its end: each sentence from a file of the run folder."
import os

from deepfake_nbs import comparison
from deepfake_nbs.comparison import read_areas, say_suspicious
from deepfake_nbs.claims import save_claims


def test_a_report_without_parts_says_what_is_missing(tmp_path):
    assert comparison.say_findings(tmp_path) == ["Best configuration: none, as no training run is finished.", "Leakage: not audited yet.",
                                                 "Suspicious data: not looked for yet (chapter 04a).", "On disk: 0 MB."]


def test_a_report_ends_with_what_its_files_hold(tmp_path, monkeypatch):
    records = {8: dict(config=dict(net="light"), crop=True), 10: dict(config=dict(net="midway"), crop=False)}
    monkeypatch.setattr(comparison, "finished_rows", lambda run: records)
    monkeypatch.setattr(comparison, "best_row", lambda run: 8)
    claims = tmp_path / "claims.csv"
    claims.write_text(
        "id,measured,low,high,n,status\ntable1-8-crop,yes,,,,measured\ntable2-8-auc,0.8,0.7,0.9,60,measured\ntable2-10-auc,,,,,not yet\n"
        "baselines-group-file_only-auc,0.52,0.45,0.58,60,measured\nbaselines-group-colour_histogram-auc,0.7,0.6,0.8,60,measured\n"
        "baselines-published-border_only-auc,0.9,0.8,0.95,60,measured\n")
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "table-audit.csv").write_text(
        "protocol,what,total,crossing,test_images,share_of_test\ngroup,groups,72,0,0,0.0\ngroup,near-duplicates,600,3,2,0.023\n"
        "published,videos,35,32,58,0.644\npublished,identical files,600,0,0,0.0\n")
    (tmp_path / "cvcs_dfd").mkdir()
    (tmp_path / "cvcs_dfd" / "rejected.csv").write_text("path,reason\na.jpg,empty\n")
    os.link(claims, tmp_path / "again.csv")
    assert comparison.say_findings(tmp_path)[:-1] == [
        "Best configuration on validation: 8 (light, cropped heads), AUC 0.800 [0.700, 0.900] on 60 test images.",
        "Leakage, group split: 3 of 600 images have a near-duplicate in another split (2% of the test images).",
        "Leakage, published split: 32 of 35 videos stand in several splits (64% of the test images).",
        "Suspicious: colours alone give AUC 0.700 [0.600, 0.800] on 60 test images; the classes differ in more than the manipulation.",
        "1 image could not be used: cvcs_dfd/rejected.csv."]
    claims.write_text("id,measured,low,high,n,status\ntable2-8-auc,0.6,0.45,0.7,60,measured\nbaselines-group-file_only-auc,0.5,0.4,0.6,60,measured\n")
    unsure = "on 60 test images, which is not shown to be above chance level."
    assert comparison.say_best(tmp_path).endswith(f"AUC 0.600 [0.450, 0.700] {unsure}")
    assert comparison.say_suspicious(tmp_path)[0] == "Nothing suspicious: file properties do not tell real from fake."
    claims.write_text("id,measured,low,high,n,status\ntable2-8-auc,0.6,,,60,measured\n")  # Too few groups for an interval
    assert comparison.say_best(tmp_path).endswith(f"AUC 0.600 (no interval: too few groups) {unsure}")
    claims.unlink()
    unread = "Best configuration on validation: 8 (light, cropped heads); its test split has not been read yet."
    assert comparison.say_best(tmp_path) == unread
    broken = comparison.TrainingError("weights changed")

    def refuse(run):
        raise broken

    monkeypatch.setattr(comparison, "best_row", refuse)
    assert comparison.say_best(tmp_path) == "Best configuration: unknown (weights changed)."


def test_the_size_of_a_run_counts_a_linked_image_once(tmp_path):
    (tmp_path / "a.bin").write_bytes(bytes(3_000_000))
    os.link(tmp_path / "a.bin", tmp_path / "b.bin")
    assert comparison.say_findings(tmp_path)[-1] == "On disk: 3 MB."


def test_findings_of_a_test_split_with_few_groups(tmp_path):
    "Claims whose interval is not given: the report says so, and does not end in an error."
    claims = [dict(id=f"baselines-group-{name}-auc", published="", measured=0.5, low=float("nan"), high=float("nan"), n=60)
              for name in ("file_only", "border_only")]
    save_claims(claims, tmp_path)
    assert ",nan" not in (tmp_path / "claims.csv").read_text()
    assert read_areas(tmp_path)["low"].isna().all() and read_areas(tmp_path)["measured"].tolist() == [0.5, 0.5]
    said = "Suspicious data: too few groups to say whether file properties, the image border tell real from fake."
    assert say_suspicious(tmp_path) == [said]
