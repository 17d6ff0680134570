"""Chapter 03: formulas by hand, features, the index on disk and what breaks it, shards, truth, measures, cluster workers."""

import fcntl
import json
import math
import os
import shutil
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import cv2
import faiss
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision.models import resnet18

from deepfake_nbs import core
from deepfake_nbs import retrieval as rt
from deepfake_nbs import metrics
from deepfake_nbs.core import CLAIM_COLUMNS, file_sha256, read_settings
from deepfake_nbs.images import ImageError
from deepfake_nbs.datasets import _locked, _perceptual_hash

ROOT = Path(__file__).resolve().parents[1]
THUMBNAIL = rt.make_feature("thumbnail")
TOY = rt.Feature("toy", 1, "L", 32, np.asarray)


def draw(path, seed, size=(48, 40)):
    low = np.random.default_rng(seed).integers(0, 255, (6, 6, 3), np.uint8)
    Image.fromarray(low).resize(size, Image.Resampling.BICUBIC).save(path)


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pool")
    for i in range(12):
        draw(folder / f"{i:02d}.png", i)
    return folder


@pytest.fixture
def own(pool, tmp_path):
    "A pool of one's own to spoil."
    shutil.copytree(pool, tmp_path / "pool")
    return tmp_path / "pool"


@pytest.fixture
def built(pool, tmp_path):
    return rt.build_index(THUMBNAIL, pool, tmp_path / "index", progress=False)


def cloud(n, seed=0, d=32):
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(60, d))
    return (centres[rng.integers(60, size=n)] + 0.4 * rng.normal(size=(n, d))).astype(np.float32)


def names(n):
    return pd.DataFrame(dict(path=[f"{i}.png" for i in range(n)], sha256=[f"{i:064x}" for i in range(n)]))


# Formulas


def test_both_formulas_by_hand():
    a, b = np.array([1.0, 2.0, 2.0]), np.array([2.0, 0.0, 1.0])
    assert rt.cosine_similarity(a, b) == pytest.approx(4 / (3 * math.sqrt(5)))
    assert rt.euclidean_distance(a, b) == pytest.approx(math.sqrt(1 + 4 + 1))
    assert rt.euclidean_distance(a, b, root=False) == pytest.approx(6)
    assert rt.cosine_similarity(a, np.zeros(3)) == 0


@pytest.mark.parametrize("similarity", ["cosine", "euclidean"])
def test_the_index_returns_what_the_formulas_say(similarity):
    x = cloud(200)
    index = rt.make_index(x, names(200), TOY, similarity)
    formula = dict(cosine=lambda a, b: -rt.cosine_similarity(a, b), euclidean=lambda a, b: rt.euclidean_distance(a, b, root=False))
    by_hand = np.array([formula[similarity](x[3], other) for other in x])
    scores, numbers = index.search(x[3:4], 10)
    assert numbers[0].tolist() == np.argsort(by_hand, kind="stable")[:10].tolist()
    shown = -by_hand[numbers[0]] if similarity == "cosine" else np.sqrt(by_hand[numbers[0]])
    np.testing.assert_allclose(scores[0], shown, atol=2e-3)


def test_whitening_is_mean_removal_rotation_and_equal_spread():
    x = cloud(500) * np.linspace(0.1, 10, 32, dtype=np.float32) + 5
    index = rt.make_index(x, names(500), TOY, "whitened")
    centred = (x - x.mean(0)).astype(float)
    values, axes = np.linalg.eigh(np.cov(centred.T))
    white = (centred @ axes / np.sqrt(values))[:, ::-1]
    white /= np.linalg.norm(white, axis=1, keepdims=True)
    scores, numbers = index.search(x[:5], 8)
    np.testing.assert_array_equal(numbers, np.argsort(-(white[:5] @ white.T), axis=1, kind="stable")[:, :8])
    np.testing.assert_allclose(scores, np.sort(white[:5] @ white.T)[:, ::-1][:, :8], atol=5e-3)


def test_an_axis_without_spread_is_not_blown_up():
    x = cloud(200)
    x[:, 5] = 3
    scores, numbers = rt.make_index(x, names(200), TOY, "whitened").search(x, 1)
    assert np.isfinite(scores).all() and numbers[:, 0].tolist() == list(range(200))


@pytest.mark.parametrize("kind", ["hnsw", "ivfpq"])
def test_transforms_hold_for_every_stage_of_an_approximate_index(kind):
    x = cloud(3000) * np.random.default_rng(1).uniform(0.1, 10, (3000, 1)).astype(np.float32)  # Lengths that cosine must not see
    scores, numbers = rt.make_index(x, names(3000), TOY, kind=kind).search(x[:20], 3)
    for i, (score, number) in enumerate(zip(scores, numbers, strict=True)):
        np.testing.assert_allclose(score, [rt.cosine_similarity(x[i], x[j]) for j in number], atol=1e-4)


# Features


def test_harris_is_opencvs_response_of_the_grey_square(pool):
    feature = rt.make_feature("harris")
    vector = rt.extract(feature, [pool / "00.png"], progress=False)[0][0]
    grey = rt.read_square(pool / "00.png", 299, "L")
    np.testing.assert_array_equal(vector, cv2.cornerHarris(np.float32(grey), 2, 3, 0.04).ravel())
    assert feature.dimension == len(vector) == 299 * 299


def test_resnet18_is_the_network_without_its_last_layer(pool, tmp_path):
    torch.manual_seed(3)
    model = resnet18(weights=None)
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    feature = rt.make_feature("resnet18", tmp_path / "weights.pth")
    vectors, _ = rt.extract(feature, [pool / "00.png", pool / "01.png"], progress=False)
    model.eval().fc = nn.Identity()
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (rt.IMAGENET_MEAN, rt.IMAGENET_STD))
    pixels = np.stack([rt.read_square(pool / name, 224) for name in ("00.png", "01.png")])
    with torch.inference_mode():
        expected = model((torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255 - mean) / std)
    np.testing.assert_allclose(vectors, expected.numpy(), rtol=1e-3, atol=1e-3)
    assert feature.weights == file_sha256(tmp_path / "weights.pth") and feature.name == "resnet18"


def test_resnet18_without_weights_is_an_error_that_says_how_to_get_them(monkeypatch, tmp_path):
    def no_network(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", no_network)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", no_network)
    with pytest.raises(ConnectionError, match="a machine with a network, or give weights=PATH of torchvision's resnet18"):
        rt.make_feature("resnet18")
    found, missing = rt.available_features(("resnet18", "phash"))
    assert list(found) == ["phash"] and "weights=PATH" in missing["resnet18"]
    with pytest.raises(FileNotFoundError, match="absent.pth"):
        rt.make_feature("resnet18", tmp_path / "absent.pth")
    torch.save(dict(a=torch.zeros(2)), tmp_path / "other.pth")
    with pytest.raises(ValueError, match="other.pth: not a state dict of resnet18"):
        rt.make_feature("resnet18", tmp_path / "other.pth")
    with pytest.raises(ValueError, match="'resnet': unknown; expected one of harris"):
        rt.make_feature("resnet")
    for ask in (lambda: rt.make_feature("resnet18", "random"), lambda: rt.available_features(("resnet18",), "random")):
        with pytest.raises(ValueError, match="'resnet18' with random weights: .*expected 'resnet18-random'"):
            ask()


def test_random_weights_have_a_name_of_their_own_and_are_always_the_same(pool):
    state = torch.random.get_rng_state()
    one, two = (rt.extract(rt.make_feature("resnet18-random"), [pool / "00.png"], progress=False)[0] for _ in range(2))
    np.testing.assert_array_equal(one, two)
    assert torch.equal(state, torch.random.get_rng_state())


def test_the_hash_is_that_of_the_data_sets(pool, tmp_path):
    vectors, _ = rt.extract(rt.make_feature("phash"), [pool / "00.png", pool / "01.png"], progress=False)
    bits = bin(_perceptual_hash(pool / "00.png") ^ _perceptual_hash(pool / "01.png")).count("1")
    assert rt.euclidean_distance(*vectors) ** 2 == pytest.approx(4 * bits)
    Image.new("RGB", (20, 20)).save(tmp_path / "black.png")
    vectors, rejected = rt.extract(rt.make_feature("phash"), [tmp_path / "black.png"], progress=False)
    assert not len(vectors) and list(rejected.values()) == [rt.NO_CONTRAST]


def test_a_picture_without_contrast_comes_first_for_nobody(own, tmp_path):
    Image.new("RGB", (48, 40), (90, 90, 90)).save(own / "zz.png")
    phash = rt.make_feature("phash")
    with pytest.warns(UserWarning, match="1 of 13 files cannot be read and are left out .zz.png: no contrast"):
        index = rt.build_index(phash, own, tmp_path / "index", similarity="euclidean", progress=False)
    assert len(index) == 12 and "zz.png" not in set(index.rows.path)
    with pytest.warns(UserWarning, match="zz.png: no contrast.*nothing is found for it"):
        assert set(rt.find_similar(index, phash, [own / "zz.png", own / "00.png"], k=3)["query"]) == {str(own / "00.png")}
    df = half_fake(own, 13)
    with pytest.warns(UserWarning, match="zz.png: no contrast"):
        scores = rt.evaluate(rt.original_question(df, own, 0), phash, tmp_path / "scratch")
    assert len(scores) == 6 * 2 * 3 and not any(12 in top for top in scores.top)  # Three similarities, two pools
    blank = scores[scores.path.eq("zz.png")]
    assert blank["first"].eq(math.inf).all() and blank["ap"].eq(0).all() and not any(blank.top) and len(blank) == 6


