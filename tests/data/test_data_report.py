"Figures, counts and sentences about the datasets."

import numpy as np
import pandas as pd
from helpers.data_sets import draw_challenge, draw_heads, draw_image, good_rows

from deepfake_nbs.data import report
from deepfake_nbs.data.annotations import read_boxes
from deepfake_nbs.data.manifest import as_manifest
from deepfake_nbs.data.readers import read_sources
from deepfake_nbs.data.report import dataset_table, plot_examples, plot_heads
from deepfake_nbs.data.splits import split_manifest


def test_published_counts_stand_beside_ours(tmp_path, root):
    draw_challenge(tmp_path / "challenge", 2)
    table = dataset_table(
        read_sources(tmp_path), None, pd.read_csv(root / "papers/original/claims.csv")
    ).set_index("id")
    assert table.loc["datasets-challenge-images", ["published", "here"]].tolist() == [15000, 8]
    assert table["published"].notna().all() and pd.isna(table.loc["datasets-heads-films", "here"])


def test_examples_stand_beside_their_closest_originals(tmp_path):
    rows = []
    kinds = [
        ("none", "000", 3),
        ("none", "000", 7),
        ("none", "001", 7),
        ("Deepfakes", "000_001", 7),
        ("GAN", "", None),
    ]
    for method, video, frame in kinds:
        label = int(method != "none")
        rows.append(
            dict(
                path=f"{len(rows)}.png",
                label=label,
                source="FF++" if video else "Web",
                method=method,
                group="FF++:000" if video else "w",
                video=video and f"{video}.mp4",
                frame=frame,
            )
        )
        draw_image(tmp_path / rows[-1]["path"], len(rows))
    df = as_manifest(rows)
    pairs = report._pairs(df, 2, 0)
    assert pairs["Deepfakes"] == [("1.png", "3.png")] and pairs["GAN"][0][0] in ("0.png", "1.png", "2.png")
    fig = plot_examples(df, tmp_path, n_pairs=2)
    assert len(fig.axes) == 8 and sum(bool(ax.images) for ax in fig.axes) == 4
    assert [ax.get_title() for ax in fig.axes[:4]] == ["real", "fake"] * 2
    only_fakes = plot_examples(df[df["label"].eq(1)], tmp_path, n_pairs=1)
    assert sum(bool(ax.images) for ax in only_fakes.axes) == 2


def test_every_head_gets_a_box(tmp_path):
    draw_heads(tmp_path)
    fig = plot_heads(read_boxes(tmp_path), tmp_path)
    assert sorted(len(ax.patches) for ax in fig.axes) == [1, 2]
    assert len(plot_heads(read_boxes(tmp_path)[:0], tmp_path).axes) == 1


# --- Sentences --------------------------------------------------------------------------------------------------------


def many_rows(n=120):
    rows = good_rows(n).assign(video="", frame=None, group=[f"g{i // 4}" for i in range(n)], source="A")
    rows["phash"] = [
        f"{number:016x}" for number in np.random.default_rng(0).integers(0, 2**63, n, dtype=np.uint64)
    ]
    return split_manifest(as_manifest(rows), seed=1, keep_official=False)


def test_what_a_data_root_holds_and_lacks(tmp_path):
    draw_challenge(tmp_path / "challenge", 2)
    found = read_sources(tmp_path)
    held = (
        "The data root holds 8 images, **no videos**, **no frames with head boxes**, "
        "**no images with a role in retrieval (query, gallery)**. Retrieval searches the images of CVCS DFD instead."
    )
    assert report.describe_sources(found) == held
    table = dataset_table(found, None)
    assert report.describe_uncounted(table).startswith(
        "Not counted, because the data root has none: datasets-faceforensics-originals; "
    )
    assert (
        report.describe_uncounted(table.dropna(subset="here"))
        == "Every count of section 2 has its counterpart here."
    )
    claims = {claim["id"]: claim for claim in report.count_claims(table, "small")}
    assert claims["datasets-challenge-images"] == dict(
        id="datasets-challenge-images", measured=8, n=8, protocol="count", data="small"
    )
    assert claims["datasets-heads-films"]["measured"] is None


