"""Pascal VOC as sets come: other shapes, other classes, sizes, lists, names with blanks, two sets under one root."""

import shutil

import pandas as pd
import pytest
from helpers.head_samples import BOX, HEAD, annotation, make_set


from deepfake_nbs.data import annotations
from deepfake_nbs.data.annotations import read_boxes, read_heads
from deepfake_nbs.data.readers import read_sources
from deepfake_nbs.heads.data import build_head_set, heads_root, read_annotation


TURNED = "<object><name>head</name><robndbox><cx>50</cx><cy>50</cy><w>20</w><h>30</h><angle>1</angle></robndbox></object>"
POLYGON = "<object><name>head</name><polygon><x1>5</x1><y1>6</y1><x2>9</x2><y2>6</y2><x3>7</x3><y3>9</y3></polygon></object>"
ODD = {
    "a rotated box": (TURNED, "object 1: a head with a robndbox and without a box"),
    "a polygon": (POLYGON, "object 1: a head with a polygon and without a box"),
    "a polygon beside a box": (HEAD + POLYGON, "object 2: a head with a polygon and without a box"),
    "no box, but words about it": (
        "<object><name>head</name><pose>Left</pose></object>",
        "object 1: a head without a box",
    ),
    "an empty box": ("<object><name>head</name><bndbox/></object>", "a box without four numbers"),
    "a person without a box": ("<object><name>person</name></object>", "object 1: a person without a box"),
    "two boxes in one object": (
        f"<object><name>head</name>{BOX}{BOX}</object>",
        "object 1: 2 boxes; expected one for each head",
    ),
    "a dog beside a head": (
        HEAD + HEAD.replace("head", "dog"),
        "object 2: unknown class 'dog'; expected head or person",
    ),
    "a dog alone": (HEAD.replace("head", "dog"), "object 1: unknown class 'dog'; expected head or person"),
    "persons with heads": (HEAD + HEAD.replace("head", "person"), "objects of the classes head and person"),
    "objects in a list": (f"<objects>{HEAD}</objects>", "object outside of annotation/object"),
    "a box without an object": (BOX, "bndbox outside of annotation/object"),
    "an object in capitals": (HEAD.replace("object>", "Object>"), "Object outside of annotation/object"),
    "an object of another namespace": (
        HEAD.replace("<object>", '<object xmlns="urn:x">'),
        "outside of annotation/object",
    ),
}


def check_all_read(root, tmp_path, n_heads):
    frames = read_heads(root)
    assert len(frames) == 30 and frames["split"].ne("").all()
    assert len(read_boxes(root)) == n_heads
    heads = build_head_set(root, tmp_path / "set", progress=False)
    assert len(heads.frames) == 30 and heads.rejected.empty
    assert sum(map(len, heads.boxes.values())) == n_heads and all(
        len(boxes) for boxes in heads.boxes.values()
    )
    return heads


@pytest.mark.parametrize(
    "case, n_heads",
    [
        ("scut-head", 60),
        ("pretty-xml", 30),
        ("size-decimal", 30),
        ("names-with-spaces", 30),
        ("two-column-lists", 30),
    ],
)
def test_the_sets_of_the_cases_are_read_whole(root, tmp_path, case, n_heads):
    place = root.parent / "shared/cases/voc" / case / "heads"
    if not place.is_dir():
        pytest.skip("../shared/cases is not on this machine")
    check_all_read(place, tmp_path, n_heads)


def test_scut_head_as_it_comes(tmp_path):
    person = f"<object><name>person</name><pose>Unspecified</pose><truncated>0</truncated><difficult>0</difficult>{BOX}</object>"
    xml = annotation(person * 2, "<size><width>0</width><height>0</height><depth>3</depth></size>", "Unknown")
    root = make_set(tmp_path / "scut", name="PartA_{1:05d}", xml=xml, lists="ImageSets/Main")
    heads = check_all_read(root, tmp_path, 60)
    assert heads.boxes["JPEGImages/PartA_00003.jpeg"].tolist() == [[20, 20, 60, 70]] * 2
    assert heads.frames["split"].value_counts().to_dict() == {"train": 18, "validation": 6, "test": 6}
    assert set(read_heads(root)["source"]) == {"scut"}, (
        "a set that calls itself Unknown has the name of its folder"
    )


@pytest.mark.parametrize(
    "size",
    [
        "<size><width>160.0</width><height>120.00</height></size>",
        "<size><width>1.6e2</width><height> 120 </height></size>",
        "<size><width>0</width><height>0</height></size>",
        "<size><width>160</width><height/></size>",
        "<size></size>",
        "",
    ],
)
def test_a_size_is_a_number_and_zero_says_nothing(tmp_path, size):
    (tmp_path / "a.xml").write_text(annotation(HEAD, size))
    assert read_annotation(tmp_path / "a.xml", (160, 120))[0].tolist() == [[20, 20, 60, 70]]


