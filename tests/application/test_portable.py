"The portable model: whole or not there, the same answers from both of its forms, and a card that says what it is not for."

import csv
import json
import sys

import numpy as np
import pytest
import torch
from helpers.timm_run import timm_run
from noise_run import TINY, draw_dataset
from PIL import Image
from typer.testing import CliRunner

from deepfake_nbs.application import portable as portable_module
from deepfake_nbs.application.cli import app
from deepfake_nbs.application.models import CLASSIFIER, OnnxNetwork, training_margin, untrained_run
from deepfake_nbs.application.pipeline import Pipeline
from deepfake_nbs.application.portable import export_portable
from deepfake_nbs.core import file_sha256
from deepfake_nbs.classifiers.xception import VARIANTS, create_model, normalise

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    path = tmp_path_factory.mktemp("photo") / "someone.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)).save(path)
    return path


@pytest.fixture(scope="module")
def portable(tmp_path_factory):
    "A portable model of a random run; tests must not change it."
    place = tmp_path_factory.mktemp("portable")
    return export_portable(place / "model", untrained_run(place / "run"))


@pytest.mark.parametrize("net", VARIANTS)
def test_both_forms_say_the_same(tmp_path, net):
    torch.manual_seed(0)
    model = create_model(net, width=0.1).eval()
    portable_module.write_onnx(model, 64, tmp_path / "model.onnx")
    again = OnnxNetwork(tmp_path / "model.onnx")
    for n in (1, 2, 5):
        x = torch.rand(n, 3, 64, 64) * 2 - 1
        with torch.inference_mode():
            expected, found = (
                network(x.contiguous(memory_format=torch.channels_last)).softmax(1)
                for network in (model, again)
            )
        assert found.shape == (n, 2) and torch.allclose(found, expected, atol=1e-3)


@pytest.mark.parametrize("head", ["linear", "svm"])
def test_a_network_of_timm_says_the_same_in_both_forms(tmp_path, head):
    run = timm_run(tmp_path / "run", head=head)
    portable = export_portable(tmp_path / "portable", run)
    models = [Pipeline.load(portable, backend=name).model for name in ("torch", "onnx")]
    for n in (1, 3):
        x = torch.randn(n, 3, 64, 64)
        with torch.inference_mode():
            expected, found = (model(x.contiguous(memory_format=torch.channels_last)) for model in models)
        assert found.shape == (n, 2) and torch.allclose(found, expected, atol=1e-3)
        assert n == 1 or expected.std(0).max() > 1e-3, "images that differ get answers that differ"


def test_it_opens_like_a_run_and_gives_the_same_evidence(portable, photo):
    expected = Pipeline.load(portable.parent / "run").check(photo)
    for backend in ("torch", "onnx"):
        found = Pipeline.load(portable, backend=backend).check(photo)
        assert found.probability == pytest.approx(expected.probability, abs=1e-3)
        assert [head.box for head in found.heads] == [head.box for head in expected.heads]
        assert found.thresholds == expected.thresholds and found.classifier == expected.classifier


def test_every_file_is_listed_with_its_hash(portable):
    with open(portable / "files.csv", newline="") as file:
        listed = dict(csv.reader(file))
    there = {path.relative_to(portable).as_posix() for path in portable.rglob("*") if path.is_file()} - {
        "files.csv"
    }
    assert (
        set(listed) == there
        and {"README.md", "preprocessing.json", "training.json", "models/classifier/model.onnx"} <= there
    )
    assert all(file_sha256(portable / name) == digest for name, digest in listed.items())


def test_preprocessing_says_what_is_done_to_a_picture(portable):
    said, config = (
        json.loads((portable / name).read_text())
        for name in ("preprocessing.json", CLASSIFIER / "config.json")
    )
    keys = ("image_size", "mean", "std", "crop")
    assert {key: said[key] for key in keys} == {key: config[key] for key in keys}
    pixels = np.full((1, 1, 1, 3), 200, np.uint8)
    expected = normalise(torch.from_numpy(pixels)).permute(0, 2, 3, 1)
    assert np.allclose((pixels / 255 - said["mean"]) / said["std"], expected)
    assert said["margin"] == training_margin(portable.parent / "run")


def test_the_card_says_what_it_learned_from_and_what_it_is_not_for(portable):
    card = (portable / "README.md").read_text()
    assert "research use only" in card and "nothing" in card and "{" not in card
    for words in ("To accuse a person", "evidence in any proceeding", "To say that an image is real"):
        assert words in card


def test_the_card_of_a_trained_run_holds_its_numbers(tmp_path):
    from dataclasses import replace

    from deepfake_nbs.classifiers.comparison import choose_classifier
    from deepfake_nbs.runs import read_predictions
    from deepfake_nbs.metrics import classification_metrics
    from deepfake_nbs.classifiers.training import train_run

    run = tmp_path / "smoke-miniature"
    draw_dataset(run / "cvcs_dfd")
    train_run(run, replace(TINY, row=1, epochs=1), "1")
    choose_classifier(run)
    place = export_portable(tmp_path / "model", run)
    area = classification_metrics(read_predictions(run / "training/1")).loc["auc"]
    card = (place / "README.md").read_text()
    assert area.why.endswith("groups") and f"- auc: {area.value:.3f} (no interval: {area.why})" in card
    assert "On 6 test images, group split" in card
    assert "synthetic portraits only" in card and "meaningless" in card
    assert json.loads((place / "training.json").read_text())["counts"]["train"] == 18
    again = export_portable(tmp_path / "again", place)
    assert json.loads((again / "training.json").read_text())["counts"]["train"] == 18, (
        "a portable model may be exported again"
    )
    assert (again / "README.md").read_text() == card, "and keeps what was measured"


