"Machines without a connection, and stand-ins for weights that are fetched."

import hashlib
from collections import OrderedDict

import pytest
import torch

from deepfake_nbs import pretrained
from deepfake_nbs.pretrained import PACKAGE_NET, read_pinned, timm_network

SMALL = "timm:test_efficientnet"  # 0.4 million parameters, input of 160 pixels


@pytest.fixture
def no_hub(monkeypatch, tmp_path):
    "A machine without a connection, on which nothing was fetched before."
    monkeypatch.setattr(pretrained, "hub_answers", lambda: False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("torch.hub.load_state_dict_from_url", lambda *a, **k: pytest.fail("asked for a file"))


@pytest.fixture
def package(monkeypatch, tmp_path):
    "A stand-in for the packaged weights: a state of the right network under other names."
    model = timm_network(PACKAGE_NET, 1000)
    tensors = [value for key, value in model.state_dict().items() if not key.endswith("num_batches_tracked")]
    torch.save(OrderedDict((f"part.{i}", value) for i, value in enumerate(tensors)), tmp_path / "lite0.pth")
    digest = hashlib.sha256((tmp_path / "lite0.pth").read_bytes()).hexdigest()
    monkeypatch.setattr(pretrained, "package_file", lambda: tmp_path / "lite0.pth")
    monkeypatch.setattr(pretrained, "read_pinned", lambda path: read_pinned(path, digest))
    return model
