"Splits that divide no group, limits, and the leakage audit."

import numpy as np
import pandas as pd
import pytest
from helpers.data_sets import draw_image, good_rows, random_rows

from deepfake_nbs.data.build import _split_notes
from deepfake_nbs.data.manifest import SPLITS, as_manifest
from deepfake_nbs.data.splits import audit_split, limit_manifest, split_manifest


@pytest.mark.parametrize("fractions", [(0.7, 0.15, 0.15), (0.5, 0.25, 0.25), (0.8, 0.0, 0.2)])
def test_no_group_is_ever_cut(fractions):
    for seed in range(40):
        rows = random_rows(seed)
        done = split_manifest(rows, "group", fractions, seed)
        assert done.groupby("group")["split"].nunique().eq(1).all()
        assert done.drop(columns="split").equals(rows.drop(columns="split"))
        largest = rows.groupby("group").size().max()
        for name, fraction in zip(SPLITS, fractions, strict=True):
            n = int(done["split"].eq(name).sum())
            assert abs(n - fraction * len(rows)) <= largest + 6, (
                seed,
                name,
                n,
                fraction * len(rows),
            )  # 6 strata
            assert n > 0 or fraction == 0
        pd.testing.assert_frame_equal(done, split_manifest(rows, "group", fractions, seed))
        mixed = split_manifest(rows.sample(frac=1, random_state=1), "group", fractions, seed).sort_index()
        pd.testing.assert_frame_equal(mixed, done)


def test_single_images_split_exactly_by_source_and_label():
    rows = pd.concat([random_rows(seed) for seed in range(5)], ignore_index=True)
    rows["group"] = [f"g{i}" for i in range(len(rows))]
    done = split_manifest(rows, seed=3)
    for (source, label), part in done.groupby(["source", "label"]):
        for name, fraction in zip(SPLITS, (0.7, 0.15, 0.15), strict=True):
            assert abs(part["split"].eq(name).sum() - fraction * len(part)) <= 1.5, (source, label)


def test_seeds_differ():
    rows = random_rows(2)
    assert split_manifest(rows, seed=1)["split"].ne(split_manifest(rows, seed=2)["split"]).any()


