"A network of your own classifies photographs and is exported."

import shutil

import pytest
from typer.testing import CliRunner

from deepfake_nbs import runs
from deepfake_nbs.classifiers import comparison
from deepfake_nbs.application import CLASSIFIER, Pipeline, app, choose_thresholds, export_portable, find_model

pytestmark = pytest.mark.usefixtures("one_thread")


def invoke(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def test_it_judges_with_the_thresholds_of_its_own_validation(mine, tmp_path, monkeypatch):
    folder = mine / "training" / "my network"
    photo = next((mine / "cvcs_dfd/test").glob("*.png"))
    valid = runs.read_predictions(folder, "validation")
    right = choose_thresholds(valid["label"], valid["probability"])
    truth = runs.read_predictions(folder).set_index("path")["probability"][f"test/{photo.name}"]
    shutil.copytree(folder, tmp_path / "carried away")
    for model in (folder, folder / "model", tmp_path / "carried away"):
        pipeline = Pipeline.load(model=model)
        assert pipeline.thresholds == right and pipeline.check(photo, whole=True).probability == pytest.approx(truth, abs=1e-3)
    done = invoke("check", photo, "--model", folder)
    assert done.exit_code == 0 and "midway, run my network, trained on" in done.stdout
    monkeypatch.chdir(mine / "training")
    assert find_model("my network") == folder / "model", "it counts from where one stands"
    assert not (mine / "models").exists(), "judging leaves nothing in the run"


def test_what_is_no_finished_training_is_named(mine, tmp_path):
    photo = next((mine / "cvcs_dfd/test").glob("*.png"))
    (tmp_path / "half" / "checkpoint").mkdir(parents=True)
    for model in (tmp_path / "half", mine, "a\x1bb", "x" * 300, "a\0b"):
        done = invoke("check", photo, "--model", model)
        assert (done.exit_code, done.stderr.count("\n")) == (2, 1) and "\x1b" not in done.stderr, done.output
    both = invoke("check", photo, "--model", mine / "training" / "1", "--row", 8)
    assert both.exit_code == 2 and "row and model both name a classifier" in both.stderr
    for row in ("1/../8", 0, True):
        with pytest.raises(ValueError, match="expected the number of a row"):
            Pipeline.load(mine, row)
    assert "holds no finished training" in invoke("export", tmp_path / "out", "--model", tmp_path / "half").stderr


def test_it_is_exported(mine, tmp_path):
    folder = mine / "training" / "my network"
    done = invoke("export", tmp_path / "out", "--model", folder)
    assert done.exit_code == 0, done.output
    photo = next((mine / "cvcs_dfd/test").glob("*.png"))
    found, expected = Pipeline.load(tmp_path / "out"), Pipeline.load(model=folder)
    assert found.thresholds == expected.thresholds and found.check(photo).probability == pytest.approx(expected.check(photo).probability)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "midway, run my network" in card and "On 6 test pictures" in card


def test_a_run_that_may_only_be_read_is_exported(mine, tmp_path):
    shutil.copytree(mine / "training" / "1" / "model", tmp_path / "run" / CLASSIFIER)
    kept = [tmp_path / "run" / CLASSIFIER, *(tmp_path / "run" / CLASSIFIER).iterdir()]
    for path in kept:
        path.chmod(0o555 if path.is_dir() else 0o444)
    out = export_portable(tmp_path / "out", tmp_path / "run")
    assert (out / CLASSIFIER / "model.onnx").is_file() and all(path.stat().st_mode & 0o200 for path in [out, *out.rglob("*")])
    comparison.choose_classifier(mine_copy := shutil.copytree(mine, tmp_path / "again"))
    assert all(path.stat().st_mode & 0o200 for path in (mine_copy / "models").rglob("*"))
    for path in kept:
        path.chmod(0o755)


