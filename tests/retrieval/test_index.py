"""The index in memory: exact and approximate search, whitening, sketch, recall."""

import faiss
import numpy as np
import pytest
from helpers.retrieval_data import THUMBNAIL, TOY, cloud, half_fake, names

from deepfake_nbs.retrieval.evaluation import evaluate, original_task
from deepfake_nbs.retrieval.features import (
    Feature,
    cosine_similarity,
    euclidean_distance,
    extract,
    make_feature,
)
from deepfake_nbs.retrieval.index import (
    SKETCH_FROM,
    Index,
    TooFewVectors,
    _without_transforms,
    make_index,
    recall_against_exact,
)


@pytest.mark.parametrize("similarity", ["cosine", "euclidean"])
def test_the_index_returns_what_the_formulas_say(similarity):
    x = cloud(200)
    index = make_index(x, names(200), TOY, similarity)
    formula = dict(
        cosine=lambda a, b: -cosine_similarity(a, b),
        euclidean=lambda a, b: euclidean_distance(a, b, root=False),
    )
    by_hand = np.array([formula[similarity](x[3], other) for other in x])
    scores, numbers = index.search(x[3:4], 10)
    assert numbers[0].tolist() == np.argsort(by_hand, kind="stable")[:10].tolist()
    shown = -by_hand[numbers[0]] if similarity == "cosine" else np.sqrt(by_hand[numbers[0]])
    np.testing.assert_allclose(scores[0], shown, atol=2e-3)


def test_whitening_is_mean_removal_rotation_and_equal_spread():
    x = cloud(500) * np.linspace(0.1, 10, 32, dtype=np.float32) + 5
    index = make_index(x, names(500), TOY, "whitened")
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
    scores, numbers = make_index(x, names(200), TOY, "whitened").search(x, 1)
    assert np.isfinite(scores).all() and numbers[:, 0].tolist() == list(range(200))


@pytest.mark.parametrize("kind", ["hnsw", "ivfpq"])
def test_transforms_hold_for_every_stage_of_an_approximate_index(kind):
    x = cloud(3000) * np.random.default_rng(1).uniform(0.1, 10, (3000, 1)).astype(
        np.float32
    )  # Lengths that cosine must not see
    scores, numbers = make_index(x, names(3000), TOY, kind=kind).search(x[:20], 3)
    for i, (score, number) in enumerate(zip(scores, numbers, strict=True)):
        np.testing.assert_allclose(score, [cosine_similarity(x[i], x[j]) for j in number], atol=1e-4)


def test_equal_scores_stand_in_the_order_of_the_rows(pool, tmp_path):
    x = np.random.default_rng(0).integers(0, 2, (300, 8)).astype(np.float32) * 2 - 1
    by_hand = [np.lexsort((np.arange(300), -(x @ q))).tolist() for q in x[:20]]
    for similarity in ("cosine", "euclidean"):
        feature = Feature("bits", 1, "L", 8, np.asarray)
        assert make_index(x, names(300), feature, similarity).search(x[:20], 300)[1].tolist() == by_hand
    scores = evaluate(original_task(half_fake(pool), pool, 0), make_feature("phash"), tmp_path)
    one, two = (scores[scores.similarity.eq(name)] for name in ("cosine", "euclidean"))
    assert (
        one[["first_hit_rank", "ap", "top"]].to_numpy().tolist()
        == two[["first_hit_rank", "ap", "top"]].to_numpy().tolist()
    )


def test_batches_give_what_single_queries_give(built, pool):
    vectors, _ = extract(THUMBNAIL, sorted(pool.iterdir()), progress=False)
    hashes = built.rows.sha256.tolist()
    scores, numbers = built.search(vectors, 4, hashes)
    for i in range(12):
        score, number = built.search(vectors[i : i + 1], 4, hashes[i : i + 1])
        np.testing.assert_array_equal(number[0], numbers[i])
        np.testing.assert_allclose(score[0], scores[i], atol=1e-5)
        assert i not in numbers[i]


def test_more_than_the_pool_holds_is_all_of_it_and_a_warning(built):
    vectors = np.ones((2, 768), np.float32)
    with pytest.warns(UserWarning, match="k is 99, but the pool has 12 images"):
        scores, numbers = built.search(vectors, 99, [built.rows.sha256[0], "0" * 64])
    assert (
        sorted(numbers[1]) == list(range(12))
        and numbers[0, -1] == -1
        and np.isnan(scores[0, -1])
        and 0 not in numbers[0]
    )
    with pytest.raises(ValueError, match="k is 0; expected at least 1"):
        built.search(vectors, 0)


def test_vectors_of_another_size_are_refused(built):
    with pytest.raises(
        ValueError, match=r"queries of shape \(1, 64\); expected queries x 768, from the feature 'thumbnail'"
    ):
        built.search(np.ones((1, 64)), 3)


def test_no_query_has_no_result():
    x = cloud(SKETCH_FROM)
    for index in (make_index(x, names(len(x)), TOY), make_index(x[:50], names(50), TOY, "euclidean")):
        scores, numbers = index.search(x[:0], 5, [])
        assert scores.shape == numbers.shape == (0, 5)


