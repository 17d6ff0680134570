"Tables, claims and sentences of the baselines."

from deepfake_nbs.baselines import controls, report, study


def test_claims_have_both_accuracies_with_interval_and_what_was_not_published(easy, tmp_path, small):
    from deepfake_nbs.core import save_claims

    folder, manifest = easy
    record = study.run_baselines(manifest, folder, tmp_path / "run", small, tmp_path / "sift", data="easy")
    metrics = controls.score_classifiers(study.read_baselines(tmp_path / "run")["predictions"].query("split == 'test'"), 20)
    rows = {row["id"]: row for row in report.baseline_claims(metrics.assign(protocol="group"), {"group": record})}
    assert {"baselines-svm-accuracy", "baselines-forest-accuracy", "baselines-codebook-words", "baselines-forest-trees"} <= set(rows)
    numbers = rows["baselines-svm-accuracy"]
    assert numbers["n"] == 12 and numbers["measured"] is not None and numbers["low"] is None, "few groups give no interval"
    wide = report.baseline_claims(metrics.assign(protocol="group", low=0.25, high=0.75), {"group": record})
    assert next(row for row in wide if row["id"] == "baselines-svm-accuracy")["low"] == 0.25
    assert rows["baselines-group-constant-balanced_accuracy"]["measured"] == 0.5
    text = save_claims(list(rows.values()), tmp_path).read_text()
    assert "baselines-svm-accuracy,.6756," in text and "baselines-group-file_only-auc,," in text