@pytest.mark.parametrize(
    "size, written",
    [("161", "161 x 120"), ("wide", "wide x 120"), ("nan", "nan x 120"), ("-160", "-160 x 120")],
)
def test_another_size_is_an_error(tmp_path, size, written):
    (tmp_path / "a.xml").write_text(
        annotation(HEAD, f"<size><width>{size}</width><height>120</height></size>")
    )
    with pytest.raises(ValueError, match=f"its size is {written}, that of its image 160 x 120"):
        read_annotation(tmp_path / "a.xml", (160, 120))


def test_text_on_lines_of_its_own(tmp_path):
    pretty = annotation(HEAD).replace(">", ">\n    ").replace("</", "\n</")
    root = make_set(tmp_path / "heads", xml=pretty)
    check_all_read(root, tmp_path, 30)
    assert set(read_boxes(root)["name"]) == {"head"}


@pytest.mark.parametrize(
    "line", ["{}", "{}.jpeg", "  {}  ", "{}.JPEG", "{} -1", "{}  1", "{}.jpeg 0", "{}.jpeg\t1"]
)
@pytest.mark.parametrize(
    "name", ["mov_{0:03d}_{1:06d}", "film {0} take ({1})", "film {0} take {1}", "take {1}.5 of film {0}"]
)
def test_a_list_names_one_frame_a_line(tmp_path, name, line):
    root = make_set(tmp_path / "heads", name=name, line=line)
    frames = read_heads(root)
    assert frames["split"].value_counts().to_dict() == {"train": 18, "validation": 6, "test": 6}
    if line == "{} -1":
        heads = build_head_set(root, tmp_path / "set", progress=False)
        assert len(heads.frames) == 30 and heads.rejected.empty


def test_a_frame_whose_name_ends_in_one_is_not_taken_for_two_columns(tmp_path):
    root = make_set(tmp_path / "heads", name="take {1}")
    with open(root / "Splits/train.txt", "a") as file:
        file.write("take 99 1\n")
    heads = build_head_set(root, tmp_path / "set", reject_limit=0.5, progress=False)
    assert heads.rejected["path"].tolist() == ["JPEGImages/take 99"]
    assert (
        heads.frames.set_index("path")["split"]
        .loc[["JPEGImages/take 0.jpeg", "JPEGImages/take 1.jpeg"]]
        .tolist()
        == ["train"] * 2
    )


def test_a_list_names_frames_in_folders(tmp_path):
    root = make_set(tmp_path / "heads")
    (root / "JPEGImages/more").mkdir()
    (root / "JPEGImages/mov_000_000000.jpeg").rename(root / "JPEGImages/more/mov_000_000000.jpeg")
    (root / "Splits/train.txt").write_text(
        (root / "Splits/train.txt").read_text().replace("mov_000_000000", "more/mov_000_000000")
    )
    heads = build_head_set(root, tmp_path / "set", progress=False)
    assert len(heads.frames) == 30 and heads.rejected.empty


def test_hidden_files_beside_annotations_and_lists_are_left_out(tmp_path):
    root = make_set(tmp_path / "heads")
    (root / "Annotations/._mov_000_000000.xml").write_bytes(b"\x00\x05\x16\x07")
    (root / "Splits/._train.txt").write_bytes(b"\x00\x05\x16\x07\xff")
    check_all_read(root, tmp_path, 30)


@pytest.mark.parametrize("case", ODD)
def test_a_frame_with_something_else_than_boxes_of_heads_is_rejected_by_name(tmp_path, case):
    objects, reason = ODD[case]
    root = make_set(tmp_path / "heads")
    (root / "Annotations/mov_002_000007.xml").write_text(annotation(objects))
    with pytest.raises(
        ValueError, match="1 of 30 frames rejected, .*; first JPEGImages/mov_002_000007.jpeg: "
    ) as caught:
        build_head_set(root, tmp_path / "set", progress=False)
    assert reason in str(caught.value)
    heads = build_head_set(root, tmp_path / "set", reject_limit=0.1, progress=False)
    (row,) = heads.rejected.to_dict("records")
    assert (row["path"], row["what"]) == ("JPEGImages/mov_002_000007.jpeg", "frame") and reason in row[
        "reason"
    ]
    assert row["path"] not in heads.boxes and heads.frames["n_heads"].tolist() == [1] * 29


