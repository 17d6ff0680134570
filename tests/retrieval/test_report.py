"""Tables, sentences and figures of retrieval, and the page that shows them."""

import json
import math
import shutil
from pathlib import Path
from types import SimpleNamespace

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from helpers.retrieval_data import TOY, cloud, names

from deepfake_nbs import core, publishing, settings
from deepfake_nbs.claims import CLAIM_COLUMNS
from deepfake_nbs.retrieval.evaluation import overlap_table
from deepfake_nbs.retrieval.index import make_index
from deepfake_nbs.retrieval.report import (
    best_combination_sentence,
    classifier_sentence,
    compare_with_reported,
    compared_rows,
    comparison_sentence,
    explain_combinations,
    feature_table,
    index_sentence,
    is_reported,
    limits_sentence,
    measurement_rows,
    missing_sentence,
    original_finding,
    overlap_claims,
    overlap_sentence,
    person_finding,
    person_sentence,
    plot_recall,
    pool_sentence,
    reported_overlap,
    select_combination,
    selection_sentence,
    show_comparison,
    show_distortions,
    show_overlap,
)

ROOT = Path(__file__).resolve().parents[2]


def test_the_page_leaves_no_vectors_behind():
    page = json.loads((ROOT / "nbs" / "03_image_retrieval.ipynb").read_text(encoding="utf-8"))
    cells = ["".join(cell["source"]) for cell in page["cells"]]
    at = [i for i, source in enumerate(cells) if "clear_scratch(scratch)" in source]
    assert len(at) == 1 and at[0] > max(
        i for i, source in enumerate(cells) if "evaluate(" in source or "build_index(" in source
    )


def test_overlap_and_comparison_by_hand():
    common = dict(
        task="original", pool="all", distortion="none", group="g", fold="report", method="m", path="q"
    )
    scores = pd.DataFrame(
        [
            common
            | dict(feature="harris", similarity="cosine", first_hit_rank=2, ap=0.5, top=list(range(10))),
            common
            | dict(
                feature="harris", similarity="euclidean", first_hit_rank=3, ap=0.3, top=list(range(5, 15))
            ),
            common
            | dict(
                feature="thumbnail", similarity="whitened", first_hit_rank=1, ap=0.9, top=list(range(20, 30))
            ),
        ]
    )
    assert overlap_table(scores).common.tolist() == [5, 0, 0]
    assert select_combination(scores) == ("thumbnail", "whitened")
    found = compare_with_reported(scores, ("thumbnail", "whitened")).set_index("measure")
    assert found.which["map"] == "harris cosine" and found.difference["map"] == pytest.approx(0.4)
    with pytest.raises(ValueError, match="no combination beside the report's four"):
        select_combination(scores[is_reported(scores)])


def test_the_fold_that_selects_is_not_the_fold_that_reports():
    same = dict(
        task="original", pool="all", distortion="none", similarity="cosine", first_hit_rank=1, group="g"
    )
    rows = [
        same | dict(fold=fold, feature=feature, ap=ap)
        for fold, feature, ap in (
            ("selection", "phash", 0.9),
            ("selection", "thumbnail", 0.1),
            ("report", "phash", 0.1),
            ("report", "thumbnail", 0.9),
        )
    ]
    assert select_combination(pd.DataFrame(rows)) == ("phash", "cosine")


@pytest.mark.parametrize("largest, ticks", [(1, [1]), (5, [1, 5]), (11, [1, 5, 10]), (50, [1, 5, 10, 50])])
def test_recall_is_drawn_up_to_any_k_without_labels_that_touch(largest, ticks):
    scores = pd.DataFrame(dict(feature="harris", similarity="cosine", first_hit_rank=[1, 3, math.inf]))
    ax = plot_recall(scores, largest)
    ax.figure.canvas.draw()
    assert ax.get_xticks().tolist() == ticks
    plt.close(ax.figure)


def test_the_page_keeps_each_task_with_the_size_of_its_own_pool():
    page = json.loads((ROOT / "nbs" / "03_image_retrieval.ipynb").read_text(encoding="utf-8"))
    cell = next(
        source for cell in page["cells"] if "results-retrieval" in (source := "".join(cell["source"]))
    )
    row = dict(
        pool="all",
        distortion="none",
        feature="phash",
        similarity="cosine",
        measure="map",
        value=0.5,
        low=0.4,
        high=0.6,
        n=9,
    )
    tables = [pd.DataFrame([row | dict(task=name)]) for name in ("original", "person")]
    tasks = [SimpleNamespace(pool=range(n)) for n in (7, 5)]
    saved = {}
    found = dict(
        pd=pd,
        measurement_rows=measurement_rows,
        save_table=lambda df, name, *_: saved.update({name: df}),
        build_index=lambda *args, **kwargs: None,
        run=Path("run"),
        notebook="page",
        name="toy",
        dataset=None,
        scratch=Path(),
        table=tables[0],
        person_table=tables[1],
        original=tasks[0],
        person=tasks[1],
        pool=range(7),
        features=dict(phash=None),
        chosen=("phash", "cosine"),
        settings=SimpleNamespace(retrieval_index="flat", workers=1),
    )
    exec(cell, found)
    kept = saved["results-retrieval"].set_index("id").protocol
    assert kept["retrieval-original-all-none-phash-cosine-map"].startswith("pool of 7,")
    assert kept["retrieval-person-all-none-phash-cosine-map"].startswith("pool of 5,")