def test_equal_scores_stand_in_the_order_of_the_rows(pool, tmp_path):
    x = np.random.default_rng(0).integers(0, 2, (300, 8)).astype(np.float32) * 2 - 1
    by_hand = [np.lexsort((np.arange(300), -(x @ q))).tolist() for q in x[:20]]
    for similarity in ("cosine", "euclidean"):
        feature = rt.Feature("bits", 1, "L", 8, np.asarray)
        assert rt.make_index(x, names(300), feature, similarity).search(x[:20], 300)[1].tolist() == by_hand
    scores = rt.evaluate(rt.original_question(half_fake(pool), pool, 0), rt.make_feature("phash"), tmp_path)
    one, two = (scores[scores.similarity.eq(name)] for name in ("cosine", "euclidean"))
    assert one[["first", "ap", "top"]].to_numpy().tolist() == two[["first", "ap", "top"]].to_numpy().tolist()


def test_the_classifier_gives_its_penultimate_layer(pool):
    model = nn.Sequential(nn.Conv2d(3, 7, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.5), nn.Linear(7, 2))
    feature = rt.classifier_feature(model, dict(image_size=20, mean=[0.5] * 3, std=[0.5] * 3), "abc")
    vectors, _ = rt.extract(feature, [pool / "00.png"], progress=False)
    assert vectors.shape == (1, 7) == (1, feature.dimension) and feature.identity()["weights"] == "abc"


# Extraction


def test_vectors_are_in_order_and_bad_files_are_named(own):
    (own / "05.png").write_bytes((own / "05.png").read_bytes()[:80])
    files = sorted(own.iterdir())
    vectors, rejected = rt.extract(THUMBNAIL, files, batch_size=3, progress=False)
    assert list(rejected) == [str(own / "05.png")]
    for row, file in zip(vectors, [file for file in files if file.name != "05.png"], strict=True):
        np.testing.assert_array_equal(row, rt.read_square(file, 16).ravel())


def test_extraction_goes_on_where_it_stopped(pool, tmp_path):
    files = sorted(pool.iterdir())
    hashes = [file_sha256(file) for file in files]
    first, _ = rt.extract_parallel(THUMBNAIL, files[:8], hashes[:8], tmp_path / "cache", chunk_size=4, progress=False)
    kept = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "cache").iterdir()}
    whole, _ = rt.extract_parallel(THUMBNAIL, files, hashes, tmp_path / "cache", chunk_size=4, progress=False)
    now = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "cache").iterdir()}
    assert len(kept) == 2 and len(now) == 3 and kept.items() <= now.items()
    np.testing.assert_array_equal(whole[:8], first)
    other = rt.extract_parallel(rt.make_feature("phash"), files, hashes, tmp_path / "cache", chunk_size=4, progress=False)[0]
    assert other.shape == (12, 64)  # Another feature never reads these


def test_an_empty_hash_is_refused_where_it_would_stand_for_all_pictures(pool, tmp_path):
    files = sorted(pool.iterdir())
    with pytest.raises(ValueError, match="sha256 of picture 0 is empty .12 are.; expected file_sha256"):
        rt.extract_parallel(THUMBNAIL, files, [""] * 12, tmp_path / "cache", chunk_size=4, progress=False)
    with pytest.raises(ValueError, match="sha256 of picture 1 is empty"):
        rt.make_index(cloud(3), names(3).assign(sha256=["a", "", "c"]), TOY)
    question = rt.original_question(half_fake(pool).assign(sha256=""), pool, 0)
    with pytest.raises(ValueError, match="sha256 of picture 0 is empty"):
        rt.evaluate(question, THUMBNAIL, tmp_path)


def test_a_manifest_is_checked_and_its_empty_hashes_are_filled_in(pool, built, tmp_path):
    rows = rt.list_pool(pool)
    empty = rows.assign(sha256=[None, "", *rows.sha256[2:]])
    index = rt.build_index(THUMBNAIL, pool, tmp_path / "filled", empty, progress=False)
    assert index.rows.equals(built.rows) and index.config["plan"] == built.config["plan"]
    for action in (rt.build_index, lambda *place: rt.append_index(place[2], *place[:2], place[3])):
        with pytest.raises(ValueError, match="the manifest has no column sha256; expected path and sha256"):
            action(THUMBNAIL, pool, built.folder, rows[["path"]])
        with pytest.raises(ValueError, match="03.png stands in the manifest twice"):
            action(THUMBNAIL, pool, built.folder, pd.concat([rows, rows[3:4]]))
    rt.append_index(built.folder, THUMBNAIL, pool, empty, progress=False)
    assert rt.open_index(built.folder).rows.equals(index.rows)


def test_processes_give_the_same_vectors(pool):
    files = sorted(pool.iterdir())
    hashes = [file_sha256(file) for file in files]
    one = rt.extract_parallel(THUMBNAIL, files, hashes, chunk_size=4, progress=False)[0]
    two = rt.extract_parallel(THUMBNAIL, files, hashes, chunk_size=4, jobs=2, progress=False)[0]
    np.testing.assert_array_equal(one, two)


def test_a_backend_that_cannot_hand_over_chunks_one_by_one_gives_the_same_vectors(pool):
    from joblib import parallel_config

    files = sorted(pool.iterdir())
    hashes = [file_sha256(file) for file in files]
    with parallel_config(backend="multiprocessing", n_jobs=2):  # As Ray's: supports_return_generator is False
        found = rt.extract_parallel(THUMBNAIL, files, hashes, chunk_size=4, jobs=None, progress=False)[0]
    np.testing.assert_array_equal(found, rt.extract(THUMBNAIL, files, progress=False)[0])


def test_a_dask_cluster_of_processes_gives_the_same_vectors_of_a_network(pool):
    distributed = pytest.importorskip("dask.distributed", reason="dask.distributed is not installed: a cluster was not tried")
    from joblib import parallel_config

    model = nn.Sequential(nn.Conv2d(3, 7, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(7, 2))
    feature = rt.classifier_feature(model, dict(image_size=20, mean=[0.5] * 3, std=[0.5] * 3))
    files = sorted(pool.iterdir())
    hashes = [file_sha256(file) for file in files]
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster:
        with distributed.Client(cluster) as client, parallel_config(backend="dask"):
            found = rt.extract_parallel(feature, files, hashes, chunk_size=3, jobs=None, progress=False)[0]
            workers = client.scheduler_info()["workers"].values()
            assert len({worker["nanny"] for worker in workers}) == 2  # Processes of their own
    np.testing.assert_allclose(found, rt.extract(feature, files, progress=False)[0], rtol=1e-5)


# The query


def test_a_query_is_excluded_by_its_bytes_not_by_its_name(own, tmp_path):
    shutil.copy(own / "03.png", own / "another-name.png")
    (tmp_path / "elsewhere").mkdir()
    draw(tmp_path / "elsewhere" / "03.png", 99)
    index = rt.build_index(THUMBNAIL, own, tmp_path / "index", progress=False)
    with warnings.catch_warnings(action="ignore"):
        found = rt.find_similar(index, THUMBNAIL, [own / "03.png"], k=50)
        other = rt.find_similar(index, THUMBNAIL, [tmp_path / "elsewhere" / "03.png"], k=50)
    assert len(found) == 11 and not {"03.png", "another-name.png"} & set(found.path)
    assert len(other) == 13 and "03.png" in set(other.path)


def test_batches_give_what_single_queries_give(built, pool):
    vectors, _ = rt.extract(THUMBNAIL, sorted(pool.iterdir()), progress=False)
    hashes = built.rows.sha256.tolist()
    scores, numbers = built.search(vectors, 4, hashes)
    for i in range(12):
        score, number = built.search(vectors[i : i + 1], 4, hashes[i : i + 1])
        np.testing.assert_array_equal(number[0], numbers[i])
        np.testing.assert_allclose(score[0], scores[i], atol=1e-5)
        assert i not in numbers[i]


def test_more_than_the_pool_holds_is_all_of_it_and_a_warning(built):
    vectors = np.ones((2, 768), np.float32)
    with pytest.warns(UserWarning, match="k is 99, but the pool has 12 pictures"):
        scores, numbers = built.search(vectors, 99, [built.rows.sha256[0], "0" * 64])
    assert sorted(numbers[1]) == list(range(12)) and numbers[0, -1] == -1 and np.isnan(scores[0, -1]) and 0 not in numbers[0]
    with pytest.raises(ValueError, match="k is 0; expected at least 1"):
        built.search(vectors, 0)


def test_vectors_of_another_size_are_refused(built):
    with pytest.raises(ValueError, match=r"queries of shape \(1, 64\); expected queries x 768, from the feature 'thumbnail'"):
        built.search(np.ones((1, 64)), 3)


def test_a_query_that_is_no_image_is_named(built, tmp_path):
    (tmp_path / "query.png").write_text("hello")
    with pytest.raises(ImageError, match="query.png: not an image"):
        rt.find_similar(built, THUMBNAIL, [tmp_path / "query.png"])
    with pytest.raises(ImageError, match="absent.png: no such file"):
        rt.find_similar(built, THUMBNAIL, [tmp_path / "absent.png"])


def test_no_query_has_no_result():
    x = cloud(rt.SKETCH_FROM)
    for index in (rt.make_index(x, names(len(x)), TOY), rt.make_index(x[:50], names(50), TOY, "euclidean")):
        scores, numbers = index.search(x[:0], 5, [])
        assert scores.shape == numbers.shape == (0, 5)


# On disk


@pytest.mark.parametrize("kind, n", [("flat", 300), ("hnsw", 300), ("ivfpq", 3000), ("flat", rt.SKETCH_FROM)])
@pytest.mark.parametrize("mmap", [True, False])
def test_an_opened_index_answers_as_the_saved_one(kind, n, mmap, tmp_path):
    x = cloud(n)
    index = rt.make_index(x, names(n), TOY, kind=kind)
    rt.save_index(index, tmp_path / "index")
    opened = rt.open_index(tmp_path / "index", TOY, mmap)
    for part in (x[:1], x[:40]):
        for one, two in zip(index.search(part, 7), opened.search(part, 7), strict=True):
            np.testing.assert_array_equal(one, two)
    assert opened.rows.equals(index.rows) and bool(opened.sketch) == (n == rt.SKETCH_FROM)


def test_appending_equals_building_at_once(pool, tmp_path):
    rows = rt.list_pool(pool)
    for similarity in ("cosine", "euclidean"):
        whole = rt.build_index(THUMBNAIL, pool, tmp_path / f"whole-{similarity}", similarity=similarity, progress=False)
        part = tmp_path / f"part-{similarity}"
        rt.build_index(THUMBNAIL, pool, part, rows[:5], similarity, progress=False)
        rt.append_index(part, THUMBNAIL, pool, rows[5:9], progress=False)
        grown = rt.append_index(part, THUMBNAIL, pool, rows, progress=False)
        assert grown.rows.equals(whole.rows)
        names = [path.name for path in (part).glob("*.faiss")]
        assert len(names) == 1  # The earlier generations are gone
        one, two = (part / names[0]).read_bytes(), next((tmp_path / f"whole-{similarity}").glob("*.faiss")).read_bytes()
        assert one == two


def test_an_index_that_is_there_is_not_computed_again(pool, built, tmp_path, monkeypatch):
    monkeypatch.setattr(rt, "extract", lambda *args, **kwargs: pytest.fail("computed again"))
    again = rt.build_index(THUMBNAIL, pool, tmp_path / "index", progress=False)
    assert again.config["generation"] == built.config["generation"]


@pytest.mark.parametrize("kind, least", [("hnsw", 0.95), ("ivfpq", 0.95)])
def test_approximate_search_finds_nearly_all(kind, least):
    x = cloud(6000)
    index, exact = (rt.make_index(x, names(6000), TOY, kind=name) for name in (kind, "flat"))
    found, truth = (one.search(x[:100], 10)[1] for one in (index, exact))
    by_hand = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found, truth, strict=True)])
    assert by_hand >= least
    assert rt.recall_against_exact(exact, x) == 1
    assert rt.recall_against_exact(index, x, n_queries=6000) == pytest.approx(by_hand, abs=0.05)


