"Heatmaps of P(fake): against Grad-CAM by hand, on every kind of network; both controls, and measures computed by hand."

import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from deepfake_nbs.application.models import fold_and_compare
from deepfake_nbs.classifiers import heatmaps as h
from deepfake_nbs.classifiers.kernel import KernelClassifier
from deepfake_nbs.classifiers.networks import build_network


def network(net):
    torch.manual_seed(0)
    width = 1.0 if net.startswith("timm:") else 0.1
    return build_network(net, width=width).eval()


@pytest.fixture(scope="module")
def x():
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("net", ["light_midway", "timm:test_efficientnet", "timm:test_resnet"])
def test_a_heatmap_is_grad_cam_of_the_logit(net, x):
    "The gradient is taken by hand, without captum and its hooks."
    model = network(net)
    score = h.FakeScore(model)
    maps = score.maps(x).detach().requires_grad_()
    logits = (
        model.fc(maps.mean((2, 3))) if hasattr(model, "features") else model.forward_head(maps)
    )  # Dropout is off
    gradient = torch.autograd.grad((logits[:, 1] - logits[:, 0]).sum(), maps)[0]
    weighted = (gradient.mean((2, 3), keepdim=True) * maps).sum(1, keepdim=True).relu().detach()
    large = nn.functional.interpolate(weighted, (50, 70), mode="bilinear", align_corners=False)[:, 0].double()
    for found, by_hand in zip(h.heatmaps(model, x, [(50, 70)] * 2), large, strict=True):
        assert found.min() >= 0 and found.sum() == pytest.approx(1)
        if by_hand.sum() > 0:
            assert np.allclose(found, by_hand / by_hand.sum(), atol=1e-7)
    assert not any(parameter.grad is not None for parameter in model.parameters())


def test_the_heatmap_of_p_fake_is_that_of_its_logit(x):
    "P (1 - P) scales all places of an image alike."
    model = network("light")
    score = h.FakeScore(model)
    maps = score.maps(x).detach().requires_grad_()
    probability = model.fc(maps.mean((2, 3))).softmax(1)[:, 1]
    gradient = torch.autograd.grad(probability.sum(), maps)[0]
    weighted = (gradient.mean((2, 3), keepdim=True) * maps).sum(1).relu().detach()
    large = nn.functional.interpolate(weighted[:, None], (64, 64), mode="bilinear")[:, 0]
    for found, one in zip(h.heatmaps(model, x), large, strict=True):
        assert np.allclose(found, h.scale_heatmap(one.numpy()), atol=1e-6)


def test_an_svm_and_a_folded_network_have_heatmaps_too(x):
    body = network("timm:test_efficientnet")
    svm = KernelClassifier(body, body.num_features, 5).eval()
    with torch.no_grad():
        svm.scale.fill_(1.0)
        svm.vectors.copy_(torch.randn(5, body.num_features))
        svm.coefficients.copy_(torch.tensor([1.0, -1, 1, -1, 1]))
        svm.kernel.copy_(torch.tensor([0.01, 0.0, 1.0, 0.0]))
    assert h.heatmaps(svm, x)[0].std() > 0
    plain = h.heatmaps(body, x)
    folded = h.heatmaps(fold_and_compare(network("timm:test_efficientnet"), 64), x)
    assert all(np.allclose(*pair, atol=1e-5) for pair in zip(plain, folded, strict=True))
    other = h.randomised_copy(svm, seed=3)
    assert sorted(other.coefficients.tolist()) == sorted(svm.coefficients.tolist())


def test_networks_without_maps_are_refused(x):
    with pytest.raises(ValueError, match="VisionTransformer: no last convolutional stage, its features are"):
        h.heatmaps(network("timm:test_vit"), torch.zeros(1, 3, 160, 160))
    with pytest.raises(ValueError, match="Identity: gives logits alone, as an ONNX model does; expected"):
        h.heatmaps(nn.Identity(), x)


def test_without_captum_one_sentence_says_how_to_install_it(monkeypatch, x):
    monkeypatch.setitem(sys.modules, "captum", None)
    with pytest.raises(
        ValueError, match=r"captum, which is not installed; `pip install 'deepfake_nbs\[explain\]'`"
    ):
        h.heatmaps(network("light"), x)


