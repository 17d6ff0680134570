"""Average precision beside COCO's, intervals over films, the threshold."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from deepfake_nbs.heads.data import HeadSet
from deepfake_nbs.heads.evaluation import (
    OVERLAPS,
    average_precision,
    best_threshold,
    coco_metrics,
    evaluate_heads,
    match_boxes,
    match_frames,
)
from deepfake_nbs.metrics import jackknife_interval


def test_average_precision_by_hand():
    heads = np.array([[0, 0, 10, 10], [20, 0, 30, 10]], float)
    found = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [20, 0, 30, 10]], float)  # right, a double, right
    hits = match_boxes(found, heads, (0.5,))[0]
    assert hits.tolist() == [True, False, True]
    assert average_precision(np.array([0.9, 0.8, 0.7]), hits, 2) == pytest.approx((51 + 50 * 2 / 3) / 101)
    assert np.isnan(average_precision(np.array([0.9]), np.array([False]), 0))


def random_set(seed, n=30):
    "Frames and found boxes of every kind: shifted, doubled, missed, false, empty frames."
    rng = np.random.default_rng(seed)
    paths, boxes, found = [f"JPEGImages/{i}.jpeg" for i in range(n)], {}, []
    for path in paths:
        m = int(rng.integers(0, 5))
        corner, side = rng.uniform(0, 400, (m, 2)), rng.uniform(10, 160, (m, 2))
        boxes[path] = np.concatenate([corner, corner + side], 1)
        for box in boxes[path]:
            for _ in range(int(rng.integers(0, 3))):
                found.append((path, *(box + rng.normal(0, 6, 4)), round(float(rng.uniform(0, 1)), 2)))
        for _ in range(int(rng.integers(0, 2))):
            x, y = rng.uniform(0, 400, 2)
            found.append((path, x, y, x + 50, y + 60, float(rng.uniform())))
    found = pd.DataFrame(found, columns=["path", "x0", "y0", "x1", "y1", "score"])
    found[["x1", "y1"]] = np.maximum(found[["x1", "y1"]], found[["x0", "y0"]].to_numpy() + 1)
    frames = pd.DataFrame({"path": paths, "split": "test", "n_heads": [len(boxes[path]) for path in paths]})
    return HeadSet(Path("."), Path("."), frames, boxes, pd.DataFrame()), found


@pytest.mark.parametrize("seed", range(3))
def test_average_precision_is_that_of_pycocotools(seed):
    pytest.importorskip("torchmetrics")
    heads, found = random_set(seed)
    ours, theirs = (
        match_frames(found, heads, heads.split("test")),
        coco_metrics(found, heads, heads.split("test")),
    )
    assert ours.ap(0.5) == pytest.approx(theirs["ap50"], abs=1e-6)
    assert ours.ap(0.75) == pytest.approx(theirs["ap75"], abs=1e-6)
    assert np.mean([ours.ap(overlap) for overlap in OVERLAPS]) == pytest.approx(theirs["ap"], abs=1e-6)


def test_weights_count_like_repeated_frames():
    heads, found = random_set(0, n=6)
    weight = np.array([2.0, 0, 1, 3, 0, 1])
    again = [
        (path, f"{path}-{k}")
        for path, times in zip(heads.frames["path"], weight, strict=True)
        for k in range(int(times))
    ]
    repeated = pd.concat([found[found["path"].eq(path)].assign(path=name) for path, name in again])
    boxes = {name: heads.boxes[path] for path, name in again}
    other = HeadSet(
        Path("."), Path("."), pd.DataFrame({"path": list(boxes), "split": "test"}), boxes, pd.DataFrame()
    )
    expected = match_frames(repeated, other, list(boxes)).ap(0.5)
    assert match_frames(found, heads, heads.split("test")).ap(0.5, weight) == pytest.approx(expected)


def test_evaluation_keeps_frames_without_heads():
    pytest.importorskip("torchmetrics")
    heads, found = random_set(1)
    result = evaluate_heads(found, heads, "test", 0.5, n_resamples=100)
    empty = [path for path in heads.boxes if not len(heads.boxes[path])]
    false = found[found["path"].isin(empty) & found["score"].ge(0.5)]
    assert result.value["false_heads_per_headless_frame"] == pytest.approx(len(false) / len(empty))
    assert result.n["ap50"] == 30 and result.n["false_heads_per_headless_frame"] == len(empty)
    assert result.low["ap50"] < result.value["ap50"] < result.high["ap50"]
    less = found[~found["path"].isin(empty)]
    assert evaluate_heads(less, heads, "test", 0.5, n_resamples=2).value["ap50"] >= result.value["ap50"]


def test_intervals_leave_out_films_not_frames():
    pytest.importorskip("torchmetrics")
    heads, found = random_set(1, n=60)
    table = {}
    for n in (60, 20, 5):
        films = heads.frames.assign(group=[f"film {i * n // 60}" for i in range(60)])
        table[n] = evaluate_heads(
            found, HeadSet(heads.root, heads.folder, films, heads.boxes, heads.rejected), "test", 0.5
        )
    assert (
        (table[20].value.dropna() == table[60].value.dropna()).all()
        and (table[20].films == 20).all()
        and (table[20].n["ap50"] == 60)
    )
    assert (table[60].why[["ap50", "ap75"]] == "").all() and table[20].low["ap50"] < table[20].value[
        "ap50"
    ] < table[20].high["ap50"]
    assert table[5][["low", "high"]].isna().all(axis=None) and table[5].why["ap50"] == "5 films"
    without = match_frames(found, heads, heads.split("test")).ap(0.5, (np.arange(60) >= 3).astype(float))
    rest = [
        match_frames(found, heads, heads.split("test")).ap(0.5, (np.arange(60) // 3 != i).astype(float))
        for i in range(20)
    ]
    size = [sum(len(heads.boxes[path]) for path in heads.split("test")[3 * i : 3 * i + 3]) for i in range(20)]
    low, high, _ = jackknife_interval(table[20].value["ap50"], np.array(rest), np.array(size))
    assert rest[0] == without and (table[20].low["ap50"], table[20].high["ap50"]) == pytest.approx(
        (low, high), abs=1e-6
    )


def test_threshold_balances_precision_and_recall():
    heads, found = random_set(2)
    matches = match_frames(found, heads, heads.split("test"))

    def f1(threshold):
        called = matches.scores >= threshold
        return 2 * matches.hits[0][called].sum() / (called.sum() + matches.n_heads.sum())

    assert f1(best_threshold(matches)) >= max(f1(t) for t in np.linspace(0.05, 0.95, 91)) - 1e-9


def test_a_threshold_lies_halfway_to_the_next_box():
    heads, found = random_set(2)
    matches = match_frames(found, heads, heads.split("test"))
    hit = matches.hits[0].astype(bool)
    apart = matches._replace(scores=np.where(hit, 0.83, 0.21))
    assert best_threshold(apart) == pytest.approx(0.52)
    alone = matches._replace(scores=np.full(len(hit), 0.9))
    assert best_threshold(alone) == pytest.approx((0.9 + 0.05) / 2), "no box lies below"
