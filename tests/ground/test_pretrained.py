"Contracts of networks of timm: names, weights by hub, package and file, and the inputs that networks want."

import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from helpers.pretrained_weights import SMALL

from deepfake_nbs import pretrained
from deepfake_nbs.pretrained import (
    PACKAGE,
    PACKAGE_NET,
    InputConfig,
    by_order,
    check_pooling,
    check_timm,
    imagenet_network,
    is_timm,
    package_file,
    prepare_image,
    read_pinned,
    timm_features,
    timm_input,
    timm_network,
)


def weights_of(model):
    return {
        key: value for key, value in model.state_dict().items() if not key.endswith("num_batches_tracked")
    }


def test_importing_the_module_loads_neither_timm_nor_pandas():
    names = "('timm', 'pandas', 'fastai', 'sklearn', 'huggingface_hub')"
    code = f"import sys, deepfake_nbs.pretrained; print([name for name in {names} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_start_of_a_name_says_whose_network_it_is():
    assert is_timm("timm:resnet18") and not is_timm("xception") and not is_timm("TIMM:resnet18")


@pytest.mark.parametrize(
    "net, said",
    [
        ("timm:resnet_18", "nearest known: resnet18"),
        ("timm:", "list_models"),
        ("timm:qqqqqqqq", "list_models"),
        ("timm:resnet18.nothing", "knows no weights 'resnet18.nothing'; nearest known: resnet18"),
    ],
)
def test_an_unknown_name_is_answered_with_known_ones(net, said):
    with pytest.raises(ValueError, match=said):
        check_timm(net)
    assert check_timm("timm:resnet18.a1_in1k") == "timm:resnet18.a1_in1k"


@pytest.mark.parametrize("n_classes", [1, 2, 5])
def test_a_network_gives_logits_and_features(n_classes):
    model, x = timm_network(SMALL, n_classes).eval(), torch.rand(2, 3, 96, 96)
    features = timm_features(model, x)
    assert model(x).shape == (2, n_classes) and features.shape == (2, model.num_features)
    torch.testing.assert_close(model.get_classifier()(features), model(x))


@pytest.mark.parametrize("pretrained_too", [False, True])
def test_a_new_last_layer_starts_small(no_hub, package, pretrained_too):
    make = imagenet_network if pretrained_too else timm_network
    model = make(PACKAGE_NET, 2)[0] if pretrained_too else make(PACKAGE_NET, 2)
    layer = model.get_classifier()
    assert 0.005 < layer.weight.std() < 0.02 and not layer.bias.any()


def test_a_network_with_two_last_layers_starts_small_in_both():
    with torch.device("meta"):
        assert len(timm_network("timm:deit_tiny_distilled_patch16_224", 2).get_classifier()) == 2
    layers = torch.nn.Linear(50, 2), torch.nn.Linear(50, 2, bias=False)
    pretrained.start_small(layers)
    assert max(layer.weight.abs().max() for layer in layers) < 0.06


@pytest.mark.parametrize("pooling", ["", "max"])
def test_a_network_without_global_pooling_is_refused(monkeypatch, pooling):
    import timm

    def make(net, n_classes, dropout=0.0, pretrained=False):
        return timm.create_model("test_efficientnet", num_classes=n_classes, global_pool=pooling)

    monkeypatch.setattr(pretrained, "timm_network", make)
    if pooling:
        check_pooling(SMALL, 2)
    else:
        with pytest.raises(ValueError, match="expected a network with a global pooling"):
            check_pooling(SMALL, 2)


# ImageNet weights


def test_the_hub_is_asked_first(monkeypatch, package):
    monkeypatch.setattr(pretrained, "hub_answers", lambda: True)
    asked, make = [], pretrained.timm_network

    def fetch(net, n_classes, dropout=0.0, pretrained=False):
        asked.append(pretrained)
        return make(net, n_classes, dropout)

    monkeypatch.setattr(pretrained, "timm_network", fetch)
    assert imagenet_network(PACKAGE_NET, 2)[1] == "timm tf_efficientnet_lite0" and asked == [True]


def test_without_a_hub_the_package_is_taken(no_hub, package):
    model, origin = imagenet_network(PACKAGE_NET, 2)
    own = {k: v for k, v in weights_of(package).items() if not k.startswith("classifier")}
    assert origin.startswith(PACKAGE) and model.classifier.weight.shape == (2, 1280)
    assert all(torch.equal(model.state_dict()[key], value) for key, value in own.items())


def test_with_as_many_classes_as_imagenet_the_last_layer_is_taken_too(no_hub, package):
    model, _ = imagenet_network(PACKAGE_NET, 1000)
    assert torch.equal(model.classifier.weight, package.classifier.weight)


@pytest.mark.parametrize("net", [PACKAGE_NET, "timm:resnet18"])
def test_without_hub_and_package_the_three_ways_are_named(no_hub, monkeypatch, net):
    monkeypatch.setattr(pretrained, "package_file", lambda: None)
    with pytest.raises(ConnectionError) as error:
        imagenet_network(net, 2)
    said = str(error.value)
    assert all(way in said for way in ("connect this machine", "deepfake_nbs[pretrained]", "weights=<path"))
    assert ("alone" in said) is (net != PACKAGE_NET) and "\n" not in said


