"Datasets of drawn spots: one that cannot be learned, one that is easy."

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageDraw

from deepfake_nbs.baselines import study, visual_words
from deepfake_nbs.core import file_sha256


def draw_spots(path, seed, spots=25, size=(96, 96), colour=(255, 255, 255)):
    "A dark image with bright discs, which SIFT finds."
    rng, image = np.random.default_rng(seed), Image.new("RGB", size, (30, 30, 30))
    for _ in range(spots):
        x, y, radius = rng.integers(0, size[0]), rng.integers(0, size[1]), rng.integers(2, 7)
        ImageDraw.Draw(image).ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    return image


def make_dataset(folder, fake, n=72, real=None):
    "A dataset of n images in groups of two, one real and one fake; `fake(path, i)` draws the fakes."
    rows, real = [], real or draw_spots
    for i in range(n):
        split = "train" if i < n * 2 // 3 else "validation" if i < n * 5 // 6 else "test"
        path = f"{split}/{i:06d}.png"
        (real, fake)[i % 2](folder / path, i)
        rows.append(dict(path=path, label=i % 2, group=f"person{i // 2}", split=split, sha256=file_sha256(folder / path)))
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def neutral(tmp_path_factory):
    "Fakes are drawn as reals are: nothing tells them apart."
    folder = tmp_path_factory.mktemp("neutral")
    return folder, make_dataset(folder, draw_spots, 240)


@pytest.fixture(scope="module")
def easy(tmp_path_factory):
    "Fakes have small squares where reals have discs: their descriptors differ."
    folder = tmp_path_factory.mktemp("easy")

    def fake(path, seed):
        rng, image = np.random.default_rng(seed), Image.new("RGB", (96, 96), (30, 30, 30))
        for _ in range(25):
            x, y = rng.integers(0, 90, 2)
            ImageDraw.Draw(image).rectangle((x, y, x + 9, y + 3), fill=(255, 255, 255))
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)

    return folder, make_dataset(folder, fake)


@pytest.fixture
def counted(monkeypatch):
    "How often SIFT ran."
    calls, find = [], visual_words.find_keypoints
    monkeypatch.setattr(visual_words, "find_keypoints", lambda grey, settings: calls.append(1) or find(grey, settings))
    return calls


def training_images(dataset):
    folder, manifest = dataset
    rows = manifest[manifest["split"].eq("train")].reset_index(drop=True)
    return visual_words.image_paths(rows, folder), rows


@pytest.fixture(scope="module")
def blobs():
    rng = np.random.default_rng(0)
    make = {n: rng.permutation(np.repeat([0, 1], n // 2)) for n in (120, 60)}
    return [(rng.normal(size=(n, 6)) + 2.5 * y[:, None], y) for n, y in make.items()]


@pytest.fixture(scope="session")
def draw():
    return draw_spots


@pytest.fixture(scope="session")
def make_set():
    return make_dataset


@pytest.fixture(scope="session")
def train_of():
    return training_images


@pytest.fixture(scope="session")
def small():
    "A study of seconds."
    return study.BaselineConfig(n_words=8, kernels=("linear", "rbf"), C=(0.1, 10.0), n_trees=(10, 30), max_descriptors=2000)
