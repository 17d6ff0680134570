"Contracts of the networks: sizes, names of weights, refusal of foreign weights, preparation of images."

import inspect
import subprocess
import sys
from urllib.error import URLError

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from deepfake_nbs.classifiers import xception
from deepfake_nbs.classifiers.xception import (
    VARIANTS,
    Xception,
    create_model,
    entry_parts,
    normalise,
    trace_shapes,
)
from deepfake_nbs.images import resize_square


PARAMETERS = dict(xception=20_811_050, midway=25_270_002, light=14_355_146)


SMALL = dict(
    n_classes=2,
    in_channels=3,
    n_middle=1,
    channels_per_group=1,
    project_every_skip=False,
    width=0.1,
    dropout=0.5,
)


def on_meta(net, **arguments):
    with torch.device("meta"):
        return create_model(net, **arguments).eval()


def count(model):
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("net", PARAMETERS)
def test_parameters_are_those_of_the_report(net):
    assert count(on_meta(net)) == PARAMETERS[net]


def test_light_midway_is_both():
    middle_block = (PARAMETERS["midway"] - count(on_meta("light_midway"))) / 4
    assert middle_block == (PARAMETERS["xception"] - PARAMETERS["light"]) / 4 + 728**2 + 2 * 728 + 3 * 9 * 728


@pytest.mark.parametrize("net", VARIANTS)
@pytest.mark.parametrize("width", [0.03, 0.1, 0.25, 0.37, 0.5, 1.0, 1.3])
def test_every_width_makes_a_network(net, width):
    model = on_meta(net, width=width)
    assert model(torch.zeros(2, 3, 64, 64, device="meta")).shape == (2, 2)
    per_group = VARIANTS[net].get("channels_per_group", 1)
    assert model.block5.rep[1].conv1.weight.shape[1] == per_group


@pytest.mark.parametrize("size", [32, 64, 71, 96])
def test_small_images_work(size):
    assert torch.isfinite(create_model("midway", width=0.1).eval()(torch.rand(2, 3, size, size))).all()


@pytest.mark.parametrize(
    "name, value",
    [
        ("n_classes", 5),
        ("in_channels", 1),
        ("n_middle", 2),
        ("channels_per_group", 2),
        ("project_every_skip", True),
        ("width", 0.2),
    ],
)
def test_each_argument_changes_the_network(name, value):
    assert count(Xception(**SMALL)) != count(Xception(**{**SMALL, name: value}))


def test_dropout_acts_in_training_only():
    torch.manual_seed(0)
    model, x = Xception(**SMALL), torch.rand(2, 3, 32, 32)
    features = model.features(x).mean((2, 3)).detach()
    assert not torch.equal(model.dropout(features), model.dropout(features))
    model.eval()
    assert torch.equal(model(x), model(x))
    assert Xception(**{**SMALL, "dropout": 0.0}).dropout.p == 0


def test_a_processor_takes_few_images_through_the_entry_flow_with_equal_results(monkeypatch):
    torch.manual_seed(0)
    model, x, seen = Xception(**SMALL), torch.rand(5, 3, 64, 64), []
    model.conv1.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    whole = model.eval()(x)
    monkeypatch.setattr(xception, "entry_parts", lambda x, width: 3)
    assert torch.allclose(model(x), whole, atol=1e-5)
    model.train()(x)
    assert seen == [5, 2, 2, 1, 5]  # Batch norms measure the whole batch


def test_parts_follow_size_width_and_device():
    assert [entry_parts(torch.zeros(16, 3, side, side)) for side in (64, 192, 299)] == [1, 7, 16]
    assert entry_parts(torch.zeros(16, 3, 192, 192), width=0.25) == 2
    assert entry_parts(torch.zeros(4, 3, 64, 64), pixels=64 * 64) == 4
    assert (
        entry_parts(torch.zeros(16, 3, 299, 299, device="meta"))
        == entry_parts(torch.zeros(0, 3, 299, 299))
        == 1
    )


