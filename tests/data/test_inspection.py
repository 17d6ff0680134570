"Every image is looked at once, and what was seen is kept."

import json

import pandas as pd
import pytest
from helpers.data_sets import draw_image

from deepfake_nbs.data import inspection
from deepfake_nbs.data.inspection import inspect_image, inspect_images, separate_rejected
from deepfake_nbs.files import read_notes


@pytest.fixture
def files(tmp_path):
    for i in range(6):
        draw_image(tmp_path / f"{i}.png", i)
    (tmp_path / "5.png").write_bytes(b"")
    return sorted(tmp_path.glob("*.png"))


def test_what_was_seen_is_noted_and_not_looked_at_again(files, tmp_path, monkeypatch):
    first = inspect_images(files, tmp_path / "notes.jsonl", 2, False)
    assert [note.get("reason", "") for note in first] == [""] * 5 + ["the file is empty"]
    looked = []
    monkeypatch.setattr(
        inspection, "inspect_image", lambda file: looked.append(file.name) or inspect_image(file)
    )
    draw_image(files[2], 99)
    second = inspect_images(files, tmp_path / "notes.jsonl", 2, False)
    assert looked == ["2.png", "5.png"]  # One has changed; one could not be read and may be readable now
    assert [note.get("sha256") for note in second[:2]] == [note.get("sha256") for note in first[:2]]
    assert second[2]["sha256"] != first[2]["sha256"]


def test_an_interrupted_look_keeps_what_it_saw(files, tmp_path, monkeypatch):
    def stop(file):
        if file.name == "3.png":
            raise KeyboardInterrupt
        return inspect_image(file)

    monkeypatch.setattr(inspection, "inspect_image", stop)
    with pytest.raises(KeyboardInterrupt):
        inspect_images(files, tmp_path / "notes.jsonl", 1, False)
    assert len(read_notes(tmp_path / "notes.jsonl")) == 3


def test_notes_of_an_older_version_are_taken_again(files, tmp_path):
    inspect_images(files[:1], tmp_path / "notes.jsonl", 1, False)
    note = next(iter(read_notes(tmp_path / "notes.jsonl").values()))
    older = {key: value for key, value in note.items() if key not in ("phash", "tiny_copy")} | {"look": "00"}
    (tmp_path / "notes.jsonl").write_text(json.dumps(older) + "\n")
    assert inspect_images(files[:1], tmp_path / "notes.jsonl", 1, False)[0]["phash"] == note["phash"]


def test_the_same_bytes_cannot_be_real_and_fake():
    rows = pd.DataFrame(dict(origin=list("abcd"), label=[0, 1, 0, 1]), index=[3, 5, 7, 9])
    seen = dict(width=1, height=1, format="PNG", phash="flat", tiny_copy="")
    notes = [seen | dict(sha256="1"), seen | dict(sha256="1"), seen | dict(sha256="2"), dict(reason="empty")]
    usable, rejected = separate_rejected(rows, notes)
    assert usable["origin"].tolist() == ["c"] and usable.index.tolist() == [7]
    assert rejected["path"].tolist() == ["a", "b", "d"]
    assert rejected["reason"].str.contains("real in one place").tolist() == [True, True, False]
