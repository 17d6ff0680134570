"""Retrieval tasks, relevant images, measures, distortions."""

from pathlib import Path
import math

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from helpers.retrieval_data import THUMBNAIL, half_fake

from deepfake_nbs.settings import read_settings
from deepfake_nbs.metrics import mean_interval
from deepfake_nbs.retrieval.evaluation import (
    DISTORTIONS,
    clear_scratch,
    evaluate,
    original_rows,
    original_task,
    person_task,
    score_ranking,
)
from deepfake_nbs.retrieval.features import Feature, make_feature
from deepfake_nbs.retrieval.report import measurement_rows, ranking_table

ROOT = Path(__file__).resolve().parents[2]


def test_the_scratch_of_an_evaluation_goes_and_nothing_else(pool, tmp_path):
    scratch = tmp_path / "scratch"
    evaluate(
        original_task(half_fake(pool), pool, 0),
        make_feature("harris"),
        scratch,
        ["none", "blur", "crop 10 %"],
    )
    (scratch / "distorted" / "mine.png").write_text("mine")
    (scratch / "vectors" / "mine.npy").write_text("mine")
    assert clear_scratch(scratch) > 12 * 4 * 299**2  # 358 KB an image
    assert sorted(path.name for path in scratch.rglob("*") if path.is_file()) == ["mine.npy", "mine.png"]
    assert clear_scratch(tmp_path / "absent") == 0


def manifest():
    video = "faceforensics/{}/c23/videos/{}.mp4".format
    rows = [
        ("0-CelebA/1.jpg", 0, "g1", "", "none"),
        ("0-CelebA/2.jpg", 0, "g1", "", "none"),
        ("1-StarGAN/2.jpg", 1, "g1", "", "StarGAN"),
        ("1-StarGAN/edit.jpg", 1, "g1", "", "StarGAN"),
    ]
    for name, part, label, method in (
        ("519", "original_sequences/youtube", 0, "none"),
        ("515", "original_sequences/youtube", 0, "none"),
        ("519_515", "manipulated_sequences/FaceSwap", 1, "FaceSwap"),
    ):
        rows += [(f"{name}-{i}.png", label, "FF++:515", video(part, name), method) for i in range(2)]
    rows += [
        ("a.png", 0, "DFD:01", video("original_sequences/actors", "01__walk"), "none"),
        ("b.png", 0, "DFD:01", video("original_sequences/actors", "01__talk"), "none"),
        ("c.png", 1, "DFD:01", video("manipulated_sequences/DFD", "01_02__talk__ABCDEFGH"), "DFD"),
        ("alone.png", 1, "made up", "", "STYLEGAN"),
    ]
    df = pd.DataFrame(rows, columns=["path", "label", "group", "video", "method"])
    return df.assign(sha256=[f"{i:064x}" for i in range(len(df))])


def test_originals_are_the_photograph_or_the_frames_of_the_target():
    df = manifest()
    found = {path: df.path[rows].tolist() for path, rows in zip(df.path, original_rows(df), strict=True)}
    assert found["1-StarGAN/2.jpg"] == ["0-CelebA/2.jpg"]  # The file of the same name
    assert found["1-StarGAN/edit.jpg"] == ["0-CelebA/1.jpg", "0-CelebA/2.jpg"]
    assert found["519_515-0.png"] == ["519-0.png", "519-1.png"]  # Never those of the source
    assert found["c.png"] == ["b.png"]  # The scene counts
    assert not found["alone.png"] and not found["0-CelebA/1.jpg"]


def test_a_task_has_queries_with_relevant_images():
    task = original_task(manifest(), ".", 3)
    assert (
        len(task.queries) == 3 and task.queries.method.nunique() == 3
    )  # As many of each method as there are
    assert len(original_task(manifest(), ".", 0).queries) == 5
    assert original_task(manifest().query("label == 0"), ".") is None


def test_persons_follow_the_roles():
    df = pd.DataFrame(
        [
            (
                f"{who}{i}.jpg",
                0,
                who,
                "",
                "none",
                f"{who}{i}".ljust(64, "0"),
                "query" if i == 0 else "gallery",
            )
            for who in "abc"
            for i in range(3 if who != "c" else 1)
        ],
        columns=["path", "label", "group", "video", "method", "sha256", "role"],
    )
    task = person_task(df, ".")
    assert task.queries.path.tolist() == ["a0.jpg", "b0.jpg"] and set(task.pool.path) == {
        "a1.jpg",
        "a2.jpg",
        "b1.jpg",
        "b2.jpg",
    }
    assert task.pool.path[task.relevant[1]].tolist() == ["b1.jpg", "b2.jpg"]
    free = person_task(df.drop(columns="role"), ".")
    assert len(free.pool) == 7 and free.pool.path[free.relevant[0]].tolist() == [
        "a1.jpg",
        "a2.jpg",
    ]  # Not itself
    twins = df.drop(columns="role").assign(sha256="f" * 64)
    assert person_task(twins, ".") is None  # The same bytes are no answer