@pytest.mark.parametrize(
    "name, backend, words",
    [
        ("model.safetensors", "torch", "model.safetensors: not a safetensors file"),
        ("model.onnx", "onnx", "model.onnx: cannot be read as ONNX"),
    ],
)
@pytest.mark.parametrize("share", [0.5, 0.0])
def test_a_file_cut_short_is_named(tmp_path, portable, photo, name, backend, words, share):
    import shutil

    shutil.copytree(portable, tmp_path / "model")
    path = tmp_path / "model" / CLASSIFIER / name
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(ValueError, match=words):
        Pipeline.load(tmp_path / "model", backend=backend)
    done = CliRunner().invoke(
        app, ["check", str(photo), "--run", str(tmp_path / "model"), "--backend", backend]
    )
    assert done.exit_code == 2 and name in done.output and "Traceback" not in done.output


def test_what_is_missing_is_named(tmp_path, portable, monkeypatch):
    with pytest.raises(FileNotFoundError, match="model.onnx: no such file; `deepfake-nbs export` writes it"):
        Pipeline.load(portable.parent / "run", backend="onnx")
    with pytest.raises(ValueError, match="unknown backend 'tflite', expected torch or onnx"):
        Pipeline.load(portable, backend="tflite")
    with pytest.raises(FileNotFoundError, match="holds no models/classifier/config.json"):
        export_portable(tmp_path / "model", tmp_path / "nothing")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ValueError, match="pip install onnxruntime"):
        Pipeline.load(portable, backend="onnx")
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ValueError, match="pip install onnx onnxscript onnxruntime"):
        export_portable(tmp_path / "model", portable)
    assert not (tmp_path / "model").exists()


def test_other_files_are_not_overwritten_and_a_failure_leaves_the_old_one(tmp_path, portable, monkeypatch):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/letter.txt").write_text("dear")
    with pytest.raises(ValueError, match="mine: holds other files"):
        export_portable(tmp_path / "mine", portable)
    assert (tmp_path / "mine/letter.txt").read_text() == "dear"
    (tmp_path / "model.partial").mkdir()
    (tmp_path / "model.partial/letter.txt").write_text("dear")
    old = export_portable(tmp_path / "model", portable)
    assert (tmp_path / "model.partial/letter.txt").read_text() == "dear", (
        "a folder of any other name is left alone"
    )

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(portable_module, "write_card", full)
    done = CliRunner().invoke(app, ["export", str(old), "--run", str(portable)])
    assert done.exit_code == 2 and "No space left" in done.output
    assert (old / "files.csv").is_file() and Pipeline.load(old)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "model", "model.partial"], (
        "nothing half done is left"
    )
    assert (old.stat().st_mode & 0o777) == (tmp_path / "mine").stat().st_mode & 0o777


@pytest.mark.parametrize(
    "damage", [lambda text: text.replace(",split,", ",part,"), lambda text: text.replace(",0.25,", ",,")]
)
def test_damaged_predictions_are_named(tmp_path, portable, damage):
    run = untrained_run(tmp_path / "run")
    rows = (
        "path,label,probability,group,split,checkpoint\na.png,0,0.25,a,test,best\nb.png,1,0.5,b,test,best\n"
    )
    (run / "training/8").mkdir(parents=True)
    (run / "training/8/predictions.csv").write_text(damage(rows))
    record = {"run": "8", "weights_sha256": file_sha256(run / CLASSIFIER / "model.safetensors")}
    (run / "training/8/run.json").write_text(json.dumps(record))
    for kept in (False, True):  # With thresholds kept, the predictions are read for the card alone
        if kept:
            thresholds = {record["weights_sha256"]: {"real_to": None, "fake_from": None, "origin": "by hand"}}
            (run / "models/thresholds.json").write_text(json.dumps(thresholds))
        done = CliRunner().invoke(app, ["export", str(tmp_path / "model"), "--run", str(run)])
        assert done.exit_code == 2 and "predictions.csv" in done.output and not (tmp_path / "model").exists()


def test_the_command_writes_one(tmp_path, portable, photo):
    done = CliRunner().invoke(app, ["export", str(tmp_path / "model"), "--run", str(portable)])
    assert done.exit_code == 0 and (tmp_path / "model/README.md").is_file()
    done = CliRunner().invoke(
        app, ["check", str(photo), "--run", str(tmp_path / "model"), "--backend", "onnx", "--json"]
    )
    assert done.exit_code == 0 and json.loads(done.output.splitlines()[-1])["verdict"] in (
        "real",
        "fake",
        "unsure",
    )
