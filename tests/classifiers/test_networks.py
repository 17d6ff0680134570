"Contracts of networks by name: the report's and those of timm, with their features, inputs and weights."

import subprocess
import sys

import pytest
import torch
from helpers.pretrained_weights import SMALL
from safetensors.torch import save_file

from deepfake_nbs.classifiers.networks import (
    build_network,
    check_image_size,
    check_network,
    image_features,
    input_config,
)
from deepfake_nbs.classifiers.xception import VARIANTS
from deepfake_nbs.pretrained import PACKAGE_NET, InputConfig


@pytest.mark.parametrize("net", VARIANTS)
def test_our_networks_are_built_as_before(net):
    model = build_network(net, width=0.1)
    assert model(torch.zeros(2, 3, 64, 64)).shape == (2, 2)
    assert model.weights_origin == "none" and model.training
    assert image_features(model, torch.zeros(2, 3, 64, 64)).shape == (2, model.fc.in_features)


def test_our_networks_do_not_load_timm():
    code = (
        "import sys; from deepfake_nbs.classifiers.networks import *; build_network('light', width=0.1); "
        "input_config('light'); print('timm' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(
    "net, said",
    [
        ("resnet18", "expected one of xception, .*, or timm:<name>"),
        ("timm:resnet_18", "nearest known: resnet18"),
        ("timm:", "list_models"),
        ("TIMM:resnet18", "unknown net"),
        ("", "unknown net"),
    ],
)
def test_an_unknown_name_is_answered_with_known_ones(net, said):
    for ask in (check_network, build_network, input_config):
        with pytest.raises(ValueError, match=said):
            ask(net)


@pytest.mark.parametrize(
    "arguments, said",
    [
        (dict(width=0.5), "width 1 only"),
        (dict(n_classes=0), "at least 1 class"),
        (dict(dropout=1.0), "below 1"),
    ],
)
def test_impossible_arguments_are_named(arguments, said):
    with pytest.raises(ValueError, match=said):
        build_network(SMALL, **arguments)


@pytest.mark.parametrize("n_classes", [1, 2, 5])
def test_a_network_of_timm_gives_logits_and_features(n_classes):
    model, x = build_network(SMALL, n_classes).eval(), torch.rand(2, 3, 96, 96)
    assert model(x).shape == (2, n_classes) and image_features(model, x).shape == (2, model.num_features)


def test_dropout_reaches_the_network():
    model, x = build_network(SMALL, dropout=0.9), torch.rand(4, 3, 96, 96)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    assert not torch.equal(model(x), model(x)) and model.drop_rate == 0.9


def test_a_network_without_global_pooling_is_refused(monkeypatch):
    import timm

    def make(net, n_classes, dropout=0.0, pretrained=False):
        return timm.create_model("test_efficientnet", num_classes=n_classes, global_pool="")

    monkeypatch.setattr("deepfake_nbs.pretrained.timm_network", make)
    with pytest.raises(ValueError, match="expected a network with a global pooling"):
        build_network(SMALL)


# Weights


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_file_of_the_same_network_comes_back(tmp_path, suffix):
    model, path = build_network(SMALL).eval(), tmp_path / f"state{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(model.state_dict(), path)
    again, x = build_network(SMALL, weights=path).eval(), torch.rand(1, 3, 96, 96)
    assert torch.equal(again(x), model(x)) and again.weights_origin == str(path)


def test_half_precision_and_missing_counters_are_accepted(tmp_path):
    model, path = build_network(SMALL), tmp_path / "half.safetensors"
    state = {k: v.half() for k, v in model.state_dict().items() if not k.endswith("num_batches_tracked")}
    save_file(state, path)
    again = build_network(SMALL, weights=path)
    assert again.conv_stem.weight.dtype == torch.float32
    torch.testing.assert_close(again.conv_stem.weight, model.conv_stem.weight, atol=1e-3, rtol=0)


@pytest.mark.parametrize("net, n_classes", [("timm:test_resnet", 2), (SMALL, 3), ("light", 2)])
def test_a_state_of_another_network_is_refused_and_named(tmp_path, net, n_classes):
    torch.save(build_network(SMALL).state_dict(), tmp_path / "other.pth")
    with pytest.raises(ValueError, match="other.pth: "):
        build_network(net, n_classes, tmp_path / "other.pth")


def test_a_file_that_is_missing_or_no_state_is_named(tmp_path):
    (tmp_path / "noise.pth").write_bytes(b"noise")
    with pytest.raises(FileNotFoundError, match="nowhere.pth"):
        build_network(SMALL, weights=tmp_path / "nowhere.pth")
    with pytest.raises(ValueError, match="noise.pth"):
        build_network(SMALL, weights=tmp_path / "noise.pth")


def test_imagenet_weights_are_recorded_and_never_random_in_silence(no_hub, package):
    assert build_network(PACKAGE_NET, weights="imagenet").weights_origin.startswith("efficientnet_lite0")
    with pytest.raises(ConnectionError, match="Three ways"):
        build_network("timm:resnet18", weights="imagenet")


# What a network wants to see


def test_the_report_s_networks_take_299_pixels_in_minus_one_to_one():
    assert input_config("xception") == InputConfig(299, (0.5,) * 3, (0.5,) * 3)


def test_input_comes_from_the_network_s_own_configuration():
    assert input_config("timm:resnet18").image_size == 224 and input_config(SMALL).image_size == 160


def test_a_size_that_a_network_cannot_take_is_refused():
    assert check_image_size("timm:resnet18", 96) == 96
    with pytest.raises(ValueError, match="takes 224 only"):
        check_image_size("timm:vit_tiny_patch16_224", 96)