def test_no_argument_is_untested():
    assert set(inspect.signature(Xception).parameters) == set(SMALL)


@pytest.mark.parametrize(
    "name, value",
    [
        ("n_classes", 0),
        ("in_channels", 0),
        ("n_middle", -1),
        ("channels_per_group", 3),
        ("width", 0.0),
        ("width", 9),
        ("dropout", 1.0),
    ],
)
def test_an_impossible_argument_is_named(name, value):
    with pytest.raises(ValueError, match=name):
        Xception(**{**SMALL, name: value})


def test_unknown_net_lists_the_known():
    with pytest.raises(ValueError, match="unknown net 'resnet'.*xception, midway, light, light_midway"):
        create_model("resnet")


def randomise(model):
    "Batch norms that do something, so that a swapped one shows."
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for values in (module.weight.data, module.running_var):
                values.uniform_(0.8, 1.2)
            for values in (module.bias.data, module.running_mean):
                values.uniform_(-0.2, 0.2)
    return model.eval()


def fill(model):
    "The same weights in any network with these names, from numpy's generator, whose numbers stay the same over its versions."
    rng = np.random.default_rng(0)
    for name, tensor in sorted(model.state_dict().items()):
        if tensor.is_floating_point():
            values = rng.standard_normal(tuple(tensor.shape))
            if name.endswith("running_var"):
                values = 1 + 0.1 * np.abs(values)
            elif tensor.dim() == 1:
                values = 0.1 * values + name.endswith("weight")
            else:
                values = values / np.sqrt(np.prod(tensor.shape[1:]))
            tensor.copy_(torch.from_numpy(values))
    return model.eval()


# What timm 1.0.31 says with these weights; the test below makes the numbers again where timm is installed
LOGITS_OF_TIMM = [[0.08369394, 0.48974201], [0.06167217, 0.51376420]]


@torch.inference_mode()
def test_same_logits_as_those_recorded_from_timm():
    x = torch.from_numpy(np.random.default_rng(1).uniform(-1, 1, (2, 3, 96, 96))).float()
    assert torch.allclose(fill(create_model("xception"))(x), torch.tensor(LOGITS_OF_TIMM), atol=1e-4)
    try:
        import timm
    except ImportError:
        return  # The peer is not part of the environment; its numbers above are
    assert torch.allclose(
        fill(timm.create_model("legacy_xception", num_classes=2))(x), torch.tensor(LOGITS_OF_TIMM), atol=1e-4
    )


def test_speed_is_that_of_the_fastest_batch(monkeypatch):
    network, seen = create_model("xception", width=0.1), []
    network.register_forward_hook(lambda module, inputs, output: seen.append(tuple(inputs[0].shape)))
    clock = iter([0.0, 2.0, 10.0, 10.5, 20.0, 24.0])  # Three batches: 2, 0.5 and 4 seconds
    monkeypatch.setattr(xception.time, "perf_counter", lambda: next(clock))
    assert xception.images_per_second(network, 64, 4, n=3) == 8
    assert seen == [(4, 3, 64, 64)] * 4 and not network.training, "one batch to warm up, three that are timed"


def test_same_logits_as_timm():
    timm = pytest.importorskip("timm", reason="timm is not installed (extra `bench`)")
    torch.manual_seed(0)
    theirs = randomise(timm.create_model("legacy_xception", pretrained=False, num_classes=2))
    ours = create_model("xception").eval()
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())
    x = torch.rand(2, 3, 299, 299) * 2 - 1
    with torch.inference_mode():
        assert torch.allclose(ours(x), theirs(x), atol=1e-4)


@pytest.fixture(scope="module")
def midway():
    torch.manual_seed(1)
    return randomise(create_model("midway", width=0.1))


def saved(model, path):
    state = {k: v.contiguous() for k, v in model.state_dict().items()}
    save_file(state, path) if path.suffix == ".safetensors" else torch.save(state, path)
    return path


