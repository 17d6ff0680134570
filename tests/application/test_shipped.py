"The networks that the package ships: used where nobody names any, and said in one line; without them, today's newest run."

import json
import shutil
import socket

import numpy as np
import pytest
import torch
from helpers.timm_run import LITE, random_network, shipped_like, timm_run
from PIL import Image
from safetensors.torch import load_file
from typer.testing import CliRunner

from deepfake_nbs.application import models, shipped
from deepfake_nbs.application.cli import app
from deepfake_nbs.application.demo import Demo
from deepfake_nbs.application.gallery import Gallery
from deepfake_nbs.application.models import CLASSIFIER, find_run, fold_and_compare, untrained_run
from deepfake_nbs.application.pipeline import Pipeline
from deepfake_nbs.application.portable import export_portable
from deepfake_nbs.checkpoints import save_weights
from deepfake_nbs.classifiers.networks import build_network
from deepfake_nbs.core import file_sha256, write_json
from deepfake_nbs.heads.detector import DETECTOR

pytestmark = pytest.mark.usefixtures("one_thread")


def invoke(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def use(monkeypatch, place):
    "Let a folder be the one that the package ships."
    monkeypatch.delenv("DEEPFAKE_NBS_RUN", raising=False)
    for module in (shipped, models):
        monkeypatch.setattr(module, "shipped_folder", lambda: place)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    "Networks of the form that the package ships; tests must not change it."
    return shipped_like(tmp_path_factory.mktemp("weights") / "photographs")


@pytest.fixture
def ships(folder, monkeypatch):
    use(monkeypatch, folder)
    return folder


@pytest.fixture
def photo(photos):
    return sorted(photos.iterdir())[0]


@pytest.fixture
def project(tmp_path, monkeypatch, root):
    "A project folder without runs, and a package without networks."
    (tmp_path / "settings.ini").write_text((root / "settings.ini").read_text())
    monkeypatch.chdir(tmp_path)
    use(monkeypatch, tmp_path / "weights" / "photographs")
    return tmp_path


def test_they_are_used_where_nobody_names_a_run(ships, photo):
    assert find_run() == find_run(None, DETECTOR) == ships
    pipeline = Pipeline.load()
    assert pipeline.config["net"] == LITE and pipeline.detector is not None
    assert pipeline.note.startswith("shipped networks, trained on photographs for research: AUC 0.87 on")
    done = invoke("check", photo)
    assert done.exit_code == 0, done.output
    said = [line for line in done.stderr.splitlines() if "shipped networks" in line]
    assert len(said) == 1 == len(done.stderr.splitlines()) and "AUC 0.87" in said[0]
    done = invoke("check", photo, "--json")
    assert json.loads(done.stdout)["classifier"]["net"] == LITE and "shipped networks" in done.stderr


def test_a_run_that_is_named_wins_and_nothing_is_said(ships, photo, heads_run, monkeypatch):
    done = invoke("check", photo, "--run", heads_run)
    assert done.exit_code == 0 and done.stderr == "" and "light" in done.stdout
    monkeypatch.setenv("DEEPFAKE_NBS_RUN", str(heads_run))
    done = invoke("check", photo)
    assert done.exit_code == 0 and done.stderr == "" and "light" in done.stdout


def test_a_run_number_needs_a_run(ships, photo):
    done = invoke("check", photo, "--run-number", 8)
    assert done.exit_code == 2 and "run number is 8, but the shipped networks have none" in done.stderr


def test_a_network_of_ones_own_takes_the_shipped_detector(ships, photo, tmp_path):
    shutil.copytree(untrained_run(tmp_path / "run") / CLASSIFIER, tmp_path / "mine")
    pipeline = Pipeline.load(model=tmp_path / "mine")
    assert pipeline.detector.config == Pipeline.load(ships).detector.config and pipeline.note == ""


def test_the_newest_run_stands_in_and_it_is_said(project, photo):
    untrained_run(project / "data/runs/smoke-mine")
    done = invoke("check", photo)
    said = "ships no networks: those of the newest run, smoke-mine, are used"
    assert done.exit_code == 0 and done.stderr.count("\n") == 1 and said in done.stderr


@pytest.mark.parametrize("inside", [True, False])
def test_neither_networks_nor_runs(project, photo, inside, monkeypatch):
    if not inside:
        monkeypatch.setattr(models, "project_root", _no_project)
        monkeypatch.setattr("deepfake_nbs.core.project_root", _no_project)
    done = invoke("check", photo)
    assert done.exit_code == 2 and done.stderr.count("\n") == 1 and "Traceback" not in done.output
    assert "photographs: holds no networks" in done.stderr and "--run" in done.stderr
    assert ("`make report` trains one" if inside else "settings.ini: not found") in done.stderr


def _no_project():
    raise FileNotFoundError("settings.ini: not found above here; run this inside the project's folder")


def test_a_portable_model_is_named_where_there_is_no_project(folder, photo, monkeypatch):
    monkeypatch.setattr("deepfake_nbs.core.project_root", _no_project)
    done = invoke("check", photo, "--run", folder)
    assert done.exit_code == 0 and LITE in done.stdout
    done = invoke("check", photo, "--run", folder.with_name("nowhere"))
    assert done.exit_code == 2 and "nowhere: holds no models/classifier/config.json" in done.stderr
    done = invoke("check", photo, "--model", folder.with_name("nowhere"))
    assert done.exit_code == 2 and "nowhere: holds no finished training" in done.stderr


@pytest.mark.parametrize(
    "spoil, words",
    [
        (lambda place: (place / CLASSIFIER / "model.safetensors").unlink(), "no such file of weights"),
        (
            lambda place: (place / DETECTOR / "config.json").unlink(),
            "head_detector/config.json: no such file",
        ),
        (lambda place: (place / CLASSIFIER / "config.json").unlink(), "holds no networks"),
        (lambda place: write_json(place / "training.json", dict(test=[1])), "the AUC of test is [1]"),
        (
            lambda place: write_json(place / "training.json", dict(test=dict(auc=dict(value=7)))),
            "is 7; expected",
        ),
        (
            lambda place: save_weights(
                random_network("timm:resnet18"), place / CLASSIFIER / "model.safetensors"
            ),
            "not weights of this network",
        ),
    ],
)
def test_what_is_missing_or_broken_is_named_in_one_line(folder, tmp_path, photo, monkeypatch, spoil, words):
    place = shutil.copytree(folder, tmp_path / "weights" / "photographs")
    monkeypatch.chdir(tmp_path)
    use(monkeypatch, place)
    monkeypatch.setattr(models, "project_root", lambda: tmp_path)
    spoil(place)
    done = invoke("check", photo)
    assert done.exit_code == 2 and done.stderr.count("\n") == 1 and words in done.stderr, done.output


def test_a_network_that_takes_one_input_size_names_it(tmp_path, photo):
    run = untrained_run(tmp_path / "run", net="timm:vit_tiny_patch16_224", width=1.0, image_size=192)
    save_weights(build_network("timm:vit_tiny_patch16_224"), run / CLASSIFIER / "model.safetensors")
    done = invoke("check", photo, "--run", run)
    said = "config.json: image_size is 192; timm:vit_tiny_patch16_224 takes 224 only"
    assert done.exit_code == 2 and said in done.stderr


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1", "I;16", "CMYK"])
def test_grey_and_transparent_images_are_classified(folder, tmp_path, mode):
    pipeline, rng = Pipeline.load(folder), np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (60, 80, 3), np.uint8))
    if mode == "I;16":
        image = Image.fromarray(rng.integers(0, 65536, (60, 80), np.uint16))
    elif mode == "RGBA":
        image.putalpha(128)
    else:
        image = image.convert(mode)
    path = tmp_path / f"a.{'tif' if mode == 'CMYK' else 'png'}"
    image.save(path)
    found = pipeline.check(path)
    assert found.heads and 0 < found.probability < 1 and found.size == (80, 60)


