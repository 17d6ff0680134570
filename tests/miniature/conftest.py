"One small set of embedded data, drawn once for the tests of this room."

import csv
from pathlib import Path
import pytest
from deepfake_nbs.miniature import drawing
from deepfake_nbs.miniature import portraits
from deepfake_nbs.miniature import sets


SIZES = dict(n_people=5, n_videos=2, n_head_frames=24)


@pytest.fixture(scope="session")
def drawn(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("drawn") / "miniature"
    drawing.draw_miniature(folder, **SIZES, workers=2, progress=False)
    return folder


@pytest.fixture(scope="session")
def pair() -> list[portraits.Portrait]:
    return [sets.clip_frame(sets.make_clip(42, i), 3) for i in (2, 3)]


@pytest.fixture(scope="session")
def labels(drawn) -> list[dict]:
    with open(drawn / "challenge" / "labels.csv", newline="") as file:
        return list(csv.DictReader(file))
