"Lines under figures and tables: what they say of a run, and what they do not say of a machine."

import json

import pytest

from deepfake_nbs import claims, provenance
from deepfake_nbs.core import project_root, run_record, write_text


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "mini-real"
    write_text(folder / "settings.json", json.dumps(dict(name="mini", data="/somewhere/sets/real", seed=42)))
    rows = ["fig-1,figure,figures/fig-1.png,01_datasets,measured", "table-1,table,,06a_classifiers,not yet"]
    write_text(folder / "artifacts.csv", "\n".join([",".join(claims.ARTIFACT_COLUMNS), *rows]) + "\n")
    return folder


def test_data_elsewhere_are_named_by_their_folder_alone(run):
    line = provenance.made_by("fig-1", run)
    assert line.startswith(
        "Make it: `make report PROFILE=mini DATA=<folder>/real` · run `mini-real` · seed 42"
    )
    assert "/somewhere" not in line


@pytest.mark.parametrize("data, expected", [("data/miniature", ""), ("data/sets/own", " DATA=data/sets/own")])
def test_data_of_the_project_are_named_relative_to_it(run, data, expected):
    write_text(run / "settings.json", json.dumps(dict(name="smoke", data=str(project_root() / data))))
    assert provenance.report_command(run) == f"make report PROFILE=smoke{expected}"
    assert "seed" not in provenance.made_by("fig-1", run)


def test_what_the_run_did_not_make_has_no_line(run, tmp_path):
    assert provenance.made_by("fig-4", run) == provenance.download("table-1", run) == ""
    assert provenance.made_by("fig-1", tmp_path / "none") == provenance.download("x", tmp_path / "none") == ""


def test_the_commit_is_that_of_the_code(run, monkeypatch):
    commit = run_record({}, 0)["commit"]
    line = provenance.made_by("fig-1", run)
    assert (f" · commit {commit[:7]}" in line) == (commit != "unknown")
    monkeypatch.setattr(provenance, "code_now", lambda: ("unknown", False))
    assert "commit" not in provenance.made_by("fig-1", run)


def test_trainings_are_named_by_seeds_commit_and_minutes(run, monkeypatch):
    monkeypatch.setattr(provenance, "code_now", lambda: ("aaaaaaabbbbb", False))
    records = [dict(commit="aaaaaaabbbbb", dirty=False, seed=2, wall_seconds=100.0)]
    line = provenance.made_by("fig-1", run, "80 images", records)
    assert line.endswith("seed 2 · commit aaaaaaa · trained in 2 minutes · n 80 images")
    records.append(dict(commit="cccccccddddd", dirty=True, seed=1))
    line = provenance.made_by("fig-1", run, records=iter(records))
    assert line.endswith(
        "seeds 1, 2 · commit aaaaaaa · trained at commit ccccccc with changes · trained in 2 minutes"
    )


def test_only_a_kept_table_becomes_a_link(tmp_path):
    kept = tmp_path / "mini-miniature"
    write_text(kept / "table-2.csv", "row,published\n")
    text = "Before\n\nDownload: `tables/table-2.csv` of the run folder"
    assert (
        provenance.link_kept(text, kept)
        == "Before\n\nDownload: [CSV](../papers/results/mini-miniature/table-2.csv)"
    )
    for other in (
        "Download: `tables/table-3.csv` of the run folder",
        "See `tables/table-2.csv` of the run folder.",
    ):
        assert provenance.link_kept(other, kept) == other


def test_a_finding_names_its_data_and_what_other_data_say(tmp_path):
    assert provenance.on_data("data/miniature", "x").startswith("**Embedded data (synthetic portraits).** x")
    assert provenance.data_words("/somewhere/own") == "images of `own`"
    assert "synthetic portraits" in provenance.source_note("data/miniature")
    write_text(tmp_path / "mini-real" / "calibration.csv", "ece,ece_why\n0.25,\n0.5,4 groups\n")
    seen = []
    text = provenance.on_other_data(
        "table-calibration", "mini", "data/miniature", lambda table: seen.append(table) or "said", tmp_path
    )
    assert text == "**On photographs** (`papers/results/mini-real/calibration.csv`): said"
    assert seen[0]["ece_why"].tolist() == ["", "4 groups"] and seen[0]["ece"].tolist() == [0.25, 0.5]
    none = provenance.on_other_data("table-x", "mini", "/somewhere/real", lambda table: "said", tmp_path)
    assert none == "**On embedded data (synthetic portraits):** no such table is kept for the profile `mini`."


@pytest.mark.parametrize("id", ["defects", "transfer-means", "robustness", "calibration", "heatmaps"])
def test_pages_can_say_what_is_kept_of_photographs(id):
    from deepfake_nbs.audit import calibration, defect_study, heatmaps, robustness, transfer

    say = {
        "defects": defect_study.short_sentence,
        "transfer-means": transfer.means_sentence,
        "robustness": robustness.robustness_sentence,
        "calibration": calibration.error_sentence,
        "heatmaps": heatmaps.kept_heatmap_sentences,
    }[id]
    text = provenance.on_other_data(f"table-{id}", "mini", "data/miniature", say)
    assert text.startswith("**On photographs** (`papers/results/mini-real/") and "nan" not in text