def test_an_approximate_index_keeps_its_recall(pool, tmp_path):
    index = rt.build_index(THUMBNAIL, pool, tmp_path / "index", kind="hnsw", progress=False)
    assert index.config["recall_at_10"] == 1.0
    with pytest.raises(ValueError, match="ivfpq: 12 different vectors; expected at least 1000"):
        rt.build_index(THUMBNAIL, pool, tmp_path / "other", kind="ivfpq", progress=False)
    assert not (tmp_path / "other" / "config.json").exists()
    rows = rt.list_pool(pool)
    rt.build_index(THUMBNAIL, pool, tmp_path / "grown", rows[:8], kind="hnsw", progress=False)
    grown = rt.append_index(tmp_path / "grown", THUMBNAIL, pool, progress=False)
    assert grown.config["kind"] == "hnsw" and grown.config["recall_at_10"] == 1.0  # Measured again, on all twelve


def test_a_sketch_is_exact_or_steps_back():
    x = cloud(rt.SKETCH_FROM)
    index = rt.make_index(x, names(len(x)), TOY)
    assert index.sketch
    answered = 0
    for i in range(30):
        answered += index.sketch.search(x[i : i + 1], 5) is not None
        np.testing.assert_array_equal(index.search(x[i : i + 1], 5)[1], index.searcher.search(x[i : i + 1], 5)[1])
    assert answered > 0
    same = np.repeat(x[:1], rt.SKETCH_FROM, 0)
    assert rt.make_index(same, names(len(same)), TOY).sketch.search(x[:1], 5) is None  # It cannot tell twins apart


# What breaks


