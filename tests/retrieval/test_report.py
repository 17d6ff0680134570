"""Tables, sentences and figures of retrieval, and the page that shows them."""

import json
import math
import shutil
from pathlib import Path
from types import SimpleNamespace

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from deepfake_nbs import core
from deepfake_nbs.core import CLAIM_COLUMNS
from deepfake_nbs.retrieval.report import (
    compare_with_reported,
    is_reported,
    measurement_rows,
    overlap_table,
    plot_recall,
    select_combination,
)

ROOT = Path(__file__).resolve().parents[2]


def test_the_page_leaves_no_vectors_behind():
    page = json.loads((ROOT / "nbs" / "03_image_retrieval.ipynb").read_text(encoding="utf-8"))
    cells = ["".join(cell["source"]) for cell in page["cells"]]
    at = [i for i, source in enumerate(cells) if "clear_scratch(scratch)" in source]
    assert len(at) == 1 and at[0] > max(i for i, source in enumerate(cells) if "evaluate(" in source or "build_index(" in source)


def test_overlap_and_comparison_by_hand():
    common = dict(task="original", pool="all", distortion="none", group="g", fold="report", method="m", path="q")
    scores = pd.DataFrame([common | dict(feature="harris", similarity="cosine", first_hit_rank=2, ap=0.5, top=list(range(10))),
                           common | dict(feature="harris", similarity="euclidean", first_hit_rank=3, ap=0.3, top=list(range(5, 15))),
                           common | dict(feature="thumbnail", similarity="whitened", first_hit_rank=1, ap=0.9, top=list(range(20, 30)))])
    assert overlap_table(scores).common.tolist() == [5, 0, 0]
    assert select_combination(scores) == ("thumbnail", "whitened")
    found = compare_with_reported(scores, ("thumbnail", "whitened")).set_index("measure")
    assert found.which["map"] == "harris cosine" and found.difference["map"] == pytest.approx(0.4)
    with pytest.raises(ValueError, match="no combination beside the report's four"):
        select_combination(scores[is_reported(scores)])


def test_the_fold_that_selects_is_not_the_fold_that_reports():
    same = dict(task="original", pool="all", distortion="none", similarity="cosine", first_hit_rank=1, group="g")
    rows = [same | dict(fold=fold, feature=feature, ap=ap)
            for fold, feature, ap in (("selection", "phash", 0.9), ("selection", "thumbnail", 0.1),
                                      ("report", "phash", 0.1), ("report", "thumbnail", 0.9))]
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
    cell = next(source for cell in page["cells"] if "results-retrieval" in (source := "".join(cell["source"])))
    row = dict(pool="all", distortion="none", feature="phash", similarity="cosine", measure="map", value=0.5, low=0.4, high=0.6, n=9)
    tables = [pd.DataFrame([row | dict(task=name)]) for name in ("original", "person")]
    tasks = [SimpleNamespace(pool=range(n)) for n in (7, 5)]
    saved = {}
    found = dict(pd=pd, measurement_rows=measurement_rows, save_table=lambda df, name, *_: saved.update({name: df}),
                 build_index=lambda *args, **kwargs: None, run=Path("run"), notebook="page", name="toy", dataset=None, scratch=Path(),
                 table=tables[0], person_table=tables[1], original=tasks[0], person=tasks[1], pool=range(7),
                 features=dict(phash=None), chosen=("phash", "cosine"), settings=SimpleNamespace(retrieval_index="flat", workers=1))
    exec(cell, found)
    kept = saved["results-retrieval"].set_index("id").protocol
    assert kept["retrieval-original-all-none-phash-cosine-map"].startswith("pool of 7,")
    assert kept["retrieval-person-all-none-phash-cosine-map"].startswith("pool of 5,")


def test_measurements_that_the_report_has_no_id_for_are_kept(tmp_path, monkeypatch):
    run, root = tmp_path / "data" / "runs" / "smoke-toy", tmp_path
    (run / "tables").mkdir(parents=True)
    (run / "claims.csv").write_text(",".join(CLAIM_COLUMNS) + "\nretrieval-common,5,4,3,5,9,p,toy,measured\nother,1,,,,,,,not yet\n")
    (run / "tables" / "results-retrieval.csv").write_text(",".join(CLAIM_COLUMNS) + "\nretrieval-x,,0.5,0.4,0.6,9,p,toy,measured\n")
    shutil.copy(ROOT / "settings.ini", root)
    monkeypatch.setattr(core, "project_root", lambda: root)
    kept = pd.read_csv(core.keep_results("smoke", "data/toy")[0])
    assert kept.id.tolist() == ["retrieval-common", "retrieval-x"] and kept.measured.tolist() == [4, 0.5]
