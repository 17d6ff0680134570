"""A saved detector, its configuration, and the heads that it finds."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from deepfake_nbs.checkpoints import read_weights, save_weights
from deepfake_nbs.heads import network
from deepfake_nbs.heads.detector import HeadBox, HeadDetector, choose_detector, load_network, read_config
from deepfake_nbs.heads.network import EfficientDet
from deepfake_nbs.images import letterbox, read_image


def test_saved_and_loaded_are_equal(trained):
    model, config = load_network(trained[0] / "phase2" / "model")
    again = EfficientDet(config["phi"])
    save_weights(model, trained[0] / "copy.safetensors")
    read_weights(again, trained[0] / "copy.safetensors")
    image = torch.randint(0, 255, (1, 3, 64, 64), dtype=torch.uint8)
    with torch.inference_mode():
        assert all(torch.equal(a, b) for a, b in zip(model(image), again.eval()(image), strict=True))


def test_a_lite_detector_opens_without_weights_of_imagenet(tmp_path, monkeypatch):
    model = EfficientDet("lite0").eval()
    save_weights(model, tmp_path / "model.safetensors")
    about = dict(phi="lite0", image_size=64, threshold=0.5, trained_on="", weights="imagenet", version=1)
    (tmp_path / "config.json").write_text(json.dumps(about))
    monkeypatch.setattr(network, "imagenet_network", None)
    again, config = load_network(tmp_path)
    image = torch.randint(0, 255, (1, 3, 64, 64), dtype=torch.uint8)
    with torch.inference_mode():
        assert all(torch.equal(a, b) for a, b in zip(model(image), again(image), strict=True))
    assert config == about
    (tmp_path / "config.json").write_text(json.dumps(about | {"phi": 0}))
    with pytest.raises(ValueError, match="not weights of this network.*says phi 0"):
        load_network(tmp_path)


@pytest.fixture
def saved(trained, tmp_path):
    shutil.copytree(trained[0] / "phase2" / "model", tmp_path / "model")
    return tmp_path / "model"


def test_files_that_do_not_fit_are_named(saved, tmp_path):
    config = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps(config | {"phi": 1}))
    with pytest.raises(ValueError, match="not weights of this network.*says phi 1"):
        HeadDetector.load(saved)
    (saved / "config.json").write_text(json.dumps(config | {"phi": 9}))
    with pytest.raises(ValueError, match="phi is 9"):
        HeadDetector.load(saved)
    (saved / "config.json").write_text(
        json.dumps({key: value for key, value in config.items() if key != "threshold"})
    )
    with pytest.raises(ValueError, match="config.json: lacks the key 'threshold'"):
        HeadDetector.load(saved)
    (saved / "config.json").write_text("{")
    with pytest.raises(ValueError, match="config.json: not JSON"):
        HeadDetector.load(saved)
    (saved / "config.json").write_text(json.dumps(config))
    torch.save(EfficientDet(), saved / "model.safetensors")  # a pickle that could run code
    with pytest.raises(ValueError, match="not a safetensors file"):
        HeadDetector.load(saved)
    (saved / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="no such file of weights"):
        HeadDetector.load(saved)
    with pytest.raises(FileNotFoundError, match="config.json"):
        HeadDetector.load(tmp_path / "nowhere")


BAD_VALUES = [
    *(("version", value, "expected 1") for value in (99, None, "1", True)),
    *(("phi", value, "expected one of 0, 1, 2, 3, lite0") for value in ([0], "0", True, 1.0, None, "lite1")),
    *(
        ("image_size", value, "expected a multiple of 32, at least 64")
        for value in ("256", 0, -64, 100, 64.0, None)
    ),
    *(
        ("threshold", value, "expected a number between 0 and 1")
        for value in (7, "high", None, -0.1, True, float("nan"))
    ),
]


@pytest.mark.parametrize("key, value, expected", BAD_VALUES)
def test_values_of_a_config_are_checked(saved, key, value, expected):
    config = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps(config | {key: value}))
    with pytest.raises(ValueError) as caught:
        read_config(saved)
    assert str(caught.value) == f"{saved / 'config.json'}: {key} is {value!r}; {expected}"


def test_images_of_any_shape_get_an_answer(detector):
    images = [
        Image.new("RGB", size, "tan")
        for size in ((1, 1), (8, 8), (2000, 100), (100, 2000), (3, 900), (640, 480))
    ]
    answers = detector.find_heads(images, threshold=1e-4)
    assert len(answers) == len(images)
    for image, heads in zip(images, answers, strict=True):
        for (x0, y0, x1, y1), score in heads:
            assert 0 <= x0 < x1 <= image.width and 0 <= y0 < y1 <= image.height and 0 < score < 1
    assert detector.find_heads([]) == []


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "LA", "1", "CMYK", "I;16"])
def test_one_image_of_any_mode_gives_its_own_list(detector, film, mode):
    photo = read_image(film.root / film.split("test")[0])
    image = Image.new(mode, photo.size) if mode == "I;16" else photo.convert(mode)
    heads = detector.find_heads(image, threshold=1e-4)
    assert heads and all(isinstance(head, HeadBox) for head in heads)
    assert heads == detector.find_heads([image], threshold=1e-4)[0]
    assert mode != "RGBA" or heads == detector.find_heads(photo, threshold=1e-4)


def test_neighbours_in_a_batch_change_nothing(detector, film):
    images = [read_image(film.root / path) for path in film.split("test")]
    together, alone = (
        detector.find_heads(images, 1e-3, batch_size=3),
        [detector.find_heads([p], 1e-3)[0] for p in images],
    )
    for a, b in zip(together, alone, strict=True):
        assert np.allclose([head.score for head in a], [head.score for head in b], atol=1e-5)


@pytest.fixture(scope="module")
def untrained_detector():
    return HeadDetector(EfficientDet(), dict(image_size=64, threshold=0.5))


@pytest.mark.parametrize("threshold", [float("nan"), -0.1, 1.5, float("inf")])
def test_a_score_that_is_none_is_refused_rather_than_finding_nothing(untrained_detector, threshold):
    with pytest.raises(ValueError, match=f"threshold is {threshold:g}; expected a score between 0 and 1"):
        untrained_detector.find_heads(Image.new("RGB", (40, 30)), threshold)


@pytest.mark.parametrize("batch_size", [0, -1])
def test_batches_of_nothing_are_refused_rather_than_finding_nothing(untrained_detector, batch_size):
    with pytest.raises(ValueError, match=f"batch_size is {batch_size}; expected at least 1"):
        untrained_detector.find_heads([Image.new("RGB", (40, 30))], batch_size=batch_size)


@pytest.mark.parametrize(
    "size, expected",
    [((1, 60_000), (64, 1)), ((60_000, 1), (1, 64)), ((1, 1), (64, 64)), ((3, 200_000), (64, 1))],
)
def test_thin_images_fit_the_square_and_are_searched(untrained_detector, size, expected):
    square, scale = letterbox(Image.new("RGB", size, "white"), 64)
    white = (square == 255).all(2)
    assert (white.any(1).sum(), white.any(0).sum()) == expected and scale == 64 / max(size)
    for head in untrained_detector.find_heads(Image.new("RGB", size, "white"), threshold=0.0):
        x0, y0, x1, y1 = head.box
        assert 0 <= x0 < x1 <= size[0] and 0 <= y0 < y1 <= size[1]


def test_the_better_phase_is_used(run, film, trained):
    place = choose_detector(run, film, trained[1])
    assert place == run / "models/head_detector" and read_config(place)["phase"] in ("phase1", "phase2")


def test_a_detector_of_an_earlier_version_still_loads(saved, film):
    "Before version 0.2 the prediction heads were called classes and boxes."
    from safetensors.torch import load_file, save_file

    image = read_image(film.root / film.split("test")[0])
    today = HeadDetector.load(saved, "cpu").find_heads(image, 1e-4)
    state = load_file(saved / "model.safetensors")
    former = {
        key.replace("class_head.", "classes.").replace("box_head.", "boxes."): value
        for key, value in state.items()
    }
    assert former.keys() != state.keys() and len(former) == len(state)
    save_file(former, saved / "model.safetensors")
    assert HeadDetector.load(saved, "cpu").find_heads(image, 1e-4) == today
