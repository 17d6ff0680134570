"""Crops with a margin, and the cropped dataset: built once, whole, resumed."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner
from helpers.head_samples import OnlyBright

from deepfake_nbs.data import build
from deepfake_nbs.heads import cropping
from deepfake_nbs.application.models import training_margin, untrained_run
from deepfake_nbs.application.cli import app
from deepfake_nbs.data.build import build_cvcs_dfd
from deepfake_nbs.data.manifest import read_manifest
from deepfake_nbs.data.storage import read_annotation_files, read_list_files
from deepfake_nbs.heads.cropping import build_cropped_dfd, crop_counts, crop_head, crop_heads
from deepfake_nbs.heads.detector import HeadBox
from deepfake_nbs.images import read_image


def test_a_crop_has_a_margin_and_no_padding():
    image = Image.new("RGB", (300, 200), "white")
    assert crop_head(image, (100, 50, 180, 150), margin=0.5).size == (160, 200)
    assert crop_head(image, (100, 50, 180, 150), margin=0).size == (80, 100)
    corner = crop_head(image, (-20, -20, 60, 60), margin=0.2)
    assert corner.getextrema() == ((255, 255),) * 3
    assert crop_head(image, (10.2, 10.2, 10.4, 10.4), margin=0).size == (1, 1)
    for box in ((400, 0, 500, 100), (50, 50, 50, 80), (80, 50, 40, 80)):
        with pytest.raises(ValueError, match="no part of the image"):
            crop_head(image, box)
    assert [
        crop.size
        for crop in crop_heads(image, [HeadBox((0, 0, 10, 10), 0.5), HeadBox((0, 0, 20, 30), 0.4)], margin=0)
    ] == [
        (10, 10),
        (20, 30),
    ]


@pytest.mark.parametrize("margin", [1e308, float("inf"), float("nan"), -0.1, 10.1])
def test_a_margin_is_a_fraction_of_the_box(margin):
    with pytest.raises(
        ValueError,
        match=f"margin is {margin:g}".replace("+", r"\+") + "; expected a fraction of the box, 0 to 10",
    ):
        crop_head(Image.new("RGB", (40, 30)), (10, 10, 20, 20), margin)
    with pytest.raises(ValueError, match="expected a fraction of the box"):
        crop_heads(Image.new("RGB", (40, 30)), [HeadBox((10, 10, 20, 20), 0.5)], margin)


def test_the_largest_margin_takes_the_whole_image():
    assert crop_head(Image.new("RGB", (40, 30)), (10, 10, 20, 20), 10).size == (40, 30)


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
@pytest.mark.parametrize("corner", range(4))
def test_a_box_of_no_numbers_is_refused(corner, value):
    box = [10.0, 10.0, 20.0, 20.0]
    box[corner] = value
    with pytest.raises(ValueError, match="not numbers; expected pixels"):
        crop_head(Image.new("RGB", (40, 30)), tuple(box))


@pytest.fixture
def whole(tmp_path):
    "CVCS DFD of 40 images, one in eight dark."
    for label in (0, 1):
        (tmp_path / "data/challenge" / f"{label}-toy").mkdir(parents=True)
        for i in range(20):
            colour = (i, 10 * label, 3) if i % 8 == 3 else (200 + i, 220, 200 + label)
            Image.new("RGB", (80, 60), colour).save(
                tmp_path / "data/challenge" / f"{label}-toy" / f"{i:02d}.png"
            )
    build_cvcs_dfd(tmp_path / "data", tmp_path / "run/cvcs_dfd", workers=1, progress=False)
    return tmp_path / "run/cvcs_dfd"


def test_the_cropped_dataset_keeps_names_labels_groups_and_splits(whole):
    out = whole.with_name("cvcs_cropped_dfd")
    cropped, before = (
        build_cropped_dfd(whole, OnlyBright(), out, margin=0.1, progress=False),
        read_manifest(whole),
    )
    dropped, common = pd.read_csv(out / "dropped.csv"), pd.read_csv(out / "common.csv")
    assert len(dropped) == 6 and set(dropped["reason"]) == {"no head found"}
    assert len(cropped) == 34 == len(common) and set(cropped["whole"]) | set(dropped["path"]) == set(
        before["path"]
    )
    kept = before.set_index("path").loc[cropped["whole"]].reset_index()
    for column in ("label", "group", "split", "method", "source", "origin"):
        assert cropped[column].tolist() == kept[column].tolist()
    assert [Path(path).stem for path in cropped["path"]] == [Path(path).stem for path in cropped["whole"]]
    for row in cropped.itertuples():
        with Image.open(out / row.path) as image:
            assert image.format == "PNG" and image.size == (row.width, row.height) == (
                36,
                42,
            )  # the larger of both heads
        source = read_image(whole / row.whole).crop((7, 6, 43, 48))
        assert np.array_equal(read_image(out / row.path), source)
    labels = read_annotation_files(out)
    assert (
        labels.equals(read_list_files(out))
        and labels.set_index("path")["label"].to_dict() == cropped.set_index("path")["label"].to_dict()
    )
    assert json.loads((out / "dataset.json").read_text())["plan"]["protocol"] == "group"
    counts = crop_counts(whole.parent)
    assert counts["dropped"].sum() == 6 and counts["more_heads"].sum() == 34


def test_the_cropped_dataset_is_built_once(whole, monkeypatch):
    out = whole.with_name("cvcs_cropped_dfd")
    first = build_cropped_dfd(whole, OnlyBright(), out, progress=False)
    seen = []
    prepare = cropping._read_and_letterbox
    monkeypatch.setattr(
        cropping, "_read_and_letterbox", lambda path, size: seen.append(path) or prepare(path, size)
    )
    assert build_cropped_dfd(whole, OnlyBright(), out, progress=False).equals(first) and seen == []
    build_cropped_dfd(whole, OnlyBright(), out, margin=0.3, progress=False)
    assert len(seen) == len(set(seen)) == 40  # another margin is another dataset; each image is decoded once


@pytest.fixture
def built(whole):
    "A cropped dataset to spoil."
    out = whole.with_name("cvcs_cropped_dfd")
    build_cropped_dfd(whole, OnlyBright(), out, progress=False)
    return out


@pytest.mark.parametrize("name", ["notes.md", "train/mine.png"])
def test_what_a_stranger_put_into_a_cropped_dataset_is_not_deleted(whole, built, name):
    (built / name).write_text("mine")
    with pytest.raises(FileExistsError, match=f"holds something else .*{name}"):
        build_cropped_dfd(whole, OnlyBright(), built, margin=0.4, progress=False)
    assert (built / name).read_text() == "mine"


@pytest.mark.parametrize(
    "what", ["manifest.csv", "common.csv", "dropped.csv", "test.txt", "crop", "label", "empty crop"]
)
def test_a_cropped_dataset_that_is_not_whole_is_built_again(whole, built, what):
    crop = next((built / "train").glob("*.png"))
    path = {"crop": crop, "empty crop": crop, "label": crop.with_suffix(".txt")}.get(what, built / what)
    before = path.read_bytes()
    path.write_bytes(b"") if what.startswith("empty") else path.unlink()
    assert len(build_cropped_dfd(whole, OnlyBright(), built, progress=False)) == 34
    assert path.read_bytes() == before


@pytest.mark.parametrize("text", ["[]", "{", "null", "{}"])
def test_a_folder_with_a_strange_dataset_file_is_refused(whole, built, text):
    (built / "dataset.json").write_text(text)
    with pytest.raises(FileExistsError, match="holds something else"):
        build_cropped_dfd(whole, OnlyBright(), built, progress=False)


@pytest.mark.parametrize(
    "options", [dict(margin=-0.1), dict(margin=float("nan")), dict(margin=float("inf")), dict(threshold=7)]
)
def test_a_margin_and_a_threshold_that_cannot_be_are_refused(whole, options):
    with pytest.raises(ValueError, match="expected a margin of 0 or more, a threshold between 0 and 1"):
        build_cropped_dfd(whole, OnlyBright(), whole.with_name("new"), progress=False, **options)
    with pytest.raises(ValueError, match="inside the data root or around it"):
        build_cropped_dfd(whole, OnlyBright(), whole / "cropped", progress=False)


def test_a_killed_cropping_resumes(whole, monkeypatch):
    out, calls = whole.with_name("cvcs_cropped_dfd"), []

    class Dies(OnlyBright):
        def find_in_squares(self, squares, sizes, threshold=None):
            calls.append(len(squares))
            if len(calls) == 2:
                raise KeyboardInterrupt
            return super().find_in_squares(squares, sizes, threshold)

    with pytest.raises(KeyboardInterrupt):
        build_cropped_dfd(whole, Dies(), out, progress=False)
    assert not out.exists()
    cropped = build_cropped_dfd(whole, OnlyBright(), out, progress=False)
    assert len(cropped) == 34 and not list(whole.parent.glob(".cvcs_cropped_dfd*"))


def test_a_foreign_folder_and_a_blind_detector_are_refused(whole, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/wedding.txt").write_text("do not delete")
    with pytest.raises(FileExistsError, match="holds something else"):
        build_cropped_dfd(whole, OnlyBright(), tmp_path / "photos", progress=False)

    class Blind(OnlyBright):
        def find_in_squares(self, squares, sizes, threshold=None):
            return [[] for _ in squares]

    with pytest.raises(ValueError, match="no head found in any image of the split 'train'"):
        build_cropped_dfd(whole, Blind(), tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()


KILLED = """
import signal, sys
sys.path.insert(0, sys.argv[1])
from helpers.head_samples import OnlyBright
from deepfake_nbs.heads.cropping import build_cropped_dfd

