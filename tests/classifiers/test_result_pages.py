"The results pages of the classifiers, run on small run folders."

import shutil
from dataclasses import replace

import nbformat
import numpy as np
import pandas as pd
import pytest
from helpers.page_run import page_settings, run_page
from noise_run import TINY

from deepfake_nbs.classifiers import findings, report
from deepfake_nbs.classifiers.tables import finished_runs
from deepfake_nbs.classifiers.training import train_run
from deepfake_nbs.runs import read_run


THREE = ("06a_classifiers", "06d_comparisons", "06e_report_reading")  # Pages on the runs of Table 1
pytestmark = pytest.mark.usefixtures("one_thread")


def test_photographs_with_what_is_kept(root, tmp_path):
    names = run_page(root, "06b_photographs", dict(run_folder=lambda *args: tmp_path))
    areas = names["aucs"]
    assert set(areas.data) == {"miniature", "real"} and areas.value.between(0, 1).all()
    assert {"file properties", "run 11, xception"} <= set(areas[areas.data.eq("real")].classifier)
    kept = pd.read_csv(root / "papers/results/mini-real.csv", index_col="id")
    shown = areas[areas.data.eq("real") & areas.classifier.eq("run 11, xception")].iloc[0]
    assert shown.value == float(kept.measured["table2-11-auc"]) and shown.n == kept.n["table2-11-auc"]
    ours = names["pairs"]["real"]
    assert {"11", "12"} <= set(ours["first"]) and len(ours) and set(ours["second"]) <= set("123456789")
    line = ours.iloc[0]
    claim = kept.loc[f"pixels-{line['first']}-minus-{line['second']}-auc"]
    assert line["difference"] == float(claim.measured) and line["n"] == claim.n
    artifacts = pd.read_csv(tmp_path / "artifacts.csv", index_col="id")
    assert {"fig-photographs", "fig-ours-photographs", "table-ours-photographs"} <= set(artifacts.index)


def test_photographs_without_kept_numbers(root, tmp_path):
    names = run_page(root, "06b_photographs", dict(run_folder=lambda *args: tmp_path), profile="full")
    assert (
        names["aucs"].empty
        and names["photographs"].photographs_sentence(names["aucs"])
        == "No results are kept for this profile."
    )
    assert not (tmp_path / "figures/fig-photographs.png").exists()


def test_classifiers_with_no_run_at_all(root, tmp_path):
    names = run_page(
        root, "06a_classifiers", dict(run_folder=lambda *args: tmp_path, read_settings=page_settings)
    )
    assert (names["results"].status == "not run").all() and names["classifier"] is None
    claims = pd.read_csv(tmp_path / "claims.csv")
    assert (claims[claims.id.str.startswith("table2-")].status == "not yet").all()


def test_comparisons_and_the_reading_of_the_report_with_no_run_at_all(root, tmp_path):
    replaced = dict(run_folder=lambda *args: tmp_path, read_settings=page_settings)
    names = run_page(root, "06d_comparisons", replaced)
    assert names["early"].empty and names["crops"].empty and names["by_method"].empty
    assert not (tmp_path / "figures/fig-9.png").exists()
    names = run_page(root, "06e_report_reading", replaced)
    assert names["trained_twice"].empty and names["leaks"].empty
    assert (tmp_path / "tables/table-arithmetic.csv").is_file(), "it needs no image"


def test_classifiers_with_two_runs(root, copy):
    for name in THREE:
        run_page(root, name, dict(run_folder=lambda *args: copy, read_settings=page_settings))
    artifacts = pd.read_csv(copy / "artifacts.csv", index_col="id")
    assert (artifacts.loc[["fig-9", "table-1", "table-2"]].status == "measured").all()
    assert all((copy / path).is_file() for path in artifacts.loc[["fig-9", "table-1", "table-2"]].path)
    claims = pd.read_csv(copy / "claims.csv", index_col="id")
    assert (
        claims.status["table2-8-test_accuracy"] == "measured"
        and claims.status["table2-2-test_accuracy"] == "not yet"
    )
    assert (copy / "models/classifier/model.safetensors").is_file()


@pytest.mark.parametrize("better, word", [(True, "higher"), (False, "lower")])
def test_classifiers_say_what_a_paired_test_shows(root, copy, better, word):
    "Validation chooses run 8; on the test split it is far better, or far worse, than run 1."
    for row in ("8", "1"):
        path = copy / "training" / row / "predictions.csv"
        frame = pd.read_csv(path, dtype={"group": str})
        right = frame.split.eq("validation") == (row == "8") if not better else row == "8"
        frame["probability"] = np.where(right, frame.label, 1 - frame.label).astype(float)
        frame.to_csv(path, index=False)
    replaced = dict(
        run_folder=lambda *args: copy,
        read_settings=lambda profile: replace(page_settings(profile), n_resamples=100),
    )
    names = run_page(root, "06a_classifiers", replaced)
    assert (
        names["chosen"] == 8
        and names["against"].difference.abs().item() == 1
        and np.isnan(names["against"].p.item())
    )
    text = report.ranking_sentence(names["ranked"], 8, names["against"])
    assert "The test shows no difference between run 8 and run 1." in text, "six groups are too few"
    assert "test AUC than" not in text and ("run 1 scored higher" in text) != better
    many = names["against"].assign(p=0.001, low=0.5, high=1.0)
    names = run_page(root, "06a_classifiers", replaced | dict(compare_runs=lambda *args, **how: many.copy()))
    text = report.ranking_sentence(names["ranked"], 8, names["against"])
    assert (
        f"Run 8 has a {word} test AUC than run 1 (paired sign-flip test over groups, Holm-adjusted p < .05)."
        in text
    )
    assert "no difference" not in text and ("On the test split" in text) != better