def test_measures_by_hand():
    assert score_ranking(np.array([5, 1, 3, 2]), np.array([1, 2])) == (2, pytest.approx((1 / 2 + 2 / 4) / 2))
    assert score_ranking(np.array([5, 3]), np.array([1])) == (math.inf, 0)
    keep = np.array([True, True, True, True, True, False])
    assert score_ranking(np.array([5, 1, 3, 2]), np.array([1, 2]), keep) == (
        1,
        pytest.approx((1 + 2 / 3) / 2),
    )
    scores = pd.DataFrame(
        dict(
            task="original",
            pool="all",
            distortion="none",
            feature="harris",
            similarity="cosine",
            first_hit_rank=[1, 4, 11, math.inf],
            ap=[1, 0.5, 0.1, 0.0],
            group=["a", "a", "b", "c"],
        )
    )
    table = ranking_table(scores).set_index("measure")
    assert table.value.to_dict() == dict(
        zip(["recall@1", "recall@5", "recall@10", "map"], [0.25, 0.5, 0.5, 0.4], strict=True)
    )
    assert table.low.isna().all() and (table.why == "3 groups").all() and (table.n == 4).all()
    many = ranking_table(
        pd.concat([scores.assign(group=scores["group"] + str(i)) for i in range(10)])
    ).set_index("measure")
    assert (many.low < many.value).all() and (many.value < many.high).all() and (many.n == 40).all()


def test_an_interval_leaves_out_groups():
    alone = mean_interval(np.array([[0.0], [1.0]] * 50), map(str, range(100)), (0, 1))
    kin = mean_interval(np.array([[0.0], [1.0]] * 50), ["a", "b"] * 50, (0, 1))
    assert alone[2] - alone[1] < 0.25 and np.isnan(kin[1:3]).all() and kin[3] == ["2 groups"]
    people = mean_interval(np.repeat([[0.0], [1.0]] * 10, 5, axis=0), np.repeat(np.arange(20), 5), (0, 1))
    assert 0.4 < (people[2] - people[1]).item() < 0.5, "a hundred queries of twenty people are twenty"


def test_distortions_do_what_they_say(pool):
    image = Image.open(pool / "00.png")
    assert DISTORTIONS["half size"](image).size == (24, 20)
    assert DISTORTIONS["crop 10 %"](image).size == (44, 36)
    assert DISTORTIONS["none"](image) is image
    for kind in ("jpeg 50", "blur"):
        changed = DISTORTIONS[kind](image)
        assert changed.size == image.size and 0 < np.abs(np.float32(changed) - np.float32(image)).mean() < 60
    # The colours keep their places
    plain = Image.new("RGB", (16, 16), (200, 30, 60))
    assert np.abs(np.float32(DISTORTIONS["jpeg 50"](plain)) - (200, 30, 60)).max() < 12


def test_equal_scores_do_not_favour_what_the_manifest_lists_first(pool, tmp_path):
    blind = Feature("blind", 8, "L", 4, lambda pixels: np.ones((len(pixels), 4), np.float32))
    scores = evaluate(original_task(half_fake(pool), pool, 0), blind, tmp_path)
    cosine = scores[scores.pool.eq("all") & scores.similarity.eq("cosine")]
    assert cosine["first_hit_rank"].max() > 6  # Six real images come first in the manifest


def test_a_distorted_query_does_not_find_itself_and_everything_is_scored(pool, tmp_path):
    df = half_fake(pool)
    task = original_task(df, pool, 0)
    scores = evaluate(task, THUMBNAIL, tmp_path, ["none", "blur"])
    assert len(scores) == 6 * 3 * 2 * 2 and set(scores.pool) == {"all", "real"}
    own = {path: i for i, path in enumerate(df.path)}
    assert not any(own[row.path] in row.top for row in scores.itertuples())
    assert all(len(row.top) == (10 if row.pool == "all" else 6) for row in scores.itertuples())
    kept = measurement_rows(ranking_table(scores), "by hand", "toy")
    assert kept.id.is_unique and "retrieval-original-real-blur-thumbnail-whitened-map" in set(kept.id)


def test_the_setting_of_the_index_is_checked(tmp_path):
    text = (
        (ROOT / "settings.ini")
        .read_text(encoding="utf-8")
        .replace("retrieval_index = flat", "retrieval_index = tree")
    )
    (tmp_path / "settings.ini").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match="retrieval_index is 'tree'; expected 'flat', 'hnsw' or 'ivfpq'"):
        read_settings("smoke", tmp_path / "settings.ini")