def test_measurements_that_the_report_has_no_id_for_are_kept(tmp_path, monkeypatch):
    run, root = tmp_path / "data" / "runs" / "smoke-toy", tmp_path
    (run / "tables").mkdir(parents=True)
    (run / "claims.csv").write_text(
        ",".join(CLAIM_COLUMNS)
        + "\nretrieval-common,5,4,3,5,9,p,toy,compatible,why,measured\nother,1,,,,,,,,,not yet\n"
    )
    (run / "tables" / "results-retrieval.csv").write_text(
        ",".join(CLAIM_COLUMNS) + "\nretrieval-x,,0.5,0.4,0.6,9,p,toy,,,measured\n"
    )
    shutil.copy(ROOT / "settings.ini", root)
    for module in (core, publishing, settings):
        monkeypatch.setattr(module, "project_root", lambda: root)
    kept = pd.read_csv(publishing.keep_results("smoke", "data/toy")[0])
    assert kept.id.tolist() == ["retrieval-common", "retrieval-x"] and kept.measured.tolist() == [4, 0.5]
    assert (root / "papers" / "results" / "smoke-toy.json").is_file()


# Sentences


def ranking(task="original", n=26, **values):
    "A ranking table by hand: recall@1 and map of each combination, without distortion, among all images."
    rows = [
        dict(
            task=task,
            pool="all",
            distortion="none",
            feature=name.split()[0],
            similarity=name.split()[1],
            measure=measure,
            value=value,
            low=value - 0.1,
            high=value + 0.1,
            why="",
            n=n,
        )
        for name, pair in values.items()
        for measure, value in zip(("recall@1", "map"), pair, strict=True)
    ]
    return pd.DataFrame(rows)


TABLE = ranking(
    **{"harris cosine": (0.5, 0.4), "thumbnail whitened": (0.75, 0.7), "phash cosine": (0.8, 0.6)}
)
CHOSEN = ("thumbnail", "whitened")
COMPARED = pd.DataFrame(
    [
        dict(
            pool="all",
            distortion="none",
            measure="recall@1",
            selected=0.75,
            reported=0.5,
            which="harris cosine",
            difference=0.25,
            low=0.1,
            high=0.4,
            why="",
            n=26,
            p=0.004,
            holm=0.008,
        ),
        dict(
            pool="all",
            distortion="blur",
            measure="recall@1",
            selected=0.5,
            reported=0.6,
            which="harris cosine",
            difference=-0.1,
            low=-0.3,
            high=0.1,
            why="",
            n=26,
            p=0.4,
            holm=0.4,
        ),
    ]
)


def test_the_page_opens_with_what_was_found():
    found = original_finding(TABLE, CHOSEN, COMPARED)
    assert found == (
        "The original of a fake is ranked first for a fraction of 0.750 [0.650, 0.850] of n=26 fakes by "
        "thumbnail whitened; by harris cosine, the only one measured of the report's 4 combinations, for 0.500 "
        "(paired difference +0.250 [+0.100, +0.400], net 6 of 26 queries; "
        "Holm-adjusted p .008 among 2 comparisons)."
    )
    unsure = original_finding(TABLE, CHOSEN, COMPARED.assign(holm=0.125))
    assert "Holm-adjusted p .125 among 2 comparisons: the two cannot be told apart)." in unsure
    assert "queries; not tested)." in original_finding(TABLE, CHOSEN, COMPARED.assign(holm=math.nan))
    two = ranking(
        **{"harris cosine": (0.5, 0.4), "harris euclidean": (0.4, 0.4), "thumbnail whitened": (0.7, 0.7)}
    )
    assert "the best of the 2 measured of the report's 4 combinations" in original_finding(
        two, CHOSEN, COMPARED
    )
    assert original_finding(TABLE, CHOSEN, COMPARED[:0]).endswith("by thumbnail whitened.")
    assert "was not measured" in original_finding(pd.DataFrame(), None, COMPARED[:0])
    assert "0.800 [0.700, 0.900] of n=26 queries by phash cosine, the best" in person_finding(TABLE)
    assert "was not measured" in person_finding(pd.DataFrame())
    tied = ranking(
        **{"phash cosine": (0.8, 0.6), "thumbnail cosine": (0.8, 0.5), "harris cosine": (0.1, 0.1)}
    )
    assert "by phash cosine and thumbnail cosine, tied as the best of 3 combinations" in person_finding(tied)