def test_an_empty_pool(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty: no pictures in this folder"):
        rt.build_index(THUMBNAIL, tmp_path / "empty", tmp_path / "index", progress=False)
    with pytest.raises(ValueError, match="the pool is empty"):
        rt.build_index(THUMBNAIL, tmp_path, tmp_path / "index", names(0), progress=False)
    with pytest.raises(ValueError, match="0 vectors and 0 rows; expected at least one picture"):
        rt.make_index(np.empty((0, 32)), names(0), TOY)
    assert not (tmp_path / "index" / "config.json").exists()


def test_unreadable_files_are_left_out_and_named(own, tmp_path):
    (own / "03.png").write_text("no picture")
    (own / "04.png").write_bytes(b"")
    with pytest.warns(UserWarning, match="2 of 12 files cannot be read and are left out .03.png: not an image.*04.png: the file is empty"):
        index = rt.build_index(THUMBNAIL, own, tmp_path / "index", progress=False)
    assert len(index) == 10 and "03.png" not in set(index.rows.path)
    assert pd.read_csv(tmp_path / "index" / "rejected.csv").path.tolist() == ["03.png", "04.png"]
    for path in own.iterdir():
        path.write_text("no picture")
    with pytest.raises(ValueError, match="the pool is empty, 12 files cannot be read .00.png: not an image"):
        rt.build_index(THUMBNAIL, own, tmp_path / "other", progress=False)


def test_what_cannot_be_read_is_told_again_by_an_index_that_is_there(own, tmp_path):
    (own / "03.png").write_text("no picture")
    for _ in range(2):
        with pytest.warns(UserWarning, match="1 of 12 files cannot be read and are left out .03.png: not an image"):
            rt.build_index(THUMBNAIL, own, tmp_path / "index", progress=False)


def test_a_link_to_nothing_is_a_rejected_row_and_a_name_that_is_no_text_is_a_name(own, tmp_path):
    (own / "link.png").symlink_to(own / "gone")
    shutil.copy(own / "00.png", os.fsencode(own) + b"/bad\xff.png")
    with pytest.warns(UserWarning, match=r"1 of 14 files.*link.png: a link to a file that is not there"):
        index = rt.build_index(THUMBNAIL, own, tmp_path / "index", progress=False)
    assert len(index) == 13 and index.config["n_rejected"] == 1 and "bad\udcff.png" in set(index.rows.path)
    assert pd.read_csv(tmp_path / "index" / "rejected.csv").path.tolist() == ["link.png"]


def test_an_append_keeps_what_it_could_not_read(own, tmp_path):
    folder = tmp_path / "index"
    (own / "00.png").write_text("no picture")
    with pytest.warns(UserWarning, match="00.png: not an image"):
        rt.build_index(THUMBNAIL, own, folder, rt.list_pool(own)[:6], progress=False)
    (own / "11.png").write_text("no picture")
    for added in (6, 0):  # The second time there is nothing but what cannot be read
        with pytest.warns(UserWarning, match=f"2 of {added + 1 if added else 2} files cannot be read.*00.png.*11.png"):
            index = rt.append_index(folder, THUMBNAIL, own, progress=False)
        assert len(index) == 10 and index.config["n_rejected"] == 2
        assert pd.read_csv(folder / "rejected.csv").path.tolist() == ["00.png", "11.png"]
    generation = index.config["generation"]
    (own / "12.png").write_text("no picture")
    with pytest.warns(UserWarning, match="3 of 3 files"):
        index = rt.append_index(folder, THUMBNAIL, own, progress=False)
    assert index.config["n_rejected"] == 3 and index.config["generation"] == generation
    draw(own / "00.png", 0)
    with pytest.warns(UserWarning, match="2 of 3 files"):
        index = rt.append_index(folder, THUMBNAIL, own, progress=False)
    assert len(index) == 11 and pd.read_csv(folder / "rejected.csv").path.tolist() == ["11.png", "12.png"]


def test_an_append_from_another_root_is_refused(own, built, tmp_path):
    with pytest.raises(ValueError, match=f"its paths count from .*, not from {own}; expected the folder that it was built from"):
        rt.append_index(built.folder, THUMBNAIL, own, progress=False)
    (tmp_path / "link").symlink_to(built.folder)
    assert len(rt.append_index(tmp_path / "link", THUMBNAIL, built.root, progress=False)) == 12


def test_an_index_that_is_saved_elsewhere_still_finds_its_pictures(built, pool, tmp_path):
    moved = rt.save_index(built, tmp_path / "a" / "deeper" / "place")
    assert moved.root == built.root == pool and len(rt.find_similar(moved, THUMBNAIL, [pool / "00.png"], 3)) == 3


def test_a_reader_outlives_an_append(pool, tmp_path):
    rows = rt.list_pool(pool)
    rt.build_index(THUMBNAIL, pool, tmp_path / "index", rows[:5], progress=False)
    opened = rt.open_index(tmp_path / "index")
    rt.append_index(tmp_path / "index", THUMBNAIL, pool, progress=False)
    assert opened.rows.path.tolist() == rows.path[:5].tolist()
    vectors, _ = rt.extract(THUMBNAIL, [pool / "02.png"], progress=False)
    assert opened.search(vectors, 1)[1].tolist() == [[2]]


HARMS = dict(
    cut=lambda folder: spoil(folder, "*.faiss", lambda data: data[:-50]),
    flip=lambda folder: spoil(folder, "rows-*", lambda data: data.replace(b"07.png", b"70.png")),
    not_text=lambda folder: spoil(folder, "rows-*", lambda data: data.replace(b"07.png", b"07\xffpng")),
    gone=lambda folder: next(folder.glob("*.faiss")).unlink(),
    config=lambda folder: spoil(folder, "config.json", lambda _: b"{"),
    version=lambda folder: spoil(folder, "config.json", lambda data: data.replace(b'"version": 2\n', b'"version": 1\n')),
    word=lambda folder: spoil(folder, "config.json", lambda data: data.replace(b'"rows"', b'"rovs"')),
    metric=lambda folder: spoil(folder, "config.json", lambda data: data.replace(b': "cosine"', b': "euclidean"')),
    dimension=lambda folder: spoil(folder, "config.json", lambda data: data.replace(b'"dimension": 768', b'"dimension": 767', 1)),
)


def spoil(folder, pattern, harm):
    path = next(folder.glob(pattern))
    data = path.read_bytes()
    assert harm(data) != data
    path.unlink()  # The open index keeps its own
    path.write_bytes(harm(data))


@pytest.mark.parametrize("harm", HARMS)
def test_a_damaged_index_is_refused_and_can_be_built_again(harm, built, pool):
    HARMS[harm](built.folder)
    with pytest.raises((ValueError, FileNotFoundError), match="[Bb]uild (it|the index) again|No such file") as caught:
        rt.open_index(built.folder)
    assert str(built.folder) in str(caught.value)
    with warnings.catch_warnings(action="ignore"):
        again = rt.build_index(THUMBNAIL, pool, built.folder, progress=False)
    assert again.rows.equals(built.rows) and rt.open_index(built.folder, THUMBNAIL, verify=True).rows.equals(built.rows)


def test_building_over_damage_says_so(built, pool):
    HARMS["config"](built.folder)
    with pytest.warns(UserWarning, match="config.json: not the config of an index.*It is built anew"):
        rt.build_index(THUMBNAIL, pool, built.folder, progress=False)


def test_one_wrong_byte_of_a_vector_is_found_when_one_looks(built, pool):
    spoil(built.folder, "*.faiss", lambda data: data[:-9] + bytes([data[-9] ^ 1]) + data[-8:])
    rt.open_index(built.folder)  # Size and kind are right
    with pytest.raises(ValueError, match="index-000001.faiss: other bytes than config.json says; damaged"):
        rt.open_index(built.folder, verify=True)
    with pytest.raises(ValueError, match="other bytes than config.json says"):
        rt.append_index(built.folder, THUMBNAIL, pool, progress=False)


def test_an_index_like_another_one_is_built_again_for_a_third(tmp_path, pool):
    rows = rt.list_pool(pool)
    first, second = (rt.build_index(THUMBNAIL, pool, tmp_path / f"{i}", rows[i : i + 6], "whitened", progress=False) for i in (0, 6))
    one = rt.build_index(THUMBNAIL, pool, tmp_path / "part", rows[3:9], "whitened", like=first, progress=False)
    two = rt.build_index(THUMBNAIL, pool, tmp_path / "part", rows[3:9], "whitened", like=second, progress=False)
    assert one.config["plan"]["like"] != two.config["plan"]["like"] and rt._learned(two) == rt._learned(second) != rt._learned(first)
    same = rt.build_index(THUMBNAIL, pool, tmp_path / "part", rows[3:9], "whitened", like=second, progress=False)
    assert same.config["generation"] == two.config["generation"]


@pytest.mark.parametrize("harm, said", [
    (lambda data: data[:-50], "damaged, build the index again"),
    (lambda data: b"", "0 bytes, config.json says"),
    (lambda data: b"x" * len(data), "not an index that faiss can read"),
])
def test_a_corrupt_index_file_is_named(built, harm, said):
    path = next(built.folder.glob("*.faiss"))
    data = path.read_bytes()
    path.unlink()  # The open index keeps its own
    path.write_bytes(harm(data))
    with pytest.raises(ValueError, match=said) as caught:
        rt.open_index(built.folder)
    assert path.name in str(caught.value)


def test_broken_rows_and_config_are_named(built):
    rows = next(built.folder.glob("rows-*.csv"))
    text = rows.read_text()
    rows.write_text(text.replace('"path","sha256"', '"path","sha255"'))
    with pytest.raises(ValueError, match=r"rows-000001.csv: 12 rows of path, sha255"):
        rt.open_index(built.folder).rows  # noqa: B018
    rows.write_text(text)
    config = built.folder / "config.json"
    good = json.loads(config.read_text())
    for bad, said in (("{", "not the config of an index"), ("[]", "missing"), (json.dumps(good | dict(version=99)), "version 99")):
        config.write_text(bad)
        with pytest.raises(ValueError, match=said):
            rt.open_index(built.folder)


def test_an_index_of_another_feature_or_version_is_refused(built, pool):
    with pytest.raises(ValueError, match="made with name 'thumbnail'.*has name 'phash'"):
        rt.open_index(built.folder, rt.make_feature("phash"))
    newer = rt.Feature("thumbnail", 16, "RGB", 768, THUMBNAIL.compute, version=2)
    for action in (lambda: rt.open_index(built.folder, newer), lambda: rt.append_index(built.folder, newer, pool),
                   lambda: rt.find_similar(built, newer, [pool / "00.png"])):
        with pytest.raises(ValueError, match="made with version 1; the feature asked for has version 2"):
            action()


def test_a_half_written_index_is_never_opened(pool, tmp_path, monkeypatch):
    monkeypatch.setattr(rt, "write_json", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        rt.build_index(THUMBNAIL, pool, tmp_path / "index", progress=False)
    monkeypatch.undo()
    assert list((tmp_path / "index").glob("*.faiss"))
    with pytest.raises(FileNotFoundError, match="config.json: no such file; build_index makes an index"):
        rt.open_index(tmp_path / "index")
    assert len(rt.build_index(THUMBNAIL, pool, tmp_path / "index", progress=False)) == 12


def test_an_append_that_dies_leaves_the_old_index(pool, tmp_path, monkeypatch):
    rows = rt.list_pool(pool)
    rt.build_index(THUMBNAIL, pool, tmp_path / "index", rows[:5], progress=False)
    monkeypatch.setattr(rt, "write_json", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        rt.append_index(tmp_path / "index", THUMBNAIL, pool, progress=False)
    monkeypatch.undo()
    assert len(rt.open_index(tmp_path / "index")) == 5
    assert len(rt.append_index(tmp_path / "index", THUMBNAIL, pool, progress=False)) == 12
    assert len(list((tmp_path / "index").glob("*.faiss"))) == 1


def test_a_foreign_folder_is_not_overwritten(built, tmp_path):
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "mine.txt").write_text("dear")
    with pytest.raises(FileExistsError, match="letters: holds something else"):
        rt.save_index(built, tmp_path / "letters")
    (tmp_path / "letters" / "config.json").write_text("{}")  # Of a model, perhaps
    for action in (lambda: rt.save_index(built, tmp_path / "letters"), lambda: rt.build_index(THUMBNAIL, built.root, tmp_path / "letters")):
        with pytest.raises(FileExistsError, match="letters: holds something else"):
            action()


def test_pictures_that_are_gone_or_changed_are_named(own, tmp_path):
    index = rt.build_index(THUMBNAIL, own, tmp_path / "index", progress=False)
    (own / "07.png").unlink()
    with pytest.warns(UserWarning, match="1 pictures were found that are no longer on disk .07.png"):
        found = rt.find_similar(index, THUMBNAIL, [own / "00.png"], k=11)
    assert len(found) == 10 and "07.png" not in set(found.path) and found["rank"].tolist() == list(range(1, 11))
    draw(own / "01.png", 77)
    with pytest.raises(ValueError, match="01.png is in the index with other bytes"):
        rt.append_index(tmp_path / "index", THUMBNAIL, own, progress=False)


def test_two_processes_that_append_at_once(own, tmp_path):
    rows = rt.list_pool(own)
    rt.build_index(THUMBNAIL, own, tmp_path / "index", rows[:2], progress=False)
    code = """
        import sys
        from deepfake_nbs import retrieval as rt
from deepfake_nbs import metrics
        pool, index, first, step = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
        rows = rt.list_pool(pool)
        for i in range(first, 12, step):
            rt.append_index(index, rt.make_feature("thumbnail"), pool, rows[i : i + 1], progress=False)
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(own), str(tmp_path / "index")]
    both = [subprocess.Popen([*command, str(first), "2"], cwd=ROOT) for first in (2, 3)]
    assert [process.wait() for process in both] == [0, 0]
    index = rt.open_index(tmp_path / "index", THUMBNAIL)
    assert sorted(index.rows.path) == rows.path.tolist()
    vectors, _ = rt.extract(THUMBNAIL, [own / path for path in index.rows.path], progress=False)
    np.testing.assert_array_equal(index.search(vectors, 1)[1][:, 0], np.arange(12))


def test_a_lock_is_a_file_that_is_open_for_writing(tmp_path):
    with _locked(tmp_path / "new", True):
        with open(tmp_path / "new" / ".lock", "r+b") as other, pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with open(tmp_path / "new" / ".lock", "r+b") as other:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_of_two_that_build_at_once_one_computes(pool, tmp_path, monkeypatch):
    extract, calls, started = rt.extract, [], threading.Event()

    def slowly(*args, **kwargs):
        calls.append(args)
        started.set()
        time.sleep(0.5)
        return extract(*args, **kwargs)

    monkeypatch.setattr(rt, "extract", slowly)
    with ThreadPoolExecutor(2) as threads:
        build = partial(rt.build_index, THUMBNAIL, pool, tmp_path / "index", progress=False)
        first = threads.submit(build)
        started.wait()
        second = threads.submit(build)
        assert len(first.result()) == len(second.result()) == 12
    assert len(calls) == 1 and not (tmp_path / ".index.vectors").exists()


# Numbers that are bytes, vectors that are alike


@pytest.mark.parametrize(
    "kind, scale", [(np.uint8, 1), (np.int8, 0.4), (np.float16, 200), (np.float32, 1e30), (float, 1e-200), (float, 1e200)]
)
def test_similarities_are_computed_in_float64_whatever_the_input(kind, scale):
    a, b = (np.array(values) * scale for values in ([200, 100, 250], [0, 255, 10]))
    a, b = a.astype(kind), b.astype(kind)
    with np.errstate(all="raise"):
        one, two = np.asarray(a, float) / scale, np.asarray(b, float) / scale
        expected = sum(one * two) / math.sqrt(sum(one**2) * sum(two**2))
        assert rt.cosine_similarity(a, b) == pytest.approx(expected, rel=1e-6) and rt.cosine_similarity(a, a) == pytest.approx(1)
    if scale <= 200:
        assert rt.euclidean_distance(a, b) == pytest.approx(math.dist(a.astype(float), b.astype(float)))
    assert rt.cosine_similarity(a, np.zeros(3, kind)) == 0


@pytest.mark.parametrize("pixel", [0, 7, 200])
def test_copies_of_one_image_have_a_whitened_similarity_of_0(pixel, tmp_path):
    (tmp_path / "pool").mkdir()
    for i in range(6):
        Image.new("RGB", (20, 20), (pixel, 90, 31)).save(tmp_path / "pool" / f"c{i}.png")
    draw(tmp_path / "other.png", 5)
    with pytest.warns(UserWarning, match="the 6 vectors do not differ, so every similarity is 0"):
        index = rt.build_index(THUMBNAIL, tmp_path / "pool", tmp_path / "index", similarity="whitened", progress=False)
    found = rt.find_similar(index, THUMBNAIL, [tmp_path / "other.png"], 6)
    assert found["score"].tolist() == [0] * 6


def test_the_copies_among_the_shared_cases_are_never_nan(tmp_path):
    folder = ROOT.parent / "shared" / "cases" / "whitened-copies"
    if not folder.is_dir():
        pytest.skip("../shared/cases is not on this machine")
    with pytest.warns(UserWarning, match="do not differ"):
        index = rt.build_index(THUMBNAIL, folder, tmp_path / "index", similarity="whitened", progress=False)
    vectors, _ = rt.extract(THUMBNAIL, sorted(folder.glob("*.png")), progress=False)
    assert (index.search(vectors, 6)[0] == 0).all()


@pytest.mark.parametrize("n", [5, 800])  # Fewer images than dimensions, and more
def test_whitening_of_a_few_images_and_many_copies_knows_only_the_axes_that_vary(n):
    rng = np.random.default_rng(0)
    few = rng.uniform(0, 255, (5, 64)).astype(np.float32)
    few[:, 3] = 77
    x = few[np.arange(n) % 5]
    feature = rt.Feature("few", 8, "L", 64, np.asarray)
    index = rt.make_index(x, names(n), feature, "whitened")
    scores, _ = index.search(x, 1)
    assert np.isfinite(scores).all() and scores[:, 0] == pytest.approx(np.ones(n), abs=1e-3)
    kept = int(index.config["recipe"].split(",")[0][4:])
    assert kept == min(64, (n - 1) // 2) and rt.make_index(few[:3], names(3), feature, "whitened").search(few[:3], 3)[0].max() <= 1 + 1e-6
    assert index.search(few[:1] * 0 + x.mean(0), 3)[0].shape == (1, 3)


def test_whitening_keeps_a_small_spread_around_a_large_mean():
    x = (cloud(400) * 0.5 + 3000).astype(np.float32)
    index = rt.make_index(x, names(400), TOY, "whitened")
    centred = x.astype(float) - x.mean(0, dtype=float)
    values, axes = np.linalg.eigh(centred.T @ centred)
    white = centred @ axes / np.sqrt(values)
    white /= np.linalg.norm(white, axis=1, keepdims=True)
    scores, numbers = index.search(x[:5], 400)
    for i in range(5):
        np.testing.assert_allclose(scores[i], (white @ white[i])[numbers[i]], atol=0.02)


@pytest.mark.parametrize("similarity", ["cosine", "euclidean", "whitened"])
@pytest.mark.parametrize("n", [1, 2])
def test_a_pool_of_one_or_two_images(n, similarity, tmp_path):
    (tmp_path / "pool").mkdir()
    for i in range(n):
        draw(tmp_path / "pool" / f"{i}.png", i)
    draw(tmp_path / "query.png", 9)
    build = partial(rt.build_index, THUMBNAIL, tmp_path / "pool", tmp_path / "index", similarity=similarity, progress=False)
    if similarity == "whitened":
        with pytest.raises(rt.TooFewVectors, match=f"whitened: {n} vectors of 768 numbers; expected at least 3"):
            build()
        return
    with pytest.warns(UserWarning, match="k is 5"):
        found = rt.find_similar(build(), THUMBNAIL, [tmp_path / "query.png", tmp_path / "pool" / "0.png"], 5)
    assert [len(found[found["query"].eq(str(path))]) for path in (tmp_path / "query.png", tmp_path / "pool" / "0.png")] == [n, n - 1]
    assert np.isfinite(found["score"]).all()


def test_a_vector_that_is_not_finite_is_named(built):
    x = cloud(5)
    x[3, 2] = np.nan
    with pytest.raises(ValueError, match="3.png: its vector holds NaN or infinite numbers .1 do."):
        rt.make_index(x, names(5), TOY)
    with pytest.raises(ValueError, match="queries of the feature 'thumbnail' hold NaN"):
        built.search(np.full((1, 768), np.inf), 1)


def lossy(x, similarity):
    "An index of few cells of which one is looked into, on the vectors as they are."
    index = rt.make_index(x, names(len(x)), TOY, similarity)
    metric = rt._behind(index.searcher).metric_type
    cells = faiss.index_factory(32, "IVF24,Flat", metric)
    cells.train(x)
    cells.add(x)
    return rt.Index(cells, index.config | dict(kind="ivfpq"), index.rows)


@pytest.mark.parametrize("similarity", ["euclidean", "cosine"])
@pytest.mark.parametrize("copies", [1, 4])
def test_recall_is_that_of_vectors_that_differ(copies, similarity):
    few = np.random.default_rng(0).normal(size=(600, 32)).astype(np.float32)
    few /= np.linalg.norm(few, axis=1, keepdims=True) if similarity == "cosine" else 1
    x = np.repeat(few, copies, 0)
    index, by_hand = lossy(x, similarity), []
    for q in few:  # Every vector asks once, its copies aside
        order = np.argsort(-(few @ q) if similarity == "cosine" else np.square(few - q).sum(1), kind="stable")[1:11]
        found = {number // copies for number in index.searcher.search(q[None], 11 * copies)[1][0]}
        by_hand.append(len(found & set(order)) / 10)
    assert 0.1 < np.mean(by_hand) < 0.7
    assert rt.recall_against_exact(index, x, n_queries=600) == pytest.approx(np.mean(by_hand), abs=0.01)


def test_copies_do_not_make_a_good_index_look_bad_nor_a_bad_one_good():
    x = cloud(900)
    good = rt.make_index(np.repeat(x, 5, 0), names(4500), TOY, kind="hnsw")
    assert rt.recall_against_exact(good, np.repeat(x, 5, 0)) >= 0.9  # By row numbers, which of five copies is found is chance
    crowd = np.concatenate([np.repeat(x[:1], 4000, 0), x[:400]])
    index = lossy(crowd, "euclidean")
    assert rt.recall_against_exact(index, crowd) < 0.9  # Ten of eleven queries, taken from all rows, would find nothing but copies


def test_an_approximate_index_that_loses_too_much_is_kept_as_an_exact_one(tmp_path, monkeypatch):
    (tmp_path / "pool").mkdir()
    x, rows = np.random.default_rng(0).normal(size=(1500, 32)).astype(np.float32), names(1500)  # Neighbours in every cell
    nothing = pd.DataFrame(dict(path=[], reason=[]))
    monkeypatch.setattr(rt, "_vectors_of", lambda feature, pool, root, **how: (x, pool[["path", "sha256"]], nothing))
    monkeypatch.setattr(rt, "KINDS", rt.KINDS | dict(ivfpq="IVF64,PQ4x4fs,RFlat"))
    monkeypatch.setattr(rt, "_tune", lambda index, kind: index)  # One cell of 64
    for similarity in ("cosine", "euclidean", "whitened"):
        build = partial(rt.build_index, TOY, tmp_path / "pool", tmp_path / similarity, rows, similarity, "ivfpq", progress=False)
        said = r"ivfpq finds 0.\d+ of what exact search finds.*: less than 0.9, so an exact index .flat. is kept"
        with pytest.warns(UserWarning, match=said):
            index = build()
        exact = rt.make_index(x, rows, TOY, similarity)
        refused = index.config["refused"]
        assert index.config["kind"] == "flat" and "recall_at_10" not in index.config
        assert refused["kind"] == "ivfpq" and min(refused["recall_at_10"], refused["recall_of_itself"]) < 0.9
        np.testing.assert_array_equal(index.search(x[:9], 10)[1], exact.search(x[:9], 10)[1])
        with pytest.warns(UserWarning, match="ivfpq finds 0"):  # Said again, and not built again
            assert build().config["generation"] == index.config["generation"]


def test_ivfpq_counts_vectors_that_differ():
    x = np.repeat(cloud(400), 5, 0)
    with pytest.raises(rt.TooFewVectors, match="ivfpq: 400 different vectors; expected at least 1000"):
        rt.make_index(x, names(2000), TOY, kind="ivfpq")


# Files and folders as they come


ODD_NAMES = [b"NA", b"null.png", b"nan.png", b"None", b"007", b"c\rr.png", b"l\nf.png", b'q"q,q.png', b" blank .png", b"\x01.png",
             b"\x1b[2J.png", b"Caf\xe9.png", "\u202egpj.png".encode(), "写真.png".encode()]


def test_every_name_that_a_file_may_have_comes_back_from_an_index(tmp_path):
    pool, folder = os.fsencode(tmp_path / "pool"), tmp_path / os.fsdecode(b"index \xff\n")
    os.mkdir(pool)
    for i, name in enumerate(ODD_NAMES):
        with open(os.path.join(pool, name), "wb") as file:
            Image.fromarray(np.random.default_rng(i).integers(0, 255, (9, 9, 3), np.uint8)).save(file, "PNG")
    expected = sorted(map(os.fsdecode, ODD_NAMES))
    rows = rt.list_pool(tmp_path / "pool")
    rt.build_index(THUMBNAIL, tmp_path / "pool", folder, rows[:9], progress=False)
    rt.append_index(folder, THUMBNAIL, tmp_path / "pool", progress=False)
    index = rt.open_index(folder, THUMBNAIL, verify=True)
    assert index.rows.path.tolist() == expected and rows.path.tolist() == expected
    found = rt.find_similar(index, THUMBNAIL, [tmp_path / "pool" / expected[0]], len(ODD_NAMES) - 1)
    assert sorted(found.path) == expected[1:]
    (tmp_path / "pool" / "l\nf.png").write_text("no image")
    with pytest.warns(UserWarning, match=r"l\\nf.png: not an image"):  # Spelled out
        again = rt.build_index(THUMBNAIL, tmp_path / "pool", folder, progress=False)
    assert again.rejected.path.tolist() == ["l\nf.png"]


def test_a_folder_is_walked_as_by_every_command(pool, tmp_path):
    folder = tmp_path / "folder"
    (folder / "__MACOSX").mkdir(parents=True)
    (folder / ".ipynb_checkpoints").mkdir()
    for name in ("a.png", "._a.png", "__MACOSX/a.png", ".ipynb_checkpoints/a.png", "B.MPO", "c.jfif", "d", "e.jpg_large"):
        image = Image.open(pool / "00.png").rotate(5 * len(name))
        image.save(folder / name, "PNG" if name.endswith("png") else "JPEG")
    (folder / "linked").symlink_to(pool)
    (folder / "circle").symlink_to(folder)
    for name in ("pipe.png", "pipe"):
        os.mkfifo(folder / name)
    (folder / "dangling.jpg").symlink_to(folder / "nowhere")
    for name in ("film.mp4", "letter.txt", "photo.heic"):
        (folder / name).write_bytes(b"something else")
    with pytest.warns(UserWarning) as told:
        index = rt.build_index(THUMBNAIL, folder, tmp_path / "index", progress=False)
    said = "\n".join(str(one.message) for one in told)
    assert index.rows.path.tolist() == ["B.MPO", "a.png", "c.jfif", "d", "e.jpg_large", *(f"linked/{i:02d}.png" for i in range(12))]
    assert index.rejected.path.tolist() == ["dangling.jpg", "pipe", "pipe.png"] and "3 of 20 files cannot be read" in said
    assert "1 video (film.mp4) and 2 files that are no images (1 .txt, 1 .heic) left out" in said


def test_a_pipe_in_a_manifest_is_never_opened(own, tmp_path):
    os.mkfifo(own / "pipe.png")
    (own / "folder").mkdir()
    manifest = pd.DataFrame(dict(path=["00.png", "folder", "pipe.png"], sha256=""))
    with pytest.warns(UserWarning, match="2 of 3 files cannot be read .*folder: a folder; pipe.png: a device, a pipe or a socket"):
        index = rt.build_index(THUMBNAIL, own, tmp_path / "index", manifest, progress=False)
    assert index.rows.path.tolist() == ["00.png"]
    person = pd.DataFrame(dict(path=["00.png", "01.png", "pipe.png"], sha256="", label=0, video="", group="NA", method="none"))
    with pytest.warns(UserWarning, match="pipe.png: a device"):
        assert rt.person_question(person, own).pool.path.tolist() == ["00.png", "01.png"]


def test_a_folder_without_a_readable_image_is_refused_by_name(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "film.mp4").touch()
    with pytest.raises(ValueError, match="folder: no pictures in this folder; 1 video .film.mp4. left out"):
        rt.build_index(THUMBNAIL, folder, tmp_path / "index", progress=False)
    os.mkfifo(folder / "pipe.png")
    with pytest.raises(ValueError, match="the pool is empty, 1 files cannot be read .pipe.png: a device"):
        rt.build_index(THUMBNAIL, folder, tmp_path / "index", progress=False)
    with pytest.raises(NotADirectoryError, match="nowhere: no such folder"):
        rt.build_index(THUMBNAIL, tmp_path / "nowhere", tmp_path / "index", progress=False)
    assert not (tmp_path / "index" / "config.json").exists()


def test_what_somebody_else_keeps_is_never_deleted(own, built, tmp_path):
    folder = tmp_path / "letters"
    folder.mkdir()
    for name in ("rows-2024.csv", "index-old.faiss", "letter.txt"):
        (folder / name).write_text("mine")
    with pytest.raises(FileExistsError, match="letters: holds something else"):
        rt.build_index(THUMBNAIL, own, folder, progress=False)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(FileExistsError, match="file: is a file"):
        rt.build_index(THUMBNAIL, own, tmp_path / "file", progress=False)
    scratch = built.folder.with_name(".index.vectors")
    scratch.mkdir()
    kept = [built.folder / "rows-2024.csv", built.folder / "sketch-of-a-face.faiss", scratch / "mine.npy"]
    for path in kept:
        path.write_text("mine")
    draw(own / "new.png", 40)
    rt.build_index(THUMBNAIL, own, built.folder, progress=False)
    assert all(path.read_text() == "mine" for path in [*kept, *folder.iterdir()])
    assert sorted(path.name for path in built.folder.glob("*.faiss")) == ["index-000002.faiss", "sketch-of-a-face.faiss"]


def test_files_of_an_index_are_readable_by_the_next_user(pool, tmp_path):
    before = os.umask(0o022)
    try:
        rt.build_index(THUMBNAIL, pool, tmp_path / "index", cache=tmp_path / "cache", progress=False)
        question = rt.original_question(half_fake(pool), pool, 0)
        rt.evaluate(question, THUMBNAIL, tmp_path / "scratch", ["blur"])
    finally:
        os.umask(before)
    files = [path for place in ("index", "cache", "scratch") for path in (tmp_path / place).rglob("*") if path.is_file()]
    assert len(files) > 10 and {path.stat().st_mode & 0o777 for path in files} == {0o644}


@pytest.mark.parametrize("limit, name", [(9_000, ".npy"), (38_000, "index-000001.faiss")])
def test_a_disk_that_takes_no_more_is_told_by_file_and_cause(limit, name, pool, tmp_path):
    code = """
        import resource, sys
        import deepfake_nbs.retrieval as rt, faiss, joblib, pandas
        rows = rt.list_pool(sys.argv[1])
        feature = rt.make_feature("thumbnail")
        if int(sys.argv[3]) > 20_000:  # Of the vectors only the index is too large
            rt._extract_chunk = lambda feature, files, cache, key, workers: rt.extract(feature, files, progress=False)
            rows = pandas.concat([rows, rows.assign(path="./" + rows.path)])
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]),) * 2)
        try:
            rt.build_index(feature, sys.argv[1], sys.argv[2], rows, progress=False)
        except OSError as error:
            print(error)
    """
    command = [sys.executable, "-c", textwrap.dedent(code), pool, tmp_path / "index", str(limit)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert "File too large" in done.stdout and name in done.stdout and "Traceback" not in done.stderr
    assert not (tmp_path / "index" / "config.json").exists()
    assert len(rt.build_index(THUMBNAIL, pool, tmp_path / "index", progress=False)) == 12


def test_an_index_that_may_not_be_written(own, tmp_path, monkeypatch):
    index = rt.build_index(THUMBNAIL, own, tmp_path / "index", progress=False)
    monkeypatch.setattr(rt.os, "access", lambda path, mode: mode != os.W_OK)
    assert len(rt.build_index(THUMBNAIL, own, tmp_path / "index", progress=False)) == 12  # Nothing has changed
    draw(own / "new.png", 40)
    monkeypatch.setattr(rt, "extract", lambda *args, **kwargs: pytest.fail("computed in vain"))
    said = "its images have changed since it was made, and .*/index may not be written; .*: `deepfake-nbs index .*/pool NEW_INDEX`"
    with pytest.raises(PermissionError, match=said):
        rt.build_index(THUMBNAIL, own, tmp_path / "index", progress=False)
    for action in (lambda: rt.append_index(index.folder, THUMBNAIL, own), lambda: rt.save_index(index, tmp_path / "new")):
        with pytest.raises(PermissionError, match="may not be written; index the images into another folder"):
            action()
    assert not (tmp_path / "new").exists()


def test_an_index_of_an_earlier_version_names_the_command_that_makes_it_again(pool, tmp_path):
    index = rt.build_index(THUMBNAIL, pool, tmp_path / "an index", similarity="euclidean", kind="hnsw", progress=False)
    HARMS["version"](index.folder)
    command = f"`deepfake-nbs index {pool} '{index.folder}' --similarity euclidean --kind hnsw`"
    with pytest.raises(ValueError, match="version 1; expected an index of version 2") as caught:
        rt.open_index(index.folder)
    assert command in str(caught.value)


def test_an_index_that_was_moved_says_so(own, tmp_path):
    rt.build_index(THUMBNAIL, own, tmp_path / "index", progress=False)
    (tmp_path / "far").mkdir()
    shutil.move(tmp_path / "index", tmp_path / "far" / "index")
    with pytest.warns(UserWarning, match="its images were in .*far/pool, which is not there: .*`deepfake-nbs index FOLDER .*far/index`"):
        index = rt.open_index(tmp_path / "far" / "index")
    with pytest.warns(UserWarning, match="11 pictures were found that are no longer on disk"):
        found = rt.find_similar(index, THUMBNAIL, [own / "00.png"], 12)
    assert found.empty and list(found) == ["query", "rank", "path", "score"] and len(rt.find_gone(index)) == 12


def test_an_image_that_is_gone_or_another_one_leaves_its_place_to_the_next(own, tmp_path):
    index = rt.build_index(THUMBNAIL, own, tmp_path / "index", progress=False)
    before = rt.find_similar(index, THUMBNAIL, [own / "00.png"], 11).path.tolist()
    (own / before[0]).unlink()
    draw(own / before[1], 77)
    with pytest.warns(UserWarning, match="2 pictures were found that are no longer on disk") as told:
        found = rt.find_similar(index, THUMBNAIL, [own / "00.png"], 3)
    assert found.path.tolist() == before[2:5] and f"`deepfake-nbs index {own} {index.folder}`" in str(told[0].message)
    assert rt.find_gone(index) == [int(before[0][:2])] and len(index.stale) == 2


def test_a_killed_build_leaves_nothing_that_is_taken_for_whole_and_is_resumed(pool, tmp_path):
    code = """
        import os, signal, sys
        import deepfake_nbs.retrieval as rt
        from functools import partial
        feature, read = rt.make_feature("thumbnail"), rt.extract
        done = []
        def extract(*args, **kwargs):
            if len(done) == 2:
                os.kill(os.getpid(), signal.SIGINT)
            done.append(args)
            return read(*args, **kwargs)
        rt.extract, rt.extract_parallel = extract, partial(rt.extract_parallel, chunk_size=4)
        try:
            rt.build_index(feature, sys.argv[1], sys.argv[2], progress=False)
        except KeyboardInterrupt:
            print(len(done))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code), pool, tmp_path / "index"], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() in ("2", "3") and len(list((tmp_path / ".index.vectors").glob("*.npy"))) >= 2
    with pytest.raises(FileNotFoundError, match="never finished"):
        rt.open_index(tmp_path / "index")
    code = textwrap.dedent(code.replace("len(done) == 2", "False")) + "\nprint(len(done))"
    again = subprocess.run([sys.executable, "-c", code, pool, tmp_path / "index"], capture_output=True, text=True, cwd=ROOT)
    assert again.stdout.strip() in ("0", "1") and len(rt.open_index(tmp_path / "index")) == 12
    assert not (tmp_path / ".index.vectors").exists()


