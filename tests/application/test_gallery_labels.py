"The gallery: labels of known images, and what could not be read."

import json
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from deepfake_nbs.application.cli import app
from deepfake_nbs.application.gallery import Gallery


def invoke(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def test_matches_carry_labels_and_unreadable_files_are_told(heads_run, known, photos):
    for folder in (known, known / "train"):
        gallery = Gallery.open(folder, heads_run, k=3)
        found = gallery.find(sorted(photos.iterdir())[2])
        assert (
            Path(found[0].path).name == "2.png"
            and (found[0].label, found[0].source) == ("real", "S2")
            and len(found) == 3
        )
        assert "cannot be read" in gallery.note
    result = invoke("check", sorted(photos.iterdir())[3], "--run", heads_run, "--gallery", known, "--whole")
    assert result.exit_code == 0 and "cannot be read" in result.stdout and "3.png (fake" in result.stdout


def test_evidence_and_retrieve_say_what_the_gallery_could_not_read(heads_run, known, photos, tmp_path):
    photo = sorted(photos.iterdir())[3]
    result = invoke("check", photo, "--run", heads_run, "--gallery", known, "--json", "--whole")
    assert any(
        "broken.png" in note and note.startswith("gallery:") for note in json.loads(result.stdout)["notes"]
    )
    result = invoke("check", photo, photo, "--run", heads_run, "--gallery", known, "--whole")
    assert result.stdout.count("cannot be read") == 1, "said once, above the table"
    assert invoke("index", known, tmp_path / "index", "--run", heads_run).exit_code == 1, (
        "one file could not be read"
    )
    for gallery in (known, tmp_path / "index"):
        result = invoke("retrieve", photo, "--gallery", gallery, "--run", heads_run)
        assert (
            result.exit_code == 0
            and "cannot be read" in result.stderr
            and "cannot be read" not in result.stdout
        )


@pytest.mark.parametrize(
    "content, words",
    [
        (b"file,label\nx.png,1\n", "labels.csv: lacks the columns ['path']"),
        (b"", "labels.csv: lacks the columns ['path']; found none"),
        ("path,label,source\n0.png,1,Z\u00fcrich\n".encode("latin-1"), "labels.csv: not a table in UTF-8"),
        (b"path,label\n" + b"x" * 200_000 + b",1\n", "labels.csv: not a table in UTF-8"),
    ],
)
def test_a_broken_table_of_a_gallery_is_named(heads_run, known, photos, content, words):
    (known / "manifest.csv").unlink()
    (known / "labels.csv").write_bytes(content)
    for command in (("check", sorted(photos.iterdir())[0]), ("retrieve", sorted(photos.iterdir())[0])):
        result = invoke(*command, "--run", heads_run, "--gallery", known)
        assert result.exit_code == 2 and words in result.stderr and "Traceback" not in result.output


def test_a_table_that_a_spreadsheet_saved_is_read(heads_run, known, photos):
    text = (known / "manifest.csv").read_text()
    (known / "manifest.csv").write_text(text + "train/9.png\n", encoding="utf-8-sig")
    found = Gallery.open(known, heads_run, k=1).find(sorted(photos.iterdir())[2])
    assert (found[0].label, found[0].source) == ("real", "S2")


def test_a_picture_in_memory_finds_the_same_and_its_own_bytes_never(heads_run, known, photos):
    gallery, photo = Gallery.open(known, heads_run), sorted(photos.iterdir())[1]
    assert [m.path for m in gallery.find(photo)] == [
        m.path for m in gallery.find(Image.open(photo).convert("RGB"))
    ]
    assert "1.png" not in {Path(match.path).name for match in gallery.find(known / "train" / "1.png")}


@pytest.mark.parametrize(
    "similarity, measure, order", [("cosine", "similarity", -1), ("euclidean", "distance", 1)]
)
def test_a_match_says_whether_its_number_is_a_similarity_or_a_distance(
    heads_run, known, photos, tmp_path, similarity, measure, order
):
    assert (
        invoke("index", known, tmp_path / "index", "--run", heads_run, "--similarity", similarity).exit_code
        == 1
    ), "broken.png"
    found = Gallery.open(tmp_path / "index", heads_run).find(sorted(photos.iterdir())[0])
    assert {match.measure for match in found} == {measure}
    assert [match.similarity for match in found] == sorted(
        (match.similarity for match in found), key=lambda number: order * number
    )


def test_a_bad_gallery_is_named(heads_run, photos, tmp_path):
    (tmp_path / "empty").mkdir()
    for place in (tmp_path / "nowhere", tmp_path / "empty"):
        result = invoke("check", photos, "--run", heads_run, "--gallery", place)
        assert result.exit_code == 2 and place.name in result.stderr and "Traceback" not in result.output


def test_index_and_retrieve_commands(heads_run, known, photos, tmp_path):
    made = invoke("index", known, tmp_path / "index", "--run", heads_run)
    assert made.exit_code == 1 and "6 images" in made.stdout and "broken.png" in made.stderr
    photo = sorted(photos.iterdir())[4]
    result = invoke("retrieve", photo, "--gallery", tmp_path / "index", "-k", 2, "--json", "--run", heads_run)
    assert result.exit_code == 0 and Path(json.loads(result.stdout)["matches"][0]["path"]).name == "4.png"
    (tmp_path / "bad.jpg").touch()
    assert (
        invoke(
            "retrieve", tmp_path / "bad.jpg", photo, "--gallery", tmp_path / "index", "--run", heads_run
        ).exit_code
        == 1
    )
    assert invoke("index", known, tmp_path / "other", "--feature", "nose").exit_code == 2