def test_the_combinations_of_a_sentence_are_explained():
    told = explain_combinations("by thumbnail whitened; by resnet18-random cosine and phash cosine")
    assert told.startswith("A combination is a feature and a similarity: *thumbnail* is the pixels")
    assert "*resnet18-random* is ResNet-18 with random weights" in told and "*resnet18* is" not in told
    assert "*whitened* is" in told and "*euclidean*" not in told
    assert explain_combinations("by phash alone") == ""


def test_a_page_shows_the_combinations_that_it_compares():
    more = {"phash euclidean": (0.1, 0.1), "phash whitened": (0.8, 0.1), "resnet18 cosine": (0.2, 0.1)}
    table = pd.concat([TABLE, ranking(**more)])
    shown = compared_rows(table, CHOSEN)
    names = (shown["feature"] + " " + shown["similarity"]).unique().tolist()
    assert names == [
        "harris cosine",
        "thumbnail whitened",
        "phash cosine",
        "phash whitened",
        "resnet18 cosine",
    ]
    person = show_distortions(TABLE.assign(task="person"))
    assert person.index.get_level_values("pool").unique().tolist() == ["photographs (n=26)"]
    assert "among" not in best_combination_sentence(TABLE.assign(task="person"), CHOSEN)


def test_four_queries_to_one_side_are_no_difference():
    same = dict(task="original", pool="all", distortion="none", fold="report", ap=0.5, similarity="cosine")
    rows = [
        same
        | dict(
            feature=feature,
            group=f"g{i}",
            path=f"{i}",
            first_hit_rank=1 if feature == "harris" or i > 3 else 2,
        )
        for feature in ("harris", "phash")
        for i in range(60)
    ]
    found = compare_with_reported(pd.DataFrame(rows), ("phash", "cosine")).set_index("measure")
    assert found.difference["recall@1"] == pytest.approx(-4 / 60)
    assert found.p["recall@1"] == pytest.approx(1 / 8, abs=0.02)  # Two of the 16 signs of four groups
    assert found.holm["recall@1"] > 0.2 and found.p["map"] == 1


def test_the_best_combination_is_named_and_the_place_of_the_selected_one():
    told = best_combination_sentence(TABLE, CHOSEN)
    assert (
        "recall@1 among all images: phash cosine, 0.800 [0.700, 0.900] (thumbnail whitened in place 2 of 3, 0.750"
        in told
    )
    assert (
        "mean average precision among all images: thumbnail whitened, 0.700" in told and "place 1" not in told
    )
    assert told.startswith(
        "The best without distortion, and the place of the selected thumbnail whitened (n=26 queries)"
    )
    assert best_combination_sentence(TABLE, None).startswith("The best without distortion (n=26 queries)")


def test_differences_are_counted_by_their_intervals():
    scores = pd.DataFrame(
        dict(feature=["harris", "harris", "thumbnail"], similarity=["cosine", "euclidean", "whitened"])
    )
    told = comparison_sentence(COMPARED, scores)
    assert told.startswith(
        "2 of the report's 4 combinations were measured; missing: resnet18 cosine, resnet18 euclidean. "
    )
    assert (
        "In 1 of 2 comparisons the selected one is better "
        "(sign-flip test over groups, Holm-adjusted p under .05), in 0 worse" in told
    )
    assert told.endswith("undistorted, all images, recall@1: 0.750, against 0.500 (harris cosine).")
    lost = comparison_sentence(COMPARED.assign(difference=-0.2, holm=0.01), scores)
    assert "In 0 of 2 comparisons the selected one is better" in lost and "under .05), in 2 worse" in lost
    unknown = dict(low=math.nan, high=math.nan, why="4 groups", p=math.nan, holm=math.nan)
    unsure = comparison_sentence(COMPARED.assign(**unknown), scores)
    assert "None of the 2 differences has an interval, so none can be told from zero" in unsure
    assert comparison_sentence(COMPARED[:0], scores) == ""
    shown = show_comparison(COMPARED)
    assert (
        len(shown.columns) == 8
        and shown["difference [95 % interval]"].tolist()[0] == "+0.250 [+0.100, +0.400]"
    )


