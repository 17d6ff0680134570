"The table that all parts share, and labels.csv."

import pandas as pd
import pytest
from helpers.data_sets import draw_challenge, good_rows, write

from deepfake_nbs.data.manifest import MANIFEST_COLUMNS, check_manifest, read_labels, read_manifest
from deepfake_nbs.data.readers import read_challenge


@pytest.mark.parametrize(
    "column, value",
    [
        ("path", "/etc/passwd"),
        ("path", "../up.png"),
        ("path", "train/000000.png"),
        ("path", ""),
        ("path", "a\\b.png"),
        ("label", 2),
        ("label", None),
        ("source", ""),
        ("method", "none"),
        ("method", ""),
        ("group", ""),
        ("frame", -1),
        ("frame", 1.5),
        ("frame", "one"),
        ("width", 0),
        ("height", "x"),
        ("format", ""),
        ("sha256", "12"),
        ("split", "val"),
    ],
)
def test_the_first_bad_cell_is_named(column, value):
    df = good_rows().astype(object)
    df.loc[1, column] = value
    with pytest.raises(ValueError, match=f"row 1, column {column}"):
        check_manifest(df)


def test_a_manifest_survives_the_disk(tmp_path):
    df = check_manifest(good_rows().assign(note="kept", frame=[0, None, 2]))
    df.to_csv(tmp_path / "manifest.csv", index=False)
    pd.testing.assert_frame_equal(read_manifest(tmp_path), df)
    pd.testing.assert_frame_equal(read_manifest(tmp_path / "manifest.csv"), df)
    assert list(df)[:14] == list(MANIFEST_COLUMNS) and df["frame"].isna().sum() == 1


def test_bad_manifests_say_what_is_wrong(tmp_path):
    with pytest.raises(ValueError, match="columns group are missing"):
        check_manifest(good_rows().drop(columns="group"))
    with pytest.raises(ValueError, match="no rows"):
        check_manifest(good_rows()[:0])
    with pytest.raises(FileNotFoundError, match="no such manifest"):
        read_manifest(tmp_path)
    write(tmp_path / "manifest.csv", "")
    with pytest.raises(ValueError, match="manifest.csv"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    "text, message",
    [
        ("path,label\na.png,maybe\n", "line 2, column label: 'maybe'; expected one of real, fake"),
        ("path,label,split\na.png,real,dev\n", "column split"),
        ("path,label,role\na.png,real,wall\n", "column role"),
        ("path,label\na.png,real\n../b.png,real\n", "line 3: path"),
        ("path\na.png\n", "at least path and label"),
        ("path,label\n/a.png,real\n", "inside the folder"),
        ("path,label\na.png,real\na.png,fake\n", "named once"),
        ("", "not a table"),
        ("path,label\n./a.png,real\na.png,real\n", "line 2: path"),
        ("path,label\nb//a.png,real\n", "line 2: path"),
        ("path,label,method\na.png,real,StarGAN\n", "line 2, column method"),
        ("path,label,method\na.png,fake,none\n", "column method"),
    ],
)
def test_a_bad_labels_file_names_line_and_column(tmp_path, text, message):
    write(tmp_path / "labels.csv", text)
    with pytest.raises(ValueError, match=message) as error:
        read_labels(tmp_path)
    assert "labels.csv" in str(error.value)


def test_labels_fill_what_is_left_out(tmp_path):
    write(tmp_path / "mine/labels.csv", "path,label,video\na.png,real,\nb.png,fake,v.mp4\nc.png,fake,v.mp4\n")
    df = read_labels(tmp_path / "mine")
    assert df["source"].eq("mine").all() and df["method"].tolist() == ["none", "unknown", "unknown"]
    assert df["group"].tolist() == ["mine:a.png", "mine:v.mp4", "mine:v.mp4"]
    with pytest.raises(FileNotFoundError):
        read_labels(tmp_path)


def test_labels_csv_wins_over_folder_names(tmp_path):
    draw_challenge(tmp_path, 2)
    write(
        tmp_path / "labels.csv",
        "path,label,source,method,group,split,camera\n"
        "1-StarGAN/000.png,fake,,StarGAN:age,CelebA:000,val,\n0-CelebA/000.png,REAL,,,CelebA:000,val,old\n1-StarGAN/gone.png,1,,,,,\n"
        "0-FFHQ/001.png,fake,,,,,\n",
    )
    df = read_challenge(tmp_path).set_index("path")
    edit, photo, gone = df.loc["1-StarGAN/000.png"], df.loc["0-CelebA/000.png"], df.loc["1-StarGAN/gone.png"]
    assert (edit.method, edit.group, edit.split, edit.source) == (
        "StarGAN:age",
        photo.group,
        "validation",
        "StarGAN",
    )
    assert photo.camera == "old" and photo.method == "none"
    assert gone.label == 1 and gone.method == "unknown" and len(df) == 9
    assert df.loc["0-FFHQ/001.png", ["label", "method"]].tolist() == [1, "unknown"]
    assert df.loc["1-STYLEGAN2/000.png", "group"] == "STYLEGAN2:000"


@pytest.mark.parametrize(
    ("column", "value"), [("image_id", "000000"), ("image_id", ""), ("phash", "12"), ("phash", "none")]
)
def test_a_bad_id_or_hash_is_named(column, value):
    df = good_rows().assign(image_id=["000000", "000001", "000002"], phash=["0" * 16, "flat", ""])
    check_manifest(df)
    df.loc[1, column] = value
    with pytest.raises(ValueError, match=f"row 1, column {column}"):
        check_manifest(df)


def test_a_manifest_of_an_older_version_is_read(tmp_path):
    older = good_rows()
    assert not {"image_id", "phash"} & set(older)
    older.to_csv(tmp_path / "manifest.csv", index=False)
    df = read_manifest(tmp_path)
    assert df["image_id"].tolist() == ["000000", "000001", "000002"] and df["phash"].eq("").all()
    for paths, ids in (
        (["a/1.png", "b/1.png", "c.png"], ["a/1", "b/1", "c"]),
        (["1.png", "1.jpg", "a.b/c"], ["1.png", "1.jpg", "a.b/c"]),
    ):
        assert check_manifest(older.assign(path=paths))["image_id"].tolist() == ids
    with pytest.raises(ValueError, match="row 1, column path"):  # Not the id that would be taken from it
        check_manifest(older.assign(path=["a.png", "a.png", "b.png"]))