def test_the_scratch_of_an_evaluation_goes_and_nothing_else(pool, tmp_path):
    scratch = tmp_path / "scratch"
    rt.evaluate(rt.original_question(half_fake(pool), pool, 0), rt.make_feature("harris"), scratch, ["none", "blur", "crop 10 %"])
    (scratch / "disturbed" / "mine.png").write_text("mine")
    (scratch / "vectors" / "mine.npy").write_text("mine")
    assert rt.clear_scratch(scratch) > 12 * 4 * 299**2  # 358 KB an image
    assert sorted(path.name for path in scratch.rglob("*") if path.is_file()) == ["mine.npy", "mine.png"]
    assert rt.clear_scratch(tmp_path / "absent") == 0


def test_the_page_leaves_no_vectors_behind():
    page = json.loads((ROOT / "nbs" / "03_image_retrieval.ipynb").read_text(encoding="utf-8"))
    cells = ["".join(cell["source"]) for cell in page["cells"]]
    at = [i for i, source in enumerate(cells) if "clear_scratch(scratch)" in source]
    assert len(at) == 1 and at[0] > max(i for i, source in enumerate(cells) if "evaluate(" in source or "build_index(" in source)


# Shards


@pytest.mark.parametrize("similarity", ["cosine", "euclidean", "whitened"])
def test_shards_answer_as_one_index(similarity, tmp_path):
    x, rows = cloud(900), names(900)
    first = rt.make_index(x[:300], rows[:300], TOY, similarity)
    parts = [first, *(rt.make_index(x[i : i + 300], rows[i : i + 300], TOY, like=first) for i in (300, 600))]
    folders = [rt.save_index(part, tmp_path / f"{i}").folder for i, part in enumerate(parts)]
    joined, whole = rt.open_shards(folders, TOY), rt.make_index(x, rows, TOY, similarity, like=first)
    for one, two in zip(joined.search(x[:50], 6), whole.search(x[:50], 6), strict=True):
        np.testing.assert_allclose(one, two, atol=1e-4)
    assert [Path(path).name for path in joined.rows.path] == rows.path.tolist()


