"""The gallery of known images, and the commands `index` and `retrieve`: what is left out is said, what is gone is no match."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner


from deepfake_nbs.application.cli import app
from deepfake_nbs.application.gallery import GALLERIES, RETRIEVAL, Gallery
from deepfake_nbs.application.pipeline import Pipeline


def draw(path, seed):
    low = np.random.default_rng(seed).integers(0, 255, (6, 6, 3), np.uint8)
    Image.fromarray(low).resize((48, 40), Image.Resampling.BICUBIC).save(path, "PNG")


def invoke(*words):
    return CliRunner().invoke(app, [*map(str, words)])


@pytest.fixture
def run(tmp_path):
    "A run folder as far as a gallery looks into it."
    (tmp_path / "run" / "models" / "classifier").mkdir(parents=True)
    (tmp_path / "run" / "models" / "classifier" / "config.json").write_text("{}")
    return tmp_path / "run"


@pytest.fixture
def known(tmp_path):
    (tmp_path / "known").mkdir()
    for i in range(6):
        draw(tmp_path / "known" / f"{i}.png", i)
    return tmp_path / "known"


def names(matches):
    return [Path(match.path).name for match in matches]


def test_images_that_are_gone_are_said_and_are_no_matches(run, known, tmp_path):
    assert invoke("index", known, tmp_path / "index").exit_code == 0
    before = names(Gallery.open(tmp_path / "index", run, k=5).find(known / "0.png"))
    (known / before[0]).unlink()
    gallery = Gallery.open(tmp_path / "index", run, k=3)
    command = f"`deepfake-nbs index {known} {tmp_path / 'index'}`"
    assert (
        gallery.note == f"images gone or changed, and so not shown: 1 of 6; {command} makes the index again"
    )
    assert names(gallery.find(known / "0.png")) == before[1:4]
    (known / before[2]).unlink()  # While the gallery is open
    assert names(gallery.find(known / "0.png")) == [before[1], *before[3:5]] and ": 2 of 6;" in gallery.note
    result = invoke("retrieve", known / "0.png", "--gallery", tmp_path / "index", "--run", run, "-k", 5)
    assert result.exit_code == 0 and result.stdout.count("similarity") == 3 and before[0] not in result.stdout
    assert result.stderr.count("images gone or changed") == 1 and command in result.stderr


def test_an_image_with_other_bytes_is_no_match(run, known, tmp_path):
    invoke("index", known, tmp_path / "index")
    gallery = Gallery.open(tmp_path / "index", run, k=5)
    before = names(gallery.find(known / "0.png"))
    draw(known / before[0], 99)
    assert names(gallery.find(known / "0.png")) == before[1:] and ": 1 of 6;" in gallery.note


@pytest.mark.parametrize("command", ["check", "retrieve"])
def test_an_index_that_was_moved_is_refused_with_the_command_that_mends_it(
    command, run, known, tmp_path, monkeypatch
):
    invoke("index", known, tmp_path / "index")
    (tmp_path / "far" / "away").mkdir(parents=True)
    shutil.move(tmp_path / "index", tmp_path / "far" / "away" / "index")
    monkeypatch.setattr(Pipeline, "load", lambda *args: None)
    result = invoke(command, known / "0.png", "--gallery", tmp_path / "far" / "away" / "index", "--run", run)
    assert (
        result.exit_code == 2
        and "none of its 6 images is in" in result.stderr
        and "were moved" in result.stderr
    )
    assert (
        f"`deepfake-nbs index FOLDER {tmp_path / 'far' / 'away' / 'index'}`" in result.stderr
        and "similarity" not in result.stdout
    )


@pytest.mark.parametrize("n", [1, 2])
def test_a_gallery_of_one_or_two_images_where_whitening_ranks_best(n, run, tmp_path):
    (run / RETRIEVAL).mkdir(parents=True)
    (run / RETRIEVAL / "config.json").write_text(
        json.dumps(dict(feature=dict(name="thumbnail"), similarity="whitened"))
    )
    (tmp_path / "few").mkdir()
    for i in range(n):
        draw(tmp_path / "few" / f"{i}.png", i)
    draw(tmp_path / "photo.png", 9)
    gallery = Gallery.open(tmp_path / "few", run)
    assert gallery.index.config["similarity"] == "cosine" and len(gallery.find(tmp_path / "photo.png")) == n
    assert len(gallery.find(tmp_path / "few" / "0.png")) == n - 1  # Never itself
    result = invoke("retrieve", tmp_path / "few" / "0.png", "--gallery", tmp_path / "few", "--run", run)
    assert result.exit_code == 0 and ("no match in the gallery" in result.stdout) == (n == 1)


def test_an_empty_gallery_is_refused_by_name(run, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "film.mp4").touch()
    draw(tmp_path / "photo.png", 1)
    result = invoke("retrieve", tmp_path / "photo.png", "--gallery", tmp_path / "empty", "--run", run)
    assert (
        result.exit_code == 2
        and "empty: no images in this folder; 1 video (film.mp4) left out" in result.stderr
    )


def test_a_changed_gallery_whose_index_may_not_be_written(run, known, monkeypatch):
    Gallery.open(known, run)
    draw(known / "new.png", 50)
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    result = invoke("retrieve", known / "0.png", "--gallery", known, "--run", run)
    assert result.exit_code == 2 and "its images have changed since it was made" in result.stderr
    assert (
        f"may not be written; index the images into another folder: `deepfake-nbs index {known} NEW_INDEX`"
        in result.stderr
    )
    (known / "new.png").unlink()
    assert invoke("retrieve", known / "0.png", "--gallery", known, "--run", run).exit_code == 0


def test_index_says_what_it_passed_over_and_its_exit_code_says_whether_all_was_read(run, known, tmp_path):
    for name in ("film.mp4", "photo.heic", "._0.png"):
        (known / name).write_bytes(b"something")
    result = invoke("index", known, tmp_path / "index")
    assert (
        result.exit_code == 0
        and "1 video (film.mp4) and 1 file that is no image (1 .heic) left out" in result.stderr
    )
    os.mkfifo(known / "pipe.png")
    (known / "gone.jpg").symlink_to(known / "nowhere")
    result = invoke("index", known, tmp_path / "index")
    assert result.exit_code == 1 and "6 images" in result.stdout
    assert "gone.jpg: a link to a file that is not there; pipe.png: a device, a pipe" in result.stderr
    for words in (("", tmp_path / "index"), (known, "")):
        assert invoke("index", *words).exit_code == 2
    assert "an empty name" in invoke("retrieve", known / "0.png", "--gallery", "").output


def test_index_says_the_recall_of_an_approximate_index(known, tmp_path):
    result = invoke("index", known, tmp_path / "index", "--kind", "hnsw")
    assert result.stdout.strip().endswith(
        "6 images, thumbnail, cosine, hnsw, hnsw finds 1.000 of what exact search finds"
    )


def test_names_reach_the_terminal_spelled_out(run, known, tmp_path):
    for i, name in enumerate(
        (b"c\rr.png", b"l\nf.png", b"\x1b[2J.png", b"\xff.png", "\u202e.png".encode(), b"NA.png")
    ):
        draw(os.path.join(known, os.fsdecode(name)), 20 + i)
    (known / "bad\x1b[31m.png").write_text("no image")
    result = invoke("index", known, tmp_path / "index")
    assert (
        result.exit_code == 1
        and r"bad\x1b[31m.png: not an image" in result.stderr
        and len(result.stdout.splitlines()) == 1
    )
    for gallery in (tmp_path / "index", known):
        result = invoke("retrieve", known / "0.png", "--gallery", gallery, "--run", run, "-k", 20)
        shown = result.stdout.splitlines()
        assert result.exit_code == 0 and len(shown) == 12 and all(line.isprintable() for line in shown)
        for name in (r"c\rr.png", r"l\nf.png", r"\x1b[2J.png", r"\udcff.png", r"\u202e.png", "NA.png"):
            assert sum(name in line for line in shown) == 1
    result = invoke("retrieve", known / "0.png", "--gallery", known, "--run", run, "-k", 20, "--json")
    assert os.fsdecode(b"\xff.png") in {
        Path(match["path"]).name for match in json.loads(result.stdout)["matches"]
    }
    assert len(list((run / GALLERIES).iterdir())) == 1
    odd = known.rename(known.with_name(os.fsdecode(b"known \xff\n")))
    assert invoke("retrieve", odd / "0.png", "--gallery", odd, "--run", run).exit_code == 0