@pytest.mark.parametrize("case", [case for case in ODD if case != "an empty box"])
def test_boxes_of_such_a_frame_are_left_out_by_name(tmp_path, case):
    root = make_set(tmp_path / "heads")
    (root / "Annotations/mov_002_000007.xml").write_text(annotation(ODD[case][0]))
    with pytest.warns(UserWarning, match="1 frames left out, the first: mov_002_000007.xml: ") as told:
        boxes = read_boxes(root)
    assert ODD[case][1] in str(told[0].message)
    assert (
        len(boxes) == 29
        and "JPEGImages/mov_002_000007.jpeg" not in set(boxes["path"])
        and set(boxes["name"]) == {"head"}
    )


def test_a_box_beside_a_polygon_of_the_same_head_counts(tmp_path):
    both = POLYGON.replace("</object>", f"{BOX}</object>")
    check_all_read(make_set(tmp_path / "heads", xml=annotation(both)), tmp_path, 30)


@pytest.mark.parametrize(
    "box", [(60, 20, 20, 70), (20, 20, 20, 70), (500, 20, 600, 70), ("nan", 20, 60, 70), (20, 20, "inf", 70)]
)
def test_a_frame_whose_only_box_is_useless_is_no_frame_without_heads(tmp_path, box):
    root = make_set(tmp_path / "heads")
    corners = "".join(
        f"<{name}>{value}</{name}>" for name, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
    )
    (root / "Annotations/mov_002_000007.xml").write_text(
        annotation(f"<object><name>head</name><bndbox>{corners}</bndbox></object>")
    )
    heads = build_head_set(root, tmp_path / "set", reject_limit=0.1, progress=False)
    assert (
        heads.rejected["path"].tolist() == ["JPEGImages/mov_002_000007.jpeg"]
        and (heads.frames["n_heads"] == 1).all()
    )
    if box[0] != 500:
        with pytest.warns(
            UserWarning, match="1 boxes left out .no area, or no image., the first in mov_002_000007.xml"
        ):
            assert len(read_boxes(root)) == 29


def test_classes_that_mean_a_head_are_a_setting(tmp_path):
    root = make_set(tmp_path / "heads", xml=annotation(HEAD.replace("head", "Face")))
    with pytest.warns(UserWarning, match="30 frames left out"):
        assert read_boxes(root).empty
    with pytest.raises(
        ValueError, match="30 of 30 frames rejected.*unknown class 'Face'; expected head or person"
    ):
        build_head_set(root, tmp_path / "set", progress=False)
    assert len(read_boxes(root, head_names=("face",))) == len(read_boxes(root, head_names="FACE")) == 30
    for names in (("face",), "Face"):
        heads = build_head_set(root, tmp_path / "set", progress=False, head_names=names)
        assert heads.frames["n_heads"].tolist() == [1] * 30
    bodies = make_set(tmp_path / "bodies", xml=annotation(HEAD + HEAD.replace("head", "person")))
    with pytest.raises(ValueError, match="object 2: unknown class 'person'; expected head"):
        build_head_set(bodies, tmp_path / "set", progress=False, head_names=("head",))


def test_an_annotation_that_may_not_be_read_is_no_broken_one(tmp_path, monkeypatch):
    path = tmp_path / "a.xml"
    path.write_text(annotation(HEAD))

    def closed(name, *args, **more):
        raise PermissionError(13, "Permission denied", str(name))

    monkeypatch.setattr(annotations, "open", closed, raising=False)
    with pytest.raises(ValueError, match=r"^cannot be read \(Permission denied\)$"):
        read_annotation(path, (160, 120))


def test_two_sets_under_one_root_are_an_error_that_names_both(tmp_path):
    for name in ("heads", "scut"):
        make_set(tmp_path / "data" / name, xml=annotation(HEAD, database=name))
    with pytest.raises(
        ValueError,
        match="heads and scut hold frames with head boxes; the detector learns from one set: move the others",
    ):
        heads_root(tmp_path / "data")
    found = read_sources(tmp_path / "data").heads  # Counting takes both
    assert found["source"].value_counts().to_dict() == {"heads": 30, "scut": 30}
    shutil.move(tmp_path / "data/heads", tmp_path / "data/.heads")  # Hidden, as everywhere
    assert heads_root(tmp_path / "data") == tmp_path / "data/scut"


def test_tables_of_a_set_keep_names(tmp_path):
    "A film called NA stays one."
    root = make_set(tmp_path / "heads", name="NA_{1:06d}")
    heads = build_head_set(root, tmp_path / "set", progress=False)
    assert len(heads.boxes) == 30 and isinstance(heads.rejected, pd.DataFrame)