def test_shards_that_do_not_fit_are_refused(tmp_path):
    x = cloud(600)
    folders = [rt.save_index(rt.make_index(x[i : i + 300], names(300), TOY, how), tmp_path / f"{i}{how}").folder
               for i, how in ((0, "cosine"), (0, "euclidean"), (0, "whitened"), (300, "whitened"))]
    with pytest.raises(ValueError, match="its similarity differ"):
        rt.open_shards(folders[:2])
    with pytest.raises(ValueError, match="axes of whitening"):
        rt.open_shards(folders[2:])
    with pytest.raises(ValueError, match="no shards"):
        rt.open_shards([])


# Truth and measures


def manifest():
    video = "faceforensics/{}/c23/videos/{}.mp4".format
    rows = [("0-CelebA/1.jpg", 0, "g1", "", "none"), ("0-CelebA/2.jpg", 0, "g1", "", "none"), ("1-StarGAN/2.jpg", 1, "g1", "", "StarGAN"),
            ("1-StarGAN/edit.jpg", 1, "g1", "", "StarGAN")]
    for name, part, label, method in (("519", "original_sequences/youtube", 0, "none"), ("515", "original_sequences/youtube", 0, "none"),
                                      ("519_515", "manipulated_sequences/FaceSwap", 1, "FaceSwap")):
        rows += [(f"{name}-{i}.png", label, "FF++:515", video(part, name), method) for i in range(2)]
    rows += [("a.png", 0, "DFD:01", video("original_sequences/actors", "01__walk"), "none"),
             ("b.png", 0, "DFD:01", video("original_sequences/actors", "01__talk"), "none"),
             ("c.png", 1, "DFD:01", video("manipulated_sequences/DFD", "01_02__talk__ABCDEFGH"), "DFD"),
             ("alone.png", 1, "made up", "", "STYLEGAN")]
    df = pd.DataFrame(rows, columns=["path", "label", "group", "video", "method"])
    return df.assign(sha256=[f"{i:064x}" for i in range(len(df))])