def test_the_training_page_trains_a_run_of_table_1_and_another(root, copy):
    replaced = dict(run_folder=lambda *args: copy, read_settings=page_settings)
    names = run_page(root, "06_training_run", replaced, profile="smoke", row=6)
    assert names["name"] == "6" and read_run(copy / "training/6")["config"]["net"] == "light"
    names = run_page(
        root, "06_training_run", replaced, profile="smoke", row=6, net="midway", epochs=1, crop="no"
    )
    assert names["name"].startswith("custom-midway-adam") and sorted(finished_runs(copy)) == [1, 6, 8]


def test_parameters_of_the_pages(root):
    def parameters(name):
        (cell,) = [
            c
            for c in nbformat.read(root / "nbs" / f"{name}.ipynb", as_version=4).cells
            if "parameters" in c.metadata.get("tags", [])
        ]
        names = {}
        exec(cell.source, names)
        return {k: v for k, v in names.items() if not k.startswith("__")}

    both = dict(profile="mini", data="data/miniature")
    for name in ("05_architectures", *THREE, "06b_photographs", "conclusions"):
        assert parameters(name) == both
    assert parameters("06_training_run") == both | dict(
        row=8,
        net="",
        optimiser="",
        learning_rate=0.0,
        batch_size=0,
        epochs=0,
        crop="",
        seed=0,
        protocol="",
        schedule="",
        augment="",
        window=0.0,
        patience=0,
        precision="",
        weights="",
        name="",
        overwrite=False,
    )


def test_classifiers_with_everything(root, copy):
    "Both protocols, both schedules, crops and baselines' absence: every cell runs and says something."
    shutil.copytree(copy / "cvcs_dfd", copy / "cvcs_cropped_dfd")
    for name, config in {
        "9": replace(TINY, row=9, epochs=1),
        "7": replace(TINY, row=7, crop=True, epochs=1),
        "1-published": replace(TINY, row=0, epochs=2, protocol="published"),
        "1-cosine": replace(TINY, row=0, epochs=2, schedule="cosine"),
    }.items():
        train_run(copy, config, name)
    replaced = dict(run_folder=lambda *args: copy, read_settings=page_settings)
    names, *_ = (run_page(root, name, replaced) for name in THREE)
    tables = pd.read_csv(copy / "artifacts.csv", index_col="id").query("status == 'measured'").index
    wanted = {
        "table-1",
        "table-2",
        "table-2-published",
        "table-row-against-row",
        "table-crops-and-whole",
        "table-methods",
        "table-protocols",
        "table-epochs",
        "table-arithmetic",
        "table-all-rows",
        "fig-9",
        "fig-all-rows",
    }
    assert (
        wanted <= set(tables)
        and len(names["against"]) == 3
        and not (names["against"].holm < names["against"].p).any()
    )
    claims = pd.read_csv(copy / "claims.csv", index_col="id").status
    assert (
        claims["table2-1-auc"]
        == claims["table2-1-test_accuracy-published"]
        == claims["table1-1-net"]
        == "measured"
    )
    assert claims["epoch-8-accuracy"] == "not yet"


def test_architectures_are_drawn_and_measured(root, tmp_path):
    names = run_page(
        root, "05_architectures", dict(run_folder=lambda *args: tmp_path, read_settings=page_settings)
    )
    artifacts = pd.read_csv(tmp_path / "artifacts.csv", index_col="id")
    made = artifacts[artifacts.status.eq("measured")]
    assert {"fig-6", "fig-7", "fig-8", "table-variants"} <= set(made.index) and set(made.notebook) == {
        "05_architectures"
    }
    assert (
        all((tmp_path / path).is_file() for path in made.path)
        and (names["variants"].images_per_second > 0).all()
    )


def test_conclusions_of_a_run_and_without_one(root, copy, tmp_path, monkeypatch):
    monkeypatch.setattr(findings, "project_root", lambda: project)
    project = tmp_path / "project"
    shutil.copytree(root / "papers" / "original", project / "papers" / "original")
    nothing = dict(run_folder=lambda *args: tmp_path / "nothing")
    without = run_page(root, "conclusions", nothing)["tables"]
    assert not (tmp_path / "nothing").exists() and list(without) == ["embedded data", "photographs"]
    for table in without.values():
        assert set(table.verdict) == {"contradicted", "impossible", "not measured"}
    for name in THREE:
        run_page(root, name, dict(run_folder=lambda *args: copy, read_settings=page_settings))
    names = run_page(root, "conclusions", dict(run_folder=lambda *args: copy))
    before, after = (
        tables["embedded data"].set_index("claim").verdict for tables in (without, names["tables"])
    )
    changed = set(after.index[after.ne(before)])
    assert changed == {
        "Run 8 is better after epoch 8 than after epoch 24",
        "Training longer than about eight epochs does not help (runs 1 to 9)",
        "Many images are classified as 0 (real): more than there are",
    }, "two runs of two epochs answer no more"
    assert after["Run 8 is better after epoch 8 than after epoch 24"] == "not comparable"
    assert names["tables"]["photographs"].equals(without["photographs"])
    assert "table-conclusions" in set(pd.read_csv(copy / "artifacts.csv").query("status == 'measured'").id)
    kept = pd.read_csv(copy / "claims.csv", index_col="id").status
    assert kept["conclusion-epoch_8"] == "measured" and kept["conclusion-adam"] == "not yet"