class Stopping(OnlyBright):
    batches = 0

    def find_in_squares(self, *arguments):
        self.batches += 1
        print("batch", self.batches, flush=True)
        if self.batches == 2:
            signal.pause()
        return super().find_in_squares(*arguments)

if __name__ == "__main__":
    build_cropped_dfd(sys.argv[2], Stopping(), sys.argv[3], progress=False)
"""


def test_sigkill_leaves_no_half_dataset(whole):
    out = whole.with_name("cvcs_cropped_dfd")
    command = [
        sys.executable,
        "-c",
        textwrap.dedent(KILLED),
        str(Path(__file__).parents[1]),
        str(whole),
        str(out),
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert [process.stdout.readline() for _ in range(2)] == ["batch 1\n", "batch 2\n"]
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not out.exists()
    assert len(build_cropped_dfd(whole, OnlyBright(), out, progress=False)) == 34


def test_the_command_crop_says_what_a_margin_may_be(tmp_path):
    run = untrained_run(tmp_path / "run")
    for label in (0, 1):
        (tmp_path / "data/challenge" / f"{label}-toy").mkdir(parents=True)
        for i in range(6):
            Image.new("RGB", (40, 30), (40 * i, 90 * label, 9)).save(
                tmp_path / f"data/challenge/{label}-toy/{i}.png"
            )
    build.build_cvcs_dfd(tmp_path / "data", tmp_path / "set", workers=1, progress=False)
    for word in (
        "--margin=1e308",
        "--margin=nan",
        "--margin=-1",
        "--threshold=nan",
        "--threshold=2",
        "--workers=0",
    ):
        done = CliRunner().invoke(
            app, ["crop", str(tmp_path / "set"), str(tmp_path / "out"), "--run", str(run), word]
        )
        assert done.exit_code == 2 and isinstance(done.exception, SystemExit), done.output
        assert (
            len(done.output.strip().splitlines()) == 1
            and "expected" in done.output
            and not (tmp_path / "out").exists()
        )


def test_a_portable_margin_beyond_all_use_is_refused_by_name(tmp_path):
    (tmp_path / "preprocessing.json").write_text(json.dumps({"margin": 1e308}))
    with pytest.raises(
        ValueError,
        match=r"preprocessing.json: margin is 1e\+308; expected a fraction of the box, 0 or more, at most 10",
    ):
        training_margin(tmp_path)