def test_originals_are_the_photograph_or_the_frames_of_the_target():
    df = manifest()
    found = {path: df.path[rows].tolist() for path, rows in zip(df.path, rt.original_rows(df), strict=True)}
    assert found["1-StarGAN/2.jpg"] == ["0-CelebA/2.jpg"]  # The file of the same name
    assert found["1-StarGAN/edit.jpg"] == ["0-CelebA/1.jpg", "0-CelebA/2.jpg"]
    assert found["519_515-0.png"] == ["519-0.png", "519-1.png"]  # Never those of the source
    assert found["c.png"] == ["b.png"]  # The scene counts
    assert not found["alone.png"] and not found["0-CelebA/1.jpg"]


def test_a_question_asks_what_has_an_answer():
    question = rt.original_question(manifest(), ".", 3)
    assert len(question.queries) == 3 and question.queries.method.nunique() == 3  # As many of each method as there are
    assert len(rt.original_question(manifest(), ".", 0).queries) == 5
    assert rt.original_question(manifest().query("label == 0"), ".") is None


def test_persons_follow_the_roles():
    df = pd.DataFrame([(f"{who}{i}.jpg", 0, who, "", "none", f"{who}{i}".ljust(64, "0"), "query" if i == 0 else "gallery")
                       for who in "abc" for i in range(3 if who != "c" else 1)],
                      columns=["path", "label", "group", "video", "method", "sha256", "role"])
    question = rt.person_question(df, ".")
    assert question.queries.path.tolist() == ["a0.jpg", "b0.jpg"] and set(question.pool.path) == {"a1.jpg", "a2.jpg", "b1.jpg", "b2.jpg"}
    assert question.pool.path[question.relevant[1]].tolist() == ["b1.jpg", "b2.jpg"]
    free = rt.person_question(df.drop(columns="role"), ".")
    assert len(free.pool) == 7 and free.pool.path[free.relevant[0]].tolist() == ["a1.jpg", "a2.jpg"]  # Not itself
    twins = df.drop(columns="role").assign(sha256="f" * 64)
    assert rt.person_question(twins, ".") is None  # The same bytes are no answer