def test_loading_asks_no_hub(folder, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr("deepfake_nbs.pretrained.imagenet_network", refuse)
    assert Pipeline.load(folder).model(torch.zeros(1, 3, 64, 64)).shape == (1, 2)


@pytest.mark.parametrize("head", ["linear", "svm"])
def test_half_the_bits_say_nearly_the_same(tmp_path, photo, head):
    run = timm_run(tmp_path / "run", head=head)
    small = export_portable(tmp_path / "small", run, half=True, onnx=False)
    for part in (CLASSIFIER, DETECTOR):
        state = load_file(small / part / "model.safetensors")
        assert {tensor.dtype for tensor in state.values() if tensor.ndim > 1} == {torch.float16}
        assert torch.float16 not in {tensor.dtype for tensor in state.values() if tensor.ndim == 1}
    before, after = Pipeline.load(run), Pipeline.load(small)
    assert {parameter.dtype for parameter in after.model.parameters()} <= {torch.float32}
    x = torch.randn(3, 3, 64, 64)
    with torch.inference_mode():
        p, q = (
            one.model(x.to(memory_format=torch.channels_last)).softmax(1)[:, 1] for one in (before, after)
        )
    assert p.std() > 1e-3 and (p - q).abs().max() < 5e-3
    kept = json.loads((small / "models/thresholds.json").read_text())
    assert list(kept) == [file_sha256(small / CLASSIFIER / "model.safetensors")]


@pytest.mark.parametrize("net", [LITE, "timm:resnet18", "timm:mobilenetv3_small_050", "timm:densenet121"])
def test_folding_the_norms_of_timm_changes_nothing(net):
    model = random_network(net)
    n = sum(isinstance(part, torch.nn.BatchNorm2d) for part in model.modules())
    folded, x = fold_and_compare(model, 64), torch.randn(2, 3, 64, 64)
    left = sum(isinstance(part, torch.nn.BatchNorm2d) for part in folded.modules())
    with torch.inference_mode():
        before, after = model(x), folded(x)
    assert before.std() > 1e-4 and torch.allclose(before, after, rtol=1e-4, atol=1e-4)
    assert n and (left < n / 1.5 if "densenet" in net else left == 0)


def test_a_file_beside_the_weights_travels_and_names_the_new_ones(tmp_path):
    from safetensors import safe_open
    from safetensors.torch import save_file

    run = timm_run(tmp_path / "run")
    weights = file_sha256(run / CLASSIFIER / "model.safetensors")
    said = dict(weights=weights, limit="3.5")
    save_file({"centres": torch.ones(2, 3)}, run / CLASSIFIER / "outliers.safetensors", said)
    small = export_portable(tmp_path / "small", run, half=True, onnx=False)
    with safe_open(str(small / CLASSIFIER / "outliers.safetensors"), "pt") as file:
        assert file.get_tensor("centres").dtype == torch.float32
        assert file.metadata() == said | dict(weights=file_sha256(small / CLASSIFIER / "model.safetensors"))


def test_a_gallery_leaves_nothing_in_the_package(ships, known, photo, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    before = sorted(ships.rglob("*"))
    assert Gallery.open(known).find(photo)
    assert sorted(ships.rglob("*")) == before
    assert list((tmp_path / "cache/deepfake_nbs/models/galleries").glob("*/config.json"))


def test_the_demo_says_which_networks_classify(ships):
    demo = Demo()
    assert demo.run == ships and demo.pipeline is not None and "shipped networks" in demo.status.value


def test_their_card_is_printed_and_travels(ships, tmp_path):
    assert "That says more." in invoke("card").stdout
    done = invoke("export", tmp_path / "out")
    assert done.exit_code == 0 and "shipped networks" in done.stderr, done.output
    assert (tmp_path / "out/README.md").read_text() == (ships / "README.md").read_text()
    assert (tmp_path / "out" / CLASSIFIER / "model.onnx").is_file()


def test_what_this_copy_ships_is_whole():
    place = shipped.shipped_folder()
    if not (place / CLASSIFIER / "config.json").is_file():
        pytest.skip("this copy of the package ships no networks")
    listed = dict(line.split(",") for line in (place / "files.csv").read_text().splitlines())
    assert all(file_sha256(place / name) == digest for name, digest in listed.items())
    assert sum(path.stat().st_size for path in place.rglob("*") if path.is_file()) <= 25_000_000
    assert 0.5 < shipped.shipped_auc(place) <= 1 and Pipeline.load(place).detector is not None
    card = (place / "README.md").read_text()
    assert "What it must not be used for" in card and "Where it fails" in card
