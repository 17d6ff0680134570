"""A small pool and its index."""

import shutil

import pytest
from helpers.retrieval_data import THUMBNAIL, draw

from deepfake_nbs.retrieval.search import build_index


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pool")
    for i in range(12):
        draw(folder / f"{i:02d}.png", i)
    return folder


@pytest.fixture
def own(pool, tmp_path):
    "A pool of one's own to spoil."
    shutil.copytree(pool, tmp_path / "pool")
    return tmp_path / "pool"


@pytest.fixture
def built(pool, tmp_path):
    return build_index(THUMBNAIL, pool, tmp_path / "index", progress=False)
