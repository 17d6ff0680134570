"""Fixtures of head detection: a small set of frames, and a training on it."""

import shutil

import pytest
import torch
from helpers.head_samples import TINY, draw_film

from deepfake_nbs.heads.data import build_head_set
from deepfake_nbs.heads.detector import HeadDetector
from deepfake_nbs.heads.training import train_detector


@pytest.fixture(autouse=True)
def one_thread():  # Small images: a second thread costs more than it saves
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def film(tmp_path_factory):
    folder = tmp_path_factory.mktemp("film")
    return build_head_set(draw_film(folder / "heads"), folder / "set", progress=False)


@pytest.fixture(scope="session")
def trained(film, tmp_path_factory):
    out = tmp_path_factory.mktemp("training")
    return out, train_detector(film, out, TINY, device="cpu", data="film", progress=False)


@pytest.fixture
def copy(film, tmp_path):
    "A head set of one's own to spoil."
    shutil.copytree(film.root, tmp_path / "heads")
    return tmp_path / "heads"


@pytest.fixture(scope="session")
def detector(trained):
    return HeadDetector.load(trained[0] / "phase2" / "model", device="cpu")


@pytest.fixture(scope="session")
def run(trained, film, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "smoke-film"
    shutil.copytree(trained[0], run / "head_detection")
    return run