def test_measures_by_hand():
    assert rt.score_ranking(np.array([5, 1, 3, 2]), np.array([1, 2])) == (2, pytest.approx((1 / 2 + 2 / 4) / 2))
    assert rt.score_ranking(np.array([5, 3]), np.array([1])) == (math.inf, 0)
    keep = np.array([True, True, True, True, True, False])
    assert rt.score_ranking(np.array([5, 1, 3, 2]), np.array([1, 2]), keep) == (1, pytest.approx((1 + 2 / 3) / 2))
    scores = pd.DataFrame(dict(question="original", pool="all", disturbance="none", feature="harris", similarity="cosine",
                               first=[1, 4, 11, math.inf], ap=[1, 0.5, 0.1, 0.0], group=["a", "a", "b", "c"]))
    table = rt.ranking_table(scores).set_index("measure")
    assert table.value.to_dict() == dict(zip(["recall@1", "recall@5", "recall@10", "map"], [0.25, 0.5, 0.5, 0.4], strict=True))
    assert table.low.isna().all() and (table.why == "3 groups").all() and (table.n == 4).all()
    many = rt.ranking_table(pd.concat([scores.assign(group=scores["group"] + str(i)) for i in range(10)])).set_index("measure")
    assert (many.low < many.value).all() and (many.value < many.high).all() and (many.n == 40).all()


def test_an_interval_leaves_out_groups():
    alone = metrics.mean_interval(np.array([[0.0], [1.0]] * 50), map(str, range(100)), (0, 1))
    kin = metrics.mean_interval(np.array([[0.0], [1.0]] * 50), ["a", "b"] * 50, (0, 1))
    assert alone[2] - alone[1] < 0.25 and np.isnan(kin[1:3]).all() and kin[3] == ["2 groups"]
    people = metrics.mean_interval(np.repeat([[0.0], [1.0]] * 10, 5, axis=0), np.repeat(np.arange(20), 5), (0, 1))
    assert 0.4 < (people[2] - people[1]).item() < 0.5, "a hundred queries of twenty people are twenty"


def test_overlap_and_comparison_by_hand():
    common = dict(question="original", pool="all", disturbance="none", group="g", half=1, method="m", path="q")
    scores = pd.DataFrame([common | dict(feature="harris", similarity="cosine", first=2, ap=0.5, top=list(range(10))),
                           common | dict(feature="harris", similarity="euclidean", first=3, ap=0.3, top=list(range(5, 15))),
                           common | dict(feature="thumbnail", similarity="whitened", first=1, ap=0.9, top=list(range(20, 30)))])
    assert rt.overlap_table(scores).common.tolist() == [5, 0, 0]
    assert rt.best_corrected(scores) == ("thumbnail", "whitened")
    found = rt.compare_with_reported(scores, ("thumbnail", "whitened")).set_index("measure")
    assert found.which["map"] == "harris cosine" and found.difference["map"] == pytest.approx(0.4)
    with pytest.raises(ValueError, match="no combination beside the report's four"):
        rt.best_corrected(scores[rt.is_reported(scores)])


def test_the_half_that_chooses_is_not_the_half_that_reports():
    same = dict(question="original", pool="all", disturbance="none", similarity="cosine", first=1, group="g")
    rows = [same | dict(half=half, feature=feature, ap=ap)
            for half, feature, ap in ((0, "phash", 0.9), (0, "thumbnail", 0.1), (1, "phash", 0.1), (1, "thumbnail", 0.9))]
    assert rt.best_corrected(pd.DataFrame(rows)) == ("phash", "cosine")


def test_disturbances_do_what_they_say(pool):
    image = Image.open(pool / "00.png")
    assert rt.DISTURBANCES["half size"](image).size == (24, 20)
    assert rt.DISTURBANCES["crop 10 %"](image).size == (44, 36)
    assert rt.DISTURBANCES["none"](image) is image
    for kind in ("jpeg 50", "blur"):
        changed = rt.DISTURBANCES[kind](image)
        assert changed.size == image.size and 0 < np.abs(np.float32(changed) - np.float32(image)).mean() < 60
    # The colours keep their places
    plain = Image.new("RGB", (16, 16), (200, 30, 60))
    assert np.abs(np.float32(rt.DISTURBANCES["jpeg 50"](plain)) - (200, 30, 60)).max() < 12


def half_fake(pool, n=12):
    labels = dict(label=[0] * (n - 6) + [1] * 6, method=["none"] * (n - 6) + ["edit"] * 6)
    return rt.list_pool(pool).assign(group=[f"g{i % 6}" for i in range(n)], video="", **labels)


@pytest.mark.parametrize("largest, ticks", [(1, [1]), (5, [1, 5]), (11, [1, 5, 10]), (50, [1, 5, 10, 50])])
def test_recall_is_drawn_up_to_any_k_without_labels_that_touch(largest, ticks):
    scores = pd.DataFrame(dict(feature="harris", similarity="cosine", first=[1, 3, math.inf]))
    ax = rt.plot_recall(scores, largest)
    ax.figure.canvas.draw()
    assert ax.get_xticks().tolist() == ticks
    plt.close(ax.figure)


def test_equal_scores_do_not_favour_what_the_manifest_lists_first(pool, tmp_path):
    blind = rt.Feature("blind", 8, "L", 4, lambda pixels: np.ones((len(pixels), 4), np.float32))
    scores = rt.evaluate(rt.original_question(half_fake(pool), pool, 0), blind, tmp_path)
    cosine = scores[scores.pool.eq("all") & scores.similarity.eq("cosine")]
    assert cosine["first"].max() > 6  # Six real pictures come first in the manifest


def test_a_disturbed_query_does_not_find_itself_and_everything_is_scored(pool, tmp_path):
    df = half_fake(pool)
    question = rt.original_question(df, pool, 0)
    scores = rt.evaluate(question, THUMBNAIL, tmp_path, ["none", "blur"])
    assert len(scores) == 6 * 3 * 2 * 2 and set(scores.pool) == {"all", "real"}
    own = {path: i for i, path in enumerate(df.path)}
    assert not any(own[row.path] in row.top for row in scores.itertuples())
    assert all(len(row.top) == (10 if row.pool == "all" else 6) for row in scores.itertuples())
    kept = rt.measurement_rows(rt.ranking_table(scores), "by hand", "toy")
    assert kept.id.is_unique and "retrieval-original-real-blur-thumbnail-whitened-map" in set(kept.id)


def test_the_page_keeps_each_question_with_the_size_of_its_own_pool():
    page = json.loads((ROOT / "nbs" / "03_image_retrieval.ipynb").read_text(encoding="utf-8"))
    cell = next(source for cell in page["cells"] if "results-retrieval" in (source := "".join(cell["source"])))
    row = dict(pool="all", disturbance="none", feature="phash", similarity="cosine", measure="map", value=0.5, low=0.4, high=0.6, n=9)
    tables = [pd.DataFrame([row | dict(question=name)]) for name in ("original", "person")]
    questions = [SimpleNamespace(pool=range(n)) for n in (7, 5)]
    saved = {}
    found = dict(pd=pd, measurement_rows=rt.measurement_rows, save_table=lambda df, name, *_: saved.update({name: df}),
                 build_index=lambda *args, **kwargs: None, run=Path("run"), notebook="page", name="toy", dataset=None, scratch=Path(),
                 table=tables[0], person_table=tables[1], original=questions[0], person=questions[1], pool=range(7),
                 features=dict(phash=None), chosen=("phash", "cosine"), settings=SimpleNamespace(retrieval_index="flat", workers=1))
    exec(cell, found)
    kept = saved["results-retrieval"].set_index("id").protocol
    assert kept["retrieval-original-all-none-phash-cosine-map"].startswith("pool of 7,")
    assert kept["retrieval-person-all-none-phash-cosine-map"].startswith("pool of 5,")


@pytest.mark.parametrize("module, allowed", [("retrieval", []), ("application", ["torchvision"])])  # torchvision is the detector's
def test_importing_the_application_or_this_module_loads_no_heavy_library(module, allowed):
    heavy = ("fastai", "sklearn", "matplotlib", "faiss", "pandas", "joblib", "torchvision")
    code = f"import sys, deepfake_nbs.{module}\nprint(*(name for name in {heavy} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) <= set(allowed)



def test_faiss_is_the_one_that_the_index_names(built):
    assert built.config["faiss"] == faiss.__version__


def test_the_setting_of_the_index_is_checked(tmp_path):
    text = (ROOT / "settings.ini").read_text(encoding="utf-8").replace("retrieval_index = flat", "retrieval_index = tree")
    (tmp_path / "settings.ini").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match="retrieval_index is 'tree'; expected 'flat', 'hnsw' or 'ivfpq'"):
        read_settings("smoke", tmp_path / "settings.ini")


def test_measurements_that_the_report_has_no_id_for_are_kept(tmp_path, monkeypatch):
    run, root = tmp_path / "data" / "runs" / "smoke-toy", tmp_path
    (run / "tables").mkdir(parents=True)
    (run / "claims.csv").write_text(",".join(CLAIM_COLUMNS) + "\nretrieval-common,5,4,3,5,9,p,toy,measured\nother,1,,,,,,,not yet\n")
    (run / "tables" / "results-retrieval.csv").write_text(",".join(CLAIM_COLUMNS) + "\nretrieval-x,,0.5,0.4,0.6,9,p,toy,measured\n")
    shutil.copy(ROOT / "settings.ini", root)
    monkeypatch.setattr(core, "project_root", lambda: root)
    kept = pd.read_csv(core.keep_results("smoke", "data/toy")[0])
    assert kept.id.tolist() == ["retrieval-common", "retrieval-x"] and kept.measured.tolist() == [4, 0.5]
