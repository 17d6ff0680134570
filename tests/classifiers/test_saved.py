"Contracts of a saved classifier: it comes back as it was, and each fault of a folder is named."

import json

import pytest
import torch
from safetensors.torch import save_file

from deepfake_nbs.classifiers.saved import load_classifier
from deepfake_nbs.classifiers.xception import create_model


@pytest.fixture(scope="module")
def midway():
    torch.manual_seed(1)
    return create_model("midway", width=0.1).eval()


def saved(model, path):
    state = {k: v.contiguous() for k, v in model.state_dict().items()}
    save_file(state, path) if path.suffix == ".safetensors" else torch.save(state, path)
    return path


def test_a_classifier_is_read_or_its_fault_is_named(midway, tmp_path):
    config = dict(
        net="midway",
        width=0.1,
        n_classes=2,
        dropout=0.5,
        image_size=48,
        mean=[0.5] * 3,
        std=[0.5] * 3,
        crop=False,
        trained_on="noise",
        row=8,
        threshold=0.5,
        version="0.1.0",
    )
    with pytest.raises(FileNotFoundError, match="config.json"):
        load_classifier(tmp_path)
    saved(midway, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config))
    model, read = load_classifier(tmp_path)
    assert read == config and not model.training
    assert torch.equal(model(torch.zeros(1, 3, 48, 48)), midway(torch.zeros(1, 3, 48, 48)))
    (tmp_path / "config.json").write_text(json.dumps({k: v for k, v in config.items() if k != "threshold"}))
    with pytest.raises(ValueError, match="threshold"):
        load_classifier(tmp_path)
    for key, value in [
        ("net", ["midway"]),
        ("width", 0),
        ("width", 9),
        ("width", float("nan")),
        ("n_classes", 1),
        ("dropout", 1),
        ("image_size", False),
        ("image_size", -3),
        ("image_size", 48.5),
        ("mean", ["a"]),
        ("mean", [0.5] * 2),
        ("std", [0, 0, 0]),
        ("std", 0.5),
        ("crop", 1),
        ("trained_on", None),
        ("row", False),
        ("row", -1),
        ("threshold", 7),
        ("threshold", -0.1),
        ("threshold", True),
        ("version", 1),
    ]:
        (tmp_path / "config.json").write_text(json.dumps({**config, key: value}))
        with pytest.raises(ValueError, match=f"config.json: {key} is .*, expected "):
            load_classifier(tmp_path)
    for net, words in (("vgg", "unknown net 'vgg', expected one of"), ("timm:resnet_18", "nearest known")):
        (tmp_path / "config.json").write_text(json.dumps({**config, "net": net}))
        with pytest.raises(ValueError, match=f"config.json: .*{words}"):
            load_classifier(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match="not JSON"):
        load_classifier(tmp_path)
