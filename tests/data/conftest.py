"A data root for the tests of this room."

import shutil
from pathlib import Path

import pytest
from helpers.data_sets import draw_challenge, draw_faceforensics, draw_heads, draw_image, write


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    "A data root that no test writes to."
    root = tmp_path_factory.mktemp("data") / "small"
    draw_challenge(root / "challenge", 12)
    draw_faceforensics(root / "faceforensics", pairs=[(f"{2 * i:03d}", f"{2 * i + 1:03d}") for i in range(4)])
    draw_heads(root / "heads")
    draw_image(root / "pool/a.png", 77)
    write(root / "pool/labels.csv", "path,label,role\na.png,real,query\n")
    return root


@pytest.fixture
def mine(tree, tmp_path):
    "A copy of the data root that a test may spoil."
    return Path(shutil.copytree(tree, tmp_path / "mine"))
