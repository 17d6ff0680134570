"Contracts of the frozen network under an SVM: scikit-learn's numbers, nothing trained, the same after saving."

import numpy as np
import pytest
import torch
from helpers.pretrained_weights import SMALL
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from deepfake_nbs.classifiers.kernel import KernelClassifier, fit_kernel
from deepfake_nbs.classifiers.networks import build_network, image_features

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def clouds():
    "Features of two classes that no plane separates: one lies around the other."
    rng = np.random.default_rng(0)
    x = rng.normal(size=(160, 6)).astype(np.float32) * 3 + 5
    labels = (np.linalg.norm(x - 5, axis=1) > np.median(np.linalg.norm(x - 5, axis=1))).astype(int)
    return x[:100], labels[:100], x[100:], labels[100:]


@pytest.fixture(scope="module")
def classifier(clouds):
    fit = fit_kernel(*clouds)
    model = KernelClassifier(torch.nn.Identity(), 6, 100)
    model.load_state_dict(dict(fit.state))
    return fit, model


def test_decisions_are_those_of_scikit_learn(clouds, classifier):
    x, labels, other, _ = clouds
    fit, model = classifier
    scaler = StandardScaler().fit(x)
    svm = SVC(C=fit.C, gamma=fit.gamma, class_weight="balanced").fit(scaler.transform(x), labels)
    logits = model.decide(torch.from_numpy(other))
    slope, offset = model.kernel[2:].tolist()
    assert slope > 0, "a higher decision is more fake"
    expected = slope * svm.decision_function(scaler.transform(other)) + offset
    np.testing.assert_allclose(logits[:, 1] - logits[:, 0], expected, atol=2e-3)


def test_the_pair_is_chosen_on_validation(clouds):
    one, both = fit_kernel(*clouds, grid=((1.0, 0.01),)), fit_kernel(*clouds, grid=((1.0, 0.01), (4.0, 1.0)))
    assert (one.C, both.C) == (1.0, 4.0) and both.validation_auc > max(one.validation_auc, 0.9)


def test_the_network_stays_frozen_and_in_evaluation_mode():
    network = build_network(SMALL)
    model = KernelClassifier(network, network.num_features, 3).train()
    assert not model.network.training and not model(torch.rand(2, 3, 64, 64)).requires_grad
    assert model(torch.rand(2, 3, 64, 64)).shape == (2, 2)


def test_an_image_goes_through_the_features_of_the_network():
    network = build_network(SMALL)
    model, x = KernelClassifier(network, network.num_features, 3), torch.rand(2, 3, 64, 64)
    model.load_state_dict(
        dict(vectors=torch.rand(3, network.num_features), coefficients=torch.tensor([1.0, -2.0, 0.5])), False
    )
    model.kernel.copy_(torch.tensor([0.01, 0.1, 2.0, 0.3]))
    with torch.no_grad():
        torch.testing.assert_close(model(x), model.decide(image_features(network.eval(), x)))
    assert model(x)[:, 0].eq(0).all()