@pytest.mark.parametrize("name", ["model.safetensors", "model.pt"])
def test_weights_come_back_to_the_last_bit(midway, tmp_path, name):
    again = create_model("midway", width=0.1, weights=saved(midway, tmp_path / name)).eval()
    x = torch.rand(2, 3, 48, 48)
    assert torch.equal(again(x), midway(x))


@pytest.mark.parametrize(
    "arguments, problem",
    [
        (dict(net="xception", width=0.1), "has an unknown block"),
        (dict(net="light_midway", width=0.1), "has an unknown"),
        (dict(net="midway", width=0.5), "has another shape for conv1.weight"),
        (dict(net="midway", width=0.1, n_classes=3), "has another shape for fc.weight"),
    ],
)
def test_weights_of_another_network_are_refused(midway, tmp_path, arguments, problem):
    path = saved(midway, tmp_path / "midway.safetensors")
    with pytest.raises(ValueError, match=problem) as error:
        create_model(**arguments, weights=path)
    assert str(path) in str(error.value)


def test_imagenet_without_a_network_says_what_to_do(monkeypatch):
    def offline(*args, **kwargs):
        raise URLError("no route")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", offline)
    with pytest.raises(ConnectionError, match="cannot download.*weights=None"):
        create_model("xception", weights="imagenet")
    for arguments in (dict(net="midway"), dict(net="xception", width=0.5)):
        with pytest.raises(ValueError, match="width 1 only"):
            create_model(**arguments, weights="imagenet")


def test_imagenet_keeps_a_head_of_two_classes(monkeypatch):
    torch.manual_seed(0)
    theirs = create_model("xception", n_classes=1000).state_dict()
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", lambda *args, **kwargs: dict(theirs))
    model = create_model("xception", weights="imagenet")
    assert model.fc.out_features == 2
    assert torch.equal(model.block7.rep[1].pointwise.weight, theirs["block7.rep.1.pointwise.weight"])
    assert torch.equal(
        create_model("xception", n_classes=1000, weights="imagenet").fc.weight, theirs["fc.weight"]
    )


def test_normalise_is_exact_and_keeps_channels_last():
    pixels = torch.arange(256, dtype=torch.uint8).view(1, 16, 16, 1).expand(1, 16, 16, 3).contiguous()
    x = normalise(pixels)
    assert torch.allclose(x, pixels.permute(0, 3, 1, 2).float() / 127.5 - 1, atol=1e-6)
    assert x.min() == -1 and x.max() == 1
    assert x.is_contiguous(memory_format=torch.channels_last)
    assert pixels.max() == 255, "the input must not change"


def test_shrinking_does_not_alias():
    checks = np.indices((128, 128)).sum(0) % 2 * 255
    image = Image.fromarray(np.repeat(checks[..., None], 3, 2).astype(np.uint8))
    small = resize_square(image, 16)
    assert small.shape == (16, 16, 3) and abs(small.astype(int) - 127).max() < 20


def test_multiply_adds_are_counted_on_the_module():
    layers = trace_shapes(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, padding=1, bias=False)), 10)
    assert layers == [dict(name="0", shape=(4, 10, 10), parameters=108, macs=108 * 100)]
    model = on_meta("light")
    trace_shapes(model)
    assert not any(module._forward_hooks for module in model.modules())


def test_the_drawing_has_every_stage():
    import matplotlib.pyplot as plt

    for net, n_stages in (("xception", 17), ("light", 13)):
        ax = xception.plot_architecture(on_meta(net), net)
        assert len(ax.patches) == n_stages
        plt.close(ax.figure)


def test_import_is_light():
    heavy = ("fastai", "sklearn", "matplotlib", "pandas", "pydantic")
    modules = "deepfake_nbs.classifiers.xception, deepfake_nbs.classifiers.saved, deepfake_nbs.runs"
    code = f"import sys, {modules}; print([m for m in {heavy} if m in sys.modules])"
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.strip()
        == "[]"
    )
