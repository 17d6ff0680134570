"A run folder with two tiny runs on pictures of noise, for tests that read runs."

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from deepfake_nbs.core import file_sha256
from deepfake_nbs.datasets import MANIFEST_COLUMNS
from deepfake_nbs.classifiers.recipes import TrainingConfig
from deepfake_nbs.classifiers.training import train_run

TINY = TrainingConfig(row=8, crop=False, epochs=3, image_size=48, width=0.1, batch_size=5, learning_rate=0.01, workers=1,
                      precision="float32")


@pytest.fixture(scope="module")
def one_thread():
    "Networks this small lose more by waiting for a second thread than they gain, above all on a busy machine."
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def draw_dataset(folder: Path, n: int = 30, protocol: str = "group") -> Path:
    "Noise; fakes are smoother. Three fifths train, one fifth each validation and test."
    rng, rows = np.random.default_rng(0), []
    for i in range(n):
        split = ("train", "train", "train", "validation", "test")[i % 5]
        path = f"{split}/{i:06d}.png"
        image = Image.fromarray(rng.integers(0, 256, (40, 56, 3), dtype=np.uint8))
        image = image.resize((14, 10)).resize((56, 40)) if i % 2 else image
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        image.save(folder / path)
        rows.append(dict(path=path, label=i % 2, source="noise", method="smooth" if i % 2 else "none", group=f"{i:03d}", video="", frame="",
                         width=56, height=40, format="PNG", sha256=file_sha256(folder / path), split=split))
    pd.DataFrame(rows)[list(MANIFEST_COLUMNS)].to_csv(folder / "manifest.csv", index=False)
    (folder / "dataset.json").write_text(json.dumps({"plan": {"protocol": protocol}}))
    return folder


@pytest.fixture(scope="module")
def noise(tmp_path_factory):
    return draw_dataset(tmp_path_factory.mktemp("noise") / "cvcs_dfd")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    "A run folder with rows 1 and 8 trained; tests must not change it."
    run = tmp_path_factory.mktemp("run") / "smoke-noise"
    draw_dataset(run / "cvcs_dfd")
    for row, net in ((1, "xception"), (8, "light")):
        train_run(run, replace(TINY, row=row, net=net, crop=row == 8, epochs=2), str(row))
    return run


@pytest.fixture()
def copy(run, tmp_path):
    shutil.copytree(run, tmp_path / run.name)
    return tmp_path / run.name


def rewrite(path, change):
    "Change the rows of a manifest."
    change(pd.read_csv(path / "manifest.csv", dtype=str, keep_default_na=False)).to_csv(path / "manifest.csv", index=False)


@pytest.fixture(scope="module")
def mine(run, tmp_path_factory):
    "The run of noise with a network of one's own in it, and an unnamed twin of row 8 with another seed; tests must not change it."
    place = tmp_path_factory.mktemp("mine") / run.name
    shutil.copytree(run, place)
    train_run(place, replace(TINY, row=0, net="midway", epochs=1), "my network")
    train_run(place, replace(TINY, row=0, net="light", crop=True, epochs=2, seed=7), "custom-light-seed7")
    return place
