"Frames with head boxes: names, lists, annotations."

import shutil

import pytest
from helpers.data_sets import draw_heads, write

from deepfake_nbs.data.annotations import read_boxes, read_heads
from deepfake_nbs.data.readers import read_sources


def test_heads_are_grouped_by_film(tmp_path):
    draw_heads(tmp_path)
    df = read_heads(tmp_path)
    assert df["group"].tolist() == ["HollywoodHeads:mov_001"] * 2 + [
        "HollywoodHeads:mov_002",
        "HollywoodHeads:mov_003",
    ]
    assert df["split"].tolist() == ["train", "train", "validation", "test"]
    boxes = read_boxes(tmp_path)
    assert boxes.columns.tolist() == ["path", "xmin", "ymin", "xmax", "ymax", "name"]
    assert boxes.groupby("path").size().to_dict() == {
        "JPEGImages/mov_001_000020.jpeg": 1,
        "JPEGImages/mov_002_000010.jpeg": 2,
    }
    assert boxes["xmax"].eq(30.5).all()


def test_lists_of_frames_are_text_that_can_be_read(tmp_path):
    draw_heads(tmp_path)
    lists = tmp_path / "Splits"
    write(lists / "test.txt", "\ufeff" + (lists / "test.txt").read_text())
    assert read_heads(tmp_path)["split"].tolist() == ["train", "train", "validation", "test"]
    (lists / "test.txt").write_bytes("mov_003_é".encode("latin-1"))
    with pytest.raises(ValueError, match="test.txt: not UTF-8"):
        read_heads(tmp_path)
    for path in list(lists.iterdir()):
        path.rename(path.with_name(f"heads_{path.name}"))
    with pytest.raises(ValueError, match="Splits: holds heads_.*but none of train.txt, val.txt, test.txt"):
        read_heads(tmp_path)


def test_bad_head_trees(tmp_path):
    draw_heads(tmp_path)
    write(tmp_path / "Annotations/lonely.xml", (tmp_path / "Annotations/mov_001_000020.xml").read_text())
    with pytest.warns(UserWarning, match="1 boxes left out.*lonely.xml"):
        read_boxes(tmp_path)
    write(
        tmp_path / "Annotations/lonely.xml",
        "<annotation><object><bndbox><xmin>1</xmin></bndbox></object></annotation>",
    )
    with pytest.raises(ValueError, match="lonely.xml: a box without four numbers"):
        read_boxes(tmp_path)
    bomb = '<!DOCTYPE a [<!ENTITY b "bbbb">]><annotation>&b;</annotation>'
    for text in ("<annotation>", "", bomb):
        write(tmp_path / "Annotations/lonely.xml", text)
        with pytest.raises(ValueError, match="lonely.xml: not a Pascal VOC annotation"):
            read_boxes(tmp_path)
    write(tmp_path / "Splits/test.txt", "mov_001_000010\n")
    with pytest.raises(ValueError, match="mov_001_000010.* is also in"):
        read_heads(tmp_path)
    shutil.rmtree(tmp_path / "JPEGImages")
    (tmp_path / "Splits/test.txt").unlink()
    (tmp_path / "Annotations/lonely.xml").unlink()
    with pytest.raises(FileNotFoundError, match="no images in JPEGImages"):
        read_heads(tmp_path)


def test_a_broken_first_annotation_does_not_stop_who_needs_no_boxes(tmp_path):
    draw_heads(tmp_path / "heads")
    write(tmp_path / "heads/Annotations/aaa.xml", "<broken")
    assert len(read_sources(tmp_path).heads) == 4
    with pytest.raises(ValueError, match="aaa.xml"):
        read_boxes(tmp_path / "heads")