@pytest.mark.parametrize("kind, least", [("hnsw", 0.95), ("ivfpq", 0.95)])
def test_approximate_search_finds_nearly_all(kind, least):
    x = cloud(6000)
    index, exact = (make_index(x, names(6000), TOY, kind=name) for name in (kind, "flat"))
    found, truth = (one.search(x[:100], 10)[1] for one in (index, exact))
    by_hand = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found, truth, strict=True)])
    assert by_hand >= least
    assert recall_against_exact(exact, x) == 1
    assert recall_against_exact(index, x, n_queries=6000) == pytest.approx(by_hand, abs=0.05)


def test_a_sketch_is_exact_or_steps_back():
    x = cloud(SKETCH_FROM)
    index = make_index(x, names(len(x)), TOY)
    assert index.sketch
    answered = 0
    for i in range(30):
        answered += index.sketch.search(x[i : i + 1], 5) is not None
        np.testing.assert_array_equal(
            index.search(x[i : i + 1], 5)[1], index.searcher.search(x[i : i + 1], 5)[1]
        )
    assert answered > 0
    same = np.repeat(x[:1], SKETCH_FROM, 0)
    assert (
        make_index(same, names(len(same)), TOY).sketch.search(x[:1], 5) is None
    )  # It cannot tell twins apart


@pytest.mark.parametrize("n", [5, 800])  # Fewer images than dimensions, and more
def test_whitening_of_a_few_images_and_many_copies_knows_only_the_axes_that_vary(n):
    rng = np.random.default_rng(0)
    few = rng.uniform(0, 255, (5, 64)).astype(np.float32)
    few[:, 3] = 77
    x = few[np.arange(n) % 5]
    feature = Feature("few", 8, "L", 64, np.asarray)
    index = make_index(x, names(n), feature, "whitened")
    scores, _ = index.search(x, 1)
    assert np.isfinite(scores).all() and scores[:, 0] == pytest.approx(np.ones(n), abs=1e-3)
    kept = int(index.config["recipe"].split(",")[0][4:])
    assert (
        kept == min(64, (n - 1) // 2)
        and make_index(few[:3], names(3), feature, "whitened").search(few[:3], 3)[0].max() <= 1 + 1e-6
    )
    assert index.search(few[:1] * 0 + x.mean(0), 3)[0].shape == (1, 3)


def test_whitening_keeps_a_small_spread_around_a_large_mean():
    x = (cloud(400) * 0.5 + 3000).astype(np.float32)
    index = make_index(x, names(400), TOY, "whitened")
    centred = x.astype(float) - x.mean(0, dtype=float)
    values, axes = np.linalg.eigh(centred.T @ centred)
    white = centred @ axes / np.sqrt(values)
    white /= np.linalg.norm(white, axis=1, keepdims=True)
    scores, numbers = index.search(x[:5], 400)
    for i in range(5):
        np.testing.assert_allclose(scores[i], (white @ white[i])[numbers[i]], atol=0.02)


def test_a_vector_that_is_not_finite_is_named(built):
    x = cloud(5)
    x[3, 2] = np.nan
    with pytest.raises(ValueError, match="3.png: its vector holds NaN or infinite numbers .1 do."):
        make_index(x, names(5), TOY)
    with pytest.raises(ValueError, match="queries of the feature 'thumbnail' hold NaN"):
        built.search(np.full((1, 768), np.inf), 1)


def lossy(x, similarity):
    "An index of few cells of which one is looked into, on the vectors as they are."
    index = make_index(x, names(len(x)), TOY, similarity)
    metric = _without_transforms(index.searcher).metric_type
    cells = faiss.index_factory(32, "IVF24,Flat", metric)
    cells.train(x)
    cells.add(x)
    return Index(cells, index.config | dict(kind="ivfpq"), index.rows)


@pytest.mark.parametrize("similarity", ["euclidean", "cosine"])
@pytest.mark.parametrize("copies", [1, 4])
def test_recall_is_that_of_vectors_that_differ(copies, similarity):
    few = np.random.default_rng(0).normal(size=(600, 32)).astype(np.float32)
    few /= np.linalg.norm(few, axis=1, keepdims=True) if similarity == "cosine" else 1
    x = np.repeat(few, copies, 0)
    index, by_hand = lossy(x, similarity), []
    for q in few:  # Every vector asks once, its copies aside
        order = np.argsort(
            -(few @ q) if similarity == "cosine" else np.square(few - q).sum(1), kind="stable"
        )[1:11]
        found = {number // copies for number in index.searcher.search(q[None], 11 * copies)[1][0]}
        by_hand.append(len(found & set(order)) / 10)
    assert 0.1 < np.mean(by_hand) < 0.7
    assert recall_against_exact(index, x, n_queries=600) == pytest.approx(np.mean(by_hand), abs=0.01)


def test_copies_do_not_make_a_good_index_look_bad_nor_a_bad_one_good():
    x = cloud(900)
    good = make_index(np.repeat(x, 5, 0), names(4500), TOY, kind="hnsw")
    assert (
        recall_against_exact(good, np.repeat(x, 5, 0)) >= 0.9
    )  # By row numbers, which of five copies is found is chance
    crowd = np.concatenate([np.repeat(x[:1], 4000, 0), x[:400]])
    index = lossy(crowd, "euclidean")
    assert (
        recall_against_exact(index, crowd) < 0.9
    )  # Ten of eleven queries, taken from all rows, would find nothing but copies


def test_ivfpq_counts_vectors_that_differ():
    x = np.repeat(cloud(400), 5, 0)
    with pytest.raises(TooFewVectors, match="ivfpq: 400 different vectors; expected at least 1000"):
        make_index(x, names(2000), TOY, kind="ivfpq")