def test_captum_is_loaded_where_it_is_used_alone():
    code = "import sys, deepfake_nbs.classifiers.heatmaps; print({'captum', 'matplotlib'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_crops_of_several_sizes_and_batches():
    model, config = network("light"), dict(image_size=64, mean=[0.5] * 3, std=[0.5] * 3)
    crops = [Image.effect_noise(size, 60).convert("RGB") for size in ((40, 60), (64, 64), (90, 33))]
    found = h.crop_heatmaps(model, config, crops, batch_size=2)
    assert [one.shape for one in found] == [(60, 40), (64, 64), (33, 90)]
    alone = h.crop_heatmaps(model, config, crops[2:])[0]
    assert np.allclose(found[2], alone, atol=1e-6) and h.crop_heatmaps(model, config, []) == []


@pytest.mark.parametrize("net", ["light", "timm:test_efficientnet", "timm:test_resnet"])
def test_a_random_copy_shares_nothing_and_depends_on_its_seed_alone(net, x):
    model = network(net)
    before, random = {k: v.clone() for k, v in model.state_dict().items()}, torch.get_rng_state()
    first, again, other = (h.randomised_copy(model, seed) for seed in (0, 0, 1))
    assert torch.equal(random, torch.get_rng_state()) and not first.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    states = [one.state_dict() for one in (first, again, other)]
    assert all(torch.equal(states[0][key], states[1][key]) for key in before)
    convolutions = [key for key, value in before.items() if value.ndim == 4]
    assert not any(torch.equal(states[0][key], before[key]) for key in convolutions)
    assert not any(torch.equal(states[0][key], states[2][key]) for key in convolutions)
    assert 1e-3 < float(h.LastMaps(first)(x).std()) < 1e3


def test_broken_weights_are_named():
    with pytest.raises(ValueError, match="values that are no numbers; the weights of the network are broken"):
        h.scale_heatmap(np.array([[np.nan, 1.0]]))
    assert h.scale_heatmap(np.zeros((2, 5))) == pytest.approx(0.1)


def test_the_centre_prior_by_hand():
    prior = h.centre_prior((4, 2), width=0.5)
    rows, columns = np.exp(-0.5 * np.array([-0.75, -0.25, 0.25, 0.75]) ** 2), np.exp([-0.125, -0.125])
    assert np.allclose(prior, np.outer(rows, columns) / np.outer(rows, columns).sum())
    assert prior.sum() == pytest.approx(1)
    for size, width in (((0, 4), 0.25), ((4, 4), 0.0), ((4, 4), float("nan"))):
        with pytest.raises(ValueError, match="expected pixels, and a width above 0"):
            h.centre_prior(size, width)


def test_the_pointing_game_and_the_energy_by_hand():
    heatmap = np.zeros((5, 5))
    heatmap[0, 0], heatmap[4, 4], heatmap[2, 2] = 0.5, 0.3, 0.2
    region = np.zeros((5, 5), bool)
    region[3:, 4] = True
    assert h.energy_in_region(heatmap, region) == pytest.approx(0.3)
    assert [h.pointing_game(heatmap, region, one) for one in (0, 4.9, 5)] == [0, 0, 1]  # (0, 0) to (3, 4): 5
    region[0, 0] = True
    assert h.pointing_game(heatmap, region) == 1
    heatmap[4, 4] = heatmap[2, 2] = 0.5  # Three places, two of them hits
    assert h.pointing_game(heatmap, region) == pytest.approx(2 / 3)
    assert h.energy_in_region(3 * heatmap, region) == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    "region, message",
    [
        (None, "the mask is missing; expected True where the crop was manipulated"),
        (np.zeros((4, 4), bool), "the mask is empty; expected a region of at least one pixel"),
        (np.ones((4, 5), bool), "the mask is 4 x 5, the heatmap 4 x 4; expected the same height x width"),
        (np.full((4, 4), 255, np.uint8), "the mask holds uint8; expected True and False"),
    ],
)
def test_a_region_that_nothing_can_be_measured_with(region, message):
    for measure in (h.pointing_game, h.energy_in_region):
        with pytest.raises(ValueError, match=message):
            measure(np.full((4, 4), 1 / 16), region)
    with pytest.raises(ValueError, match="tolerance is -1"):
        h.pointing_game(np.full((4, 4), 1 / 16), np.ones((4, 4), bool), -1)