def test_the_fold_of_each_number_is_said():
    scores = pd.DataFrame(dict(fold=["selection", "selection", "report"], path=["a", "b", "c"]))
    told = selection_sentence(scores, CHOSEN)
    assert told.startswith("Selected on 2 queries") and told.endswith(
        "**thumbnail whitened**. Reported on the other 1 queries."
    )
    assert selection_sentence(scores, None) == ""


def test_what_is_missing_is_said_with_its_reason():
    told = missing_sentence(
        dict(harris=None), dict(resnet18="resnet18: no network", classifier="no classifier yet")
    )
    assert "- **resnet18 is missing**: no network.\n- **classifier is missing**: no classifier yet." in told
    error = (
        "cannot download https://host/x.pth (Name or service not known); run once on a machine with a network"
    )
    told_plain = missing_sentence(dict(harris=None), dict(resnet18=error))
    assert "could not be downloaded" in told_plain and "https" not in told_plain
    assert "**So 2 of the report's 4 combinations are not measured here.**" in told
    assert missing_sentence(dict(resnet18=None), {}) == ""
    pool = pd.DataFrame(dict(label=[0, 0, 1]))
    assert pool_sentence(pool, 9, None).startswith(
        "The pool: 3 of the 9 images of CVCS DFD, 2 real and 1 fake. **No fake"
    )
    task = SimpleNamespace(queries=pd.DataFrame(dict(method=["StarGAN", "StarGAN", "FaceSwap"])), pool=pool)
    assert pool_sentence(pool, 9, task).endswith(
        "3 fakes are queries for their original: 2 StarGAN, 1 FaceSwap."
    )
    assert (
        person_sentence(task, True)
        == "3 queries, 3 images in the pool: images with the role of query and gallery."
    )
    assert "not measured" in person_sentence(None, False)


@pytest.mark.parametrize(
    "value, told",
    [(0.95, "not to tell images apart"), (0.6, "weak classifier"), (math.nan, "weak classifier")],
)
def test_the_classifier_behind_a_feature_is_described(value, told):
    auc = pd.Series(dict(value=value, low=0.5, high=0.99, why="", n=90))
    assert told in classifier_sentence(dict(row=8, image_size=64), auc)
    assert "run 8 at 64 pixels, without predictions" in classifier_sentence(dict(row=8, image_size=64), None)
    assert classifier_sentence(None, None) == ""
    assert "of run 12 (EfficientNet-Lite0) at 64 pixels" in classifier_sentence(
        dict(row=12, image_size=64), auc, "EfficientNet-Lite0"
    )
    features = dict(classifier=TOY)
    assert feature_table(features)[["feature", "what it is"]].values.tolist() == [
        ["classifier", "the layer before the last of a classifier of this run"]
    ]


def test_the_overlap_becomes_two_claims_and_a_sentence():
    overlap = pd.DataFrame(
        [
            dict(
                first="harris cosine", second="harris euclidean", common=4.2, low=3.0, high=5.0, why="", n=60
            ),
            dict(first="harris cosine", second="phash cosine", common=1.0, low=0.0, high=2.0, why="", n=60),
        ]
    )
    among = reported_overlap(overlap)
    common, different = overlap_claims(among, 400, "toy")
    assert (common["measured"], different["measured"], different["low"], different["high"]) == (
        4.2,
        5.8,
        5.0,
        7.0,
    )
    assert common["protocol"] == "harris cosine and harris euclidean, 400 images" and common["n"] == 60
    told = overlap_sentence(among, complete=True)
    assert (
        told
        == "harris cosine and harris euclidean have 4.20 [3.00, 5.00] of ten images in common, 5.80 are different (n=60). "
    )
    assert [claim["measured"] for claim in overlap_claims(among[:0], 400, "toy")] == [None, None]
    assert overlap_table(pd.DataFrame()).empty and show_overlap(among)["in common, of ten"].tolist() == [
        "4.20 [3.00, 5.00]"
    ]


def test_what_is_kept_and_what_limits_it():
    index = make_index(cloud(40), names(40), TOY)
    index.config["bytes"] = dict(index=4000, rows=800)
    assert index_sentence(index).endswith("toy, cosine, `L2norm,Flat`, 120 bytes each. Its search is exact.")
    index.config |= dict(kind="hnsw", recall_at_10=0.95, recall_of_itself=1.0)
    assert index_sentence(index).endswith(
        "hnsw finds 0.950 of what exact search finds (vectors that differ)."
    )
    assert index_sentence(None) == ""
    assert limits_sentence(400, 88, 16).startswith(
        "One pool of 400 images, and one of 88 for persons: expect lower numbers"
    )
    assert limits_sentence(400, None, 16).startswith("One pool of 400 images: expect")