def test_rejected_files_and_notes_are_listed():
    assert report.describe_rejected(pd.DataFrame(columns=["path", "reason"])) == "No file was rejected."
    listed = report.describe_rejected(pd.DataFrame(dict(path=[f"{i}.png" for i in range(7)], reason="empty")))
    assert (
        listed.startswith("7 of the files could not be used; `rejected.csv`")
        and "4.png" in listed
        and "5.png" not in listed
    )
    assert report.describe_notes([]) == "Nothing." and report.describe_notes(["a", "b"]) == "- a.\n- b."
    near = "1 of 464 test images look nearly the same as an image in another split"
    advice = "; where they show one scene, give them one `group` in a labels.csv"
    assert report.describe_notes([near + advice]) == f"- {near.replace('look', 'looks')}."
    kept = (
        "test holds 10% of the images where 15% was asked for; the splits that the sets bring along were kept"
    )
    assert report.describe_notes([kept]) == f"- {kept}."


def test_format_and_size_answer_with_the_class_that_is_frequent_in_training():
    rows = many_rows()
    told = report.file_kind_accuracy(rows.assign(width=np.where(rows["label"].eq(1), 8, 9)), 50, 0)
    assert told.loc["format and size", "value"] == 1
    assert report.describe_file_kinds(told, 18).startswith("Format and size alone are right for 1.000")
    alike = report.file_kind_accuracy(rows, 50, 0)
    assert alike["value"].nunique() == 1  # One kind of file: the same answer as always
    nothing = report.file_kind_accuracy(rows[rows["split"].ne("test")], 50, 0)
    assert report.describe_file_kinds(nothing, 0) == "No test image: there is nothing to answer."


def test_the_length_of_a_file_tells_only_within_one_kind(tmp_path):
    rows = many_rows().assign(format=lambda df: np.where(df.index < 30, "JPEG", "PNG"))
    for path, label in zip(rows["path"], rows["label"], strict=True):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(bytes(100 + label))
    table = report.file_length_table(rows, tmp_path, 50, 0, n_frequent=1)
    assert (
        table.set_index("kind")["n"].to_dict() == {"JPEG 8 9": 30, "PNG 8 9": 90}
        and table["auc_of_file_length"].eq(1).all()
    )
    assert table.set_index("kind")["low"].isna().to_dict() == {"JPEG 8 9": True, "PNG 8 9": False}
    shown = report.show_file_lengths(table, 1)
    assert shown["kind"].tolist() == ["PNG 8 9"] and list(shown) == [
        "kind",
        "n",
        "fraction of fakes",
        "AUC of file length",
    ]
    told = report.describe_file_lengths(table.assign(low=[None, 0.9], high=1))
    assert "for PNG 8 9 (1.000 [0.900, 1.000], n=90; fakes are the longer files):" in told
    assert "The largest distance is 0.500." in told and "JPEG" not in told
    assert report.describe_file_lengths(table.assign(low=0.4, high=0.6)).startswith("In no kind of file")
    one_class = report.file_length_table(rows[rows["label"].eq(1)], tmp_path, 50, 0)
    assert report.describe_file_lengths(one_class) == ""
    assert one_class.empty and list(report.show_file_lengths(one_class)) == list(shown)


def test_both_protocols_are_audited_and_said():
    rows = many_rows()
    protocols = report.both_protocols(rows, "group", (0.7, 0.15, 0.15), 3)
    pd.testing.assert_frame_equal(protocols["group"], rows)
    again = report.both_protocols(protocols["published"], "published", (0.7, 0.15, 0.15), 3)
    assert again["group"].groupby("group")["split"].nunique().max() == 1
    audit = report.audit_protocols(protocols)
    leaking = audit.set_index(["protocol", "what"])["share_of_test"]
    n_test = int(protocols["published"]["split"].eq("test").sum())
    said = report.describe_audit(audit, protocols)
    assert (
        f"{leaking['published', 'groups']:.1%} of the test images (n={n_test})" in said
        and "by group it is 0.0%" in said
    )
    shown = list(report.show_audit(audit))
    assert shown[-2:] == ["test images", "fraction of test"]
    assert shown[1:4] == ["unit", "units in all", "units in more than one split"]


def test_a_figure_says_how_many_images_it_shows(tmp_path):
    draw_heads(tmp_path)
    assert (
        report.count_shown(None) == 0 and report.count_shown(plot_heads(read_boxes(tmp_path), tmp_path)) == 2
    )
