"Distance from the training images: what it finds, what it refuses, and the file beside a classifier."

import numpy as np
import pytest
import torch

from deepfake_nbs.classifiers import outliers as out
from deepfake_nbs.classifiers.kernel import KernelClassifier
from deepfake_nbs.classifiers.networks import build_network, image_features

PLACES = {"A, real": 0.0, "A, fake": 4.0, "B, real": 8.0}


def draw(n=200, d=30, places=PLACES, seed=0):
    rng = np.random.default_rng(seed)
    parts = [rng.normal(size=(n, d)) * np.linspace(0.5, 2, d) + place for place in places.values()]
    return np.concatenate(parts), np.repeat(list(places), n)


@pytest.fixture(scope="module")
def fitted():
    return out.fit_outliers(*draw(), *draw(seed=1))


def test_unknown_images_lie_beyond_the_limit_and_known_ones_within(fitted):
    known, _ = draw(seed=2)
    unknown, _ = draw(places={"C, fake": -6.0}, seed=3)
    assert (fitted.distance(known) > fitted.limit).mean() == pytest.approx(0.05, abs=0.03)
    assert (fitted.distance(unknown) > fitted.limit).mean() > 0.95
    assert fitted.kinds == ("A, fake", "A, real", "B, real") and not fitted.note


def test_the_distance_is_that_of_mahalanobis():
    features, kinds = draw(n=4000, d=5)
    found = out.fit_outliers(features, kinds, *draw(d=5, seed=1))
    means = np.stack([features[kinds == kind].mean(0) for kind in found.kinds])
    within = features - means[np.searchsorted(found.kinds, kinds)]
    inverse = np.linalg.inv(np.cov(within, rowvar=False))
    x = draw(n=50, d=5, seed=4)[0]
    gap = x[:, None] - means
    expected = np.sqrt(np.einsum("nkd,de,nke->nk", gap, inverse, gap).min(1))
    assert np.allclose(found.distance(x), expected, rtol=0.02)


def test_a_file_keeps_the_distance_and_is_small(fitted, tmp_path):
    path = out.write_outliers(fitted, tmp_path)
    again = out.read_outliers(tmp_path)
    x, _ = draw(seed=5)
    assert np.array_equal(again.distance(x), fitted.distance(x)) and again.limit == fitted.limit
    assert path.name == "outliers.safetensors" and again.quantile == 0.95
    wide = np.random.default_rng(0).normal(size=(300, 2048))
    kinds = np.repeat(["A, real", "A, fake"], 150)
    large = out.fit_outliers(wide, kinds, wide, kinds)
    assert out.write_outliers(large, tmp_path).stat().st_size < 500_000


def test_other_weights_and_damage_are_refused(fitted, tmp_path):
    assert out.read_outliers(tmp_path, "c0ffee") is None
    out.write_outliers(out.replace(fitted, weights="c0ffee"), tmp_path)
    assert out.read_outliers(tmp_path, "c0ffee").weights == "c0ffee"
    with pytest.raises(ValueError, match="fitted for the weights c0ffee, the classifier has beef"):
        out.read_outliers(tmp_path, "beef")
    path = tmp_path / out.OUTLIERS
    for damage in (path.read_bytes()[:200], b"", b"no tensors"):
        path.write_bytes(damage)
        with pytest.raises(ValueError, match="outliers.safetensors: not a distance of outliers"):
            out.read_outliers(tmp_path)
    out.write_outliers(out.replace(fitted, limit=float("nan")), tmp_path)
    with pytest.raises(ValueError, match="no finite number"):
        out.read_outliers(tmp_path)


def test_features_of_another_network_are_refused(fitted):
    with pytest.raises(ValueError, match="expected images x 30"):
        fitted.distance(np.zeros((2, 7)))


def test_a_source_with_five_images_gets_no_mean_and_is_named(fitted):
    features, kinds = draw()
    few = np.concatenate([features, features[:5]]), np.concatenate([kinds, ["D, real"] * 5])
    found = out.fit_outliers(*few, *draw(seed=1))
    assert "D, real (5)" in found.note and found.kinds == fitted.kinds
    with pytest.raises(
        ValueError, match=r"training images: D, real \(5\); expected a source with at least 10"
    ):
        out.fit_outliers(features[:5], np.array(["D, real"] * 5), *draw(seed=1))
    with pytest.raises(ValueError, match="validation images: 0 of a source"):
        out.fit_outliers(features, kinds, *draw(places={"E, fake": 0.0}))


def test_features_without_spread_are_refused():
    kinds = np.array(["A, real"] * 20)
    with pytest.raises(ValueError, match="those of 20 images do not differ"):
        out.fit_outliers(np.ones((20, 8)), kinds, np.ones((20, 8)), kinds)
    with pytest.raises(ValueError, match="values that are no numbers"):
        out.fit_outliers(np.full((20, 8), np.nan), kinds, np.ones((20, 8)), kinds)


def test_one_kind_and_idle_features_are_enough():
    features, kinds = draw(places={"A, real": 0.0})
    features[:, 3:20] = 0  # A network may leave features at zero
    found = out.fit_outliers(features, kinds, features, kinds)
    assert found.kinds == ("A, real",) and found.projection.shape == (30, 13)
    assert np.isfinite(found.distance(features)).all()


@pytest.mark.parametrize(
    "net, size",
    [("light", 64), ("timm:test_efficientnet", 64), ("timm:test_resnet", 64), ("timm:test_vit", 160)],
)
def test_one_pass_gives_features_and_logits(net, size):
    model, x = build_network(net, width=0.1 if net == "light" else 1.0).eval(), torch.randn(2, 3, size, size)
    calls = []
    body = model.conv1 if net == "light" else next(m for m in model.modules() if not list(m.children()))
    body.register_forward_hook(lambda *_: calls.append(1))
    with torch.inference_mode():
        expected, features = model(x), image_features(model, x)
        calls.clear()
        found = out.features_and_logits(model, x)
    assert len(calls) == 1, "the network is run once"
    assert torch.allclose(found[0], features, atol=1e-5) and torch.allclose(found[1], expected, atol=1e-5)
    assert out.has_features(model) and not out.has_features(torch.nn.Identity())


def test_an_svm_gives_features_too():
    model = KernelClassifier(build_network("timm:test_efficientnet").eval(), 32, 4).eval()
    x = torch.randn(2, 3, 64, 64)
    n = image_features(model.network, x).shape[1]
    model = KernelClassifier(model.network, n, 4).eval()
    with torch.inference_mode():
        features, logits = out.features_and_logits(model, x)
        assert torch.equal(logits, model(x)) and features.shape == (2, n)