def test_the_package_does_not_stand_in_for_another_network(no_hub, package):
    with pytest.raises(ConnectionError, match="tf_efficientnet_lite1"):
        imagenet_network("timm:tf_efficientnet_lite1", 2)


@pytest.mark.parametrize("error", [OSError("no route"), RuntimeError("hash"), ValueError("cut short")])
def test_any_failure_of_the_hub_is_one_sentence(monkeypatch, error):
    def fail(net, n_classes, dropout=0.0, pretrained=False):
        if pretrained:
            raise error
        return timm_network(net, n_classes, dropout)

    monkeypatch.setattr(pretrained, "timm_network", fail)
    monkeypatch.setattr(pretrained, "hub_answers", lambda: True)
    with pytest.raises(ConnectionError, match="Three ways") as said:
        imagenet_network("timm:resnet18", 2)
    assert said.value.__cause__ is error


def test_a_network_that_was_never_trained_says_so(no_hub):
    with pytest.raises(ValueError, match="no trained weights for 'efficientnet_lite1'"):
        imagenet_network("timm:efficientnet_lite1", 2)


def test_the_switch_of_the_hub_is_put_back(no_hub):
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    with pytest.raises(ZeroDivisionError), pretrained.hub_at_hand():
        assert constants.HF_HUB_OFFLINE is True
        raise ZeroDivisionError
    assert constants.HF_HUB_OFFLINE is before


def test_a_hub_behind_a_proxy_is_not_looked_for(monkeypatch):
    monkeypatch.setattr(pretrained, "getproxies", lambda: {"https": "http://proxy:3128"})
    monkeypatch.setattr("socket.create_connection", lambda *a, **k: pytest.fail("looked for it"))
    assert pretrained.hub_answers() is True


def test_packaged_weights_of_another_hash_are_refused(tmp_path):
    torch.save({}, tmp_path / "state.pth")
    with pytest.raises(ValueError, match="state.pth: its SHA-256 is .*expected 579344248a93"):
        read_pinned(tmp_path / "state.pth")
    with pytest.raises(FileNotFoundError, match="nowhere.pth"):
        read_pinned(tmp_path / "nowhere.pth")


def test_by_order_names_the_first_shape_that_differs():
    model = timm_network(SMALL, 2)
    state = {f"p{i}": value for i, value in enumerate(weights_of(model).values())}
    renamed = by_order(model, state, "here")
    assert list(renamed) == list(weights_of(model))
    assert all(torch.equal(renamed[key], value) for key, value in weights_of(model).items())
    with pytest.raises(ValueError, match=r"here: p0 is \(1, 2\), expected .* for conv_stem.weight"):
        by_order(model, state | {"p0": torch.zeros(1, 2)}, "here")
    with pytest.raises(ValueError, match="tensors, expected the"):
        by_order(model, dict(list(state.items())[:-1]), "here")


def test_the_installed_package_fits(no_hub):
    path = package_file()
    if path is None:
        pytest.skip(f"{PACKAGE} is not installed (extra pretrained)")
    model, _ = imagenet_network(PACKAGE_NET, 1000)
    stripes = torch.zeros(1, 3, 224, 224)
    stripes[..., ::16] = 2
    assert model.eval()(stripes).softmax(1).max() > 0.05, "a random network says .001 of every class"
    assert len(read_pinned(path)) >= 247


# What a network wants to see


def test_input_comes_from_the_network_s_own_configuration():
    config = timm_input("timm:resnet18")
    assert (config.image_size, config.mean, config.fixed_size) == (224, (0.485, 0.456, 0.406), False)
    assert timm_input(SMALL).image_size == 160 and timm_input("timm:vit_tiny_patch16_224").fixed_size


@pytest.mark.parametrize("mode", ["squash", "center", "border"])
@pytest.mark.parametrize("size", [(1, 1), (300, 20), (20, 300), (64, 64), (65, 63)])
@pytest.mark.parametrize("fraction", [0.875, 0.95, 1.0])
def test_every_crop_mode_fills_the_square(mode, size, fraction):
    config = InputConfig(64, (0.5,) * 3, (0.5,) * 3, mode, fraction, "bicubic")
    out = prepare_image(Image.new("RGB", size, (255, 0, 0)), config)
    assert out.size == (64, 64) and out.mode == "RGB"
    assert out.getpixel((32, 32)) == (255, 0, 0) or mode == "border"


def test_center_is_what_timm_does():
    from timm.data import create_transform

    small = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    image, config = (
        Image.fromarray(small).resize((360, 270), Image.Resampling.BICUBIC),
        timm_input("timm:resnet18"),
    )
    theirs = create_transform(
        input_size=224,
        mean=config.mean,
        std=config.std,
        crop_pct=config.crop_fraction,
        interpolation=config.interpolation,
        crop_mode="center",
    )(image)
    ours = torch.from_numpy(np.array(prepare_image(image, config))).permute(2, 0, 1) / 255
    ours = (ours - torch.tensor(config.mean)[:, None, None]) / torch.tensor(config.std)[:, None, None]
    assert (ours - theirs).abs().mean() < 0.02