def test_a_giant_group_goes_where_there_is_room():
    rows = random_rows(3)
    rows.loc[rows.index[: len(rows) // 2], "group"] = "giant"
    done = split_manifest(rows)
    assert set(done.loc[done["group"].eq("giant"), "split"]) == {"train"} and set(done["split"]) == set(
        SPLITS
    )


def test_official_splits_are_kept_unless_a_group_is_cut():
    rows = random_rows(4)
    names = sorted(rows["group"].unique())
    rows["split"] = ""
    rows.loc[rows["group"].eq(names[0]), "split"] = "test"
    rows.loc[rows["group"].eq(names[1]).idxmax(), "split"] = "validation"  # One row speaks for its group
    cut = rows.index[rows["group"].eq(rows["group"].value_counts().index[0])]
    rows.loc[cut[0], "split"], rows.loc[cut[1], "split"] = "train", "test"
    done = split_manifest(rows)
    assert set(done.loc[done["group"].eq(names[0]), "split"]) == {"test"}
    assert set(done.loc[done["group"].eq(names[1]), "split"]) == {"validation"}
    assert done.loc[cut, "split"].nunique() == 1
    free = [split_manifest(rows, seed=seed, keep_official=False) for seed in range(20)]
    assert any(set(df.loc[df["group"].eq(names[0]), "split"]) != {"test"} for df in free)


def test_too_few_groups_say_so():
    rows = random_rows(5)
    with pytest.raises(ValueError, match="split .*: 2 groups leave nothing for it"):
        split_manifest(rows.assign(group=np.where(rows.index % 2, "a", "b")))
    with pytest.raises(ValueError, match="keep_official=False"):
        split_manifest(rows.assign(split="train"))
    three = split_manifest(rows.assign(group=[f"g{i % 3}" for i in rows.index]))
    assert set(three["split"]) == set(SPLITS)


def test_published_shuffles_rows_and_leaks():
    rows = pd.concat([random_rows(seed) for seed in range(4)], ignore_index=True)
    done = split_manifest(rows, "published", (0.5, 0.2, 0.3), seed=1)
    n = len(rows)
    assert [int(done["split"].eq(name).sum()) for name in SPLITS] == [
        round(0.5 * n),
        round(0.7 * n) - round(0.5 * n),
        n - round(0.7 * n),
    ]
    assert audit_split(done).set_index("what").loc["groups", "crossing"] > 0


@pytest.mark.parametrize("fractions", [(0.5, 0.5), (0.5, 0.6, 0.1), (1.2, -0.1, -0.1), (0.3, 0.3, 0.3)])
def test_bad_fractions(fractions):
    with pytest.raises(ValueError, match="add up to 1"):
        split_manifest(random_rows(0), fractions=fractions)


def test_bad_protocol_and_nothing_to_split():
    with pytest.raises(ValueError, match="expected 'group' or 'published'"):
        split_manifest(random_rows(0), "random")
    with pytest.raises(ValueError, match="nothing to split"):
        split_manifest(random_rows(0)[:0])


def test_balance_drops_from_the_larger_class_of_each_split():
    rows = pd.concat([random_rows(seed) for seed in range(3)], ignore_index=True)
    plain, even = split_manifest(rows, seed=2), split_manifest(rows, seed=2, balance=True)
    for name in SPLITS:
        counts = even.loc[even["split"].eq(name), "label"].value_counts()
        assert counts[0] == counts[1] == plain.loc[plain["split"].eq(name), "label"].value_counts().min()
    assert even["split"].equals(plain.loc[even.index, "split"])
    pd.testing.assert_frame_equal(even, split_manifest(rows, seed=2, balance=True))
    with pytest.raises(ValueError, match="one class only"):
        split_manifest(rows[rows["label"].eq(1)], balance=True)


def test_a_limit_keeps_every_source_method_and_label():
    for seed in range(10):
        rows = random_rows(seed)
        strata = ["source", "method", "label"]
        for limit in (len(rows.groupby(strata)), 20, len(rows) - 1):
            few = limit_manifest(rows, limit, seed)
            assert len(few) == limit
            assert set(map(tuple, few[strata].to_numpy())) == set(map(tuple, rows[strata].to_numpy()))
    assert len(limit_manifest(rows, 0, 0)) == len(rows)
    with pytest.raises(ValueError, match="image_limit is 2; expected 0 .all. or at least"):
        limit_manifest(rows, 2, 0)


def test_a_limit_takes_related_images_together():
    labels = [(i, label) for i in range(50) for label in (0, 1)]
    rows = [
        dict(path=f"{label}/{i}", label=label, source="S", method="x" if label else "none", group=f"g{i}")
        for i, label in labels
    ]
    few = limit_manifest(as_manifest(rows), 20, 7)
    assert few["group"].nunique() == 10


def test_the_audit_counts_a_case_made_by_hand(tmp_path):
    rows = good_rows(6).assign(
        group=["a", "a", "b", "c", "d", "d"],
        video=["v", "v", "", "w", "", ""],
        sha256=[f"{i:064x}" for i in (0, 1, 2, 3, 2, 5)],
        split=["train", "test", "train", "validation", "test", "test"],
    )
    for i, path in enumerate(rows["path"]):
        draw_image(tmp_path / path, 2 if i == 4 else i, size=64)
    audit = audit_split(rows, tmp_path).set_index("what")
    assert audit["total"].to_dict() == {"groups": 4, "videos": 2, "identical files": 5, "near-duplicates": 6}
    assert audit["crossing"].to_dict() == {
        "groups": 1,
        "videos": 1,
        "identical files": 1,
        "near-duplicates": 2,
    }
    assert audit["test_images"].to_dict() == {
        "groups": 1,
        "videos": 1,
        "identical files": 1,
        "near-duplicates": 1,
    }
    assert audit["share_of_test"].to_dict() == pytest.approx({name: 1 / 3 for name in audit.index})
    clean = audit_split(rows[rows["split"].eq("train")])
    assert clean["crossing"].sum() == 0 and clean["share_of_test"].isna().all()


def test_the_audit_counts_source_videos_by_hand():
    rows = pd.DataFrame(
        dict(
            path=list("abcd"),
            group=list("abcd"),
            video="",
            sha256=list("abcd"),
            split=["train", "test", "test", "test"],
            source_video=["v w", "w", "x", ""],
        )
    )
    audit = audit_split(rows).set_index("what").loc["source videos"]
    assert (audit["total"], audit["crossing"], audit["test_images"]) == (3, 1, 1) and audit[
        "share_of_test"
    ] == pytest.approx(1 / 3)
    assert "source videos" not in set(audit_split(rows.drop(columns="source_video"))["what"])


def test_a_giant_group_is_said_where_it_spoils_the_splits(tmp_path):
    rows = pd.DataFrame(dict(source="DFD", label=[0, 1] * 20, group="DFD:01"))
    message = r"1 group leaves nothing.*at least 3 groups.*largest group, DFD:01, holds 40 of the 40 .*DFD were swapped"
    with pytest.raises(ValueError, match=message):
        split_manifest(rows)
    rows.loc[rows.index[-4:], "group"] = ["a", "a", "b", "b"]
    done = split_manifest(rows).assign(phash="flat")
    notes = _split_notes(done, (0.7, 0.15, 0.15))
    assert notes[1] == (
        "train holds 90% of the images where 70% was asked for; the largest group, DFD:01, holds 36 of the 40 images "
        "(the actors of DFD were swapped with each other, which joins their clips)"
    )
