"Networks that have learned nothing, photographs of noise, a video, and a gallery; shared by the tests of the application."

import numpy as np
import pytest
from PIL import Image

from deepfake_nbs.application.models import untrained_run
from deepfake_nbs.core import write_text


@pytest.fixture(scope="module")
def heads_run(tmp_path_factory):
    return untrained_run(tmp_path_factory.mktemp("heads"))


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for i in range(20):
        Image.fromarray(rng.integers(0, 255, (50, 80, 3), np.uint8)).save(folder / f"{i:02d}.png")
    return folder


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    import cv2

    path = tmp_path_factory.mktemp("video") / "clip.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 25, (96, 64))
    for i in range(30):
        writer.write(np.full((64, 96, 3), 8 * i, np.uint8))
    writer.release()
    return path


@pytest.fixture
def known(tmp_path, photos):
    folder = tmp_path / "known"
    (folder / "train").mkdir(parents=True)
    for i, path in enumerate(sorted(photos.iterdir())[:6]):
        Image.open(path).resize((60, 40)).save(folder / "train" / f"{i}.png")
    (folder / "train" / "broken.png").write_text("no image")
    write_text(
        folder / "manifest.csv",
        "path,label,source\n" + "".join(f"train/{i}.png,{i % 2},S{i}\n" for i in range(6)),
    )
    return folder
