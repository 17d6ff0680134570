"A whole run: what it learns, how it is resumed, what it leaves."

import json

import numpy as np
import pandas as pd
import pytest

from deepfake_nbs.baselines import controls, study


def test_the_codebook_saw_training_images_only(easy, tmp_path, train_of, small):
    folder, manifest = easy
    study.run_baselines(manifest, folder, tmp_path / "run", small, tmp_path / "sift")
    words = study.make_words(small, tmp_path / "sift").fit(train_of(easy)[0])
    by_split = manifest.groupby("split")["sha256"].agg(set)
    assert words.sha256_ == by_split["train"]
    assert not words.sha256_ & (by_split["test"] | by_split["validation"])
    np.testing.assert_array_equal(study.read_words(tmp_path / "run", small).codebook_, words.codebook_)  # and the run used this one


def test_a_run_learns_what_can_be_learned_and_says_the_same_twice(easy, tmp_path, counted, small):
    folder, manifest = easy
    record = study.run_baselines(manifest, folder, tmp_path / "one", small, tmp_path / "sift", data="easy")
    assert len(counted) == len(manifest)  # once an image, in two searches, two calibrations and all baselines
    tables = study.read_baselines(tmp_path / "one")
    metrics = controls.score_classifiers(tables["predictions"].query("split == 'test'"), 50).set_index(["classifier", "metric"])["value"]
    assert metrics[study.SIFT_CLASSIFIERS[0], "accuracy"] > 0.9 and metrics[study.SIFT_CLASSIFIERS[1], "accuracy"] > 0.9
    assert metrics["constant", "balanced_accuracy"] == 0.5
    assert record["counts"] == {"train": 48, "validation": 12, "test": 12} and record["n"] == 12
    study.run_baselines(manifest, folder, tmp_path / "two", small, tmp_path / "sift")
    for name in study.STUDY_FILES[:3]:
        assert (tmp_path / "one" / name).read_text() == (tmp_path / "two" / name).read_text()


def test_a_finished_run_is_read_an_interrupted_one_is_resumed_another_starts_again(easy, tmp_path, monkeypatch, small):
    folder, manifest = easy
    out, cache = tmp_path / "run", tmp_path / "sift"
    first, searched = study.run_baselines(manifest, folder, out, small, cache), []
    monkeypatch.setattr(study, "search_svm", lambda *a, search=study.search_svm, **k: searched.append(1) or search(*a, **k))
    assert study.run_baselines(manifest, folder, out, small, cache) == first
    (out / "run.json").unlink()
    (out / "predictions.csv").unlink()
    study.run_baselines(manifest, folder, out, small, cache)
    assert (out / "predictions.csv").is_file() and not searched
    moved = manifest.assign(split=manifest["split"].replace({"test": "validation", "validation": "test"}))
    study.run_baselines(moved, folder, out, small, cache)
    assert len(searched) == 1
    assert set(study.read_baselines(out)["predictions"].query("split == 'test'")["path"]) == set(moved.query("split == 'test'")["path"])
    with pytest.raises(FileNotFoundError, match="no finished run here"):
        study.read_baselines(tmp_path / "never")


def test_the_record_is_plain_json_and_names_the_choice(easy, tmp_path, small):
    folder, manifest = easy
    study.run_baselines(manifest, folder, tmp_path, small)
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["svm"]["kernel"] in small.kernels and record["forest"]["trees"] in small.n_trees
    assert record["config"]["n_words"] == 8


def test_a_run_of_an_earlier_version_is_refused_by_readers_and_made_again_by_the_study(easy, tmp_path, small):
    folder, manifest = easy
    study.run_baselines(manifest, folder, tmp_path, small)
    kept = pd.read_csv(tmp_path / "predictions.csv")
    kept.rename(columns=dict(classifier="row")).to_csv(tmp_path / "predictions.csv", index=False)
    with pytest.raises(ValueError, match="predictions.csv: no column 'classifier', so an earlier version made it; run page"):
        study.read_baselines(tmp_path)
    note = json.loads((tmp_path / "identity.json").read_text())
    (tmp_path / "identity.json").write_text(json.dumps(note | dict(code_sha256="0" * 64)))
    study.run_baselines(manifest, folder, tmp_path, small)
    assert "classifier" in study.read_baselines(tmp_path)["predictions"]
