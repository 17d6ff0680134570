"""Tables, claims and sentences made from saved runs."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from head_samples import TINY

from deepfake_nbs.heads import report
from deepfake_nbs.core import set_seed
from deepfake_nbs.heads.data import build_head_set
from deepfake_nbs.heads.network import EfficientDet
from deepfake_nbs.heads.report import (
    claim_rows,
    compare_fresh,
    describe_targets,
    published_ap,
    read_training,
    results_table,
    show_results,
)
from deepfake_nbs.runs import TrainingError


def test_results_and_claims(run, film, trained):
    pytest.importorskip("torchmetrics")
    results = results_table(run, film, n_resamples=10)
    assert results[["phase", "chosen_by"]].to_numpy().tolist() == [[p, c] for p in ("phase1", "phase2") for c in ("loss", "ap")]
    claims = {row["id"]: row for row in claim_rows(results, trained[1], film)}
    assert set(claims) == {
        f"heads-{phase}-{what}" for phase in ("phase1", "phase2") for what in ("map", "batch_size", "iterations", "epochs")
    }
    assert claims["heads-phase2-map"]["n"] == len(film.split("test")) and claims["heads-phase2-iterations"]["measured"] == 2
    assert {row["protocol"] for row in claims.values()} == {"group"}
    assert show_results(results)["published"].tolist() == [0.85, 0.85, 0.88, 0.88]
    published = pd.read_csv(Path(__file__).resolve().parents[2] / "papers/original/claims.csv", index_col="id")["published"]
    assert {phase: float(published[f"heads-{phase}-map"]) for phase in ("phase1", "phase2")} == published_ap()


def test_lists_that_cut_a_film_are_said_to(copy, tmp_path, run, film, trained):
    assert (film.films_across_splits, film.protocol) == ([], "group")
    (copy / "Splits/test.txt").write_text((copy / "Splits/test.txt").read_text() + "mov_001_000000\n")
    names = (copy / "Splits/train.txt").read_text().split()
    (copy / "Splits/train.txt").write_text("\n".join(name for name in names if name != "mov_001_000000"))
    heads = build_head_set(copy, tmp_path / "set", progress=False)
    assert (heads.films_across_splits, heads.protocol) == (["HollywoodHeads:mov_001"], "lists")
    pytest.importorskip("torchmetrics")
    rows = claim_rows(results_table(run, film, n_resamples=2), trained[1], heads)
    assert {row["protocol"] for row in rows} == {"lists"}


def test_a_fresh_network_is_measured_on_the_same_frames(film, trained, monkeypatch):
    pytest.importorskip("torchmetrics")
    honest = compare_fresh(film, trained[1], n_resamples=5)
    assert 0 <= honest["value"] < 0.5 and np.isnan(honest["low"]) and honest["n"] == len(film.split("test"))
    assert "film" in honest["why"] and honest["films"] < 10, "frames of a few films are no interval"
    set_seed(TINY.seed)
    fresh = EfficientDet().state_dict()

    def see_all(model, images, anchors):
        assert all(torch.equal(value, fresh[key]) for key, value in model.state_dict().items())
        assert images.paths == film.split("test") and images.image_size == 64 and not images.augment
        rows = [(path, *box, 0.9) for path in images.paths for box in film.boxes[path]]
        return pd.DataFrame(rows, columns=["path", "x0", "y0", "x1", "y1", "score"]), 0.0

    monkeypatch.setattr(report, "detect_split", see_all)
    assert compare_fresh(film, trained[1], n_resamples=5)["value"] == pytest.approx(1)


def test_targets_are_judged():
    fresh = pd.Series(dict(value=0.1, low=0.05, high=0.15, n=40))
    good, weak = pd.Series(dict(ap50=0.851, low=0.8, high=0.9)), pd.Series(dict(ap50=0.3, low=0.1, high=0.5))
    assert "is **reached**: 0.851. " in describe_targets(good, fresh, embedded=True)
    assert "is **missed**: 0.300. " in describe_targets(weak, fresh, embedded=True)
    for row, words in ((good, "0.800, is above"), (weak, "0.100, is **not** above")):
        sentence = describe_targets(row, fresh, embedded=False)
        assert words in sentence and "target" not in sentence and "0.100 [0.050, 0.150] (n=40 frames)" in sentence
    perfect, chance = pd.Series(dict(ap50=1.0, low=1.0, high=1.0)), pd.Series(dict(value=0.0, low=0.0, high=0.0, n=40))
    sentence = describe_targets(perfect, chance, embedded=False)
    assert "second phase, 1.000 (no interval: all resamples agree), is above" in sentence and "[" not in sentence
    few = pd.Series(dict(ap50=0.9, low=np.nan, high=np.nan, why="4 films"))
    assert "second phase, 0.900 (no interval: 4 films), has no interval to compare with" in describe_targets(few, fresh, embedded=False)


def test_a_page_refuses_a_run_of_other_data(run, film, trained):
    weights = run / "head_detection/phase2/model/model.safetensors"
    kept = weights.read_bytes()
    weights.write_bytes(kept[:-4] + b"0000")
    with pytest.raises(TrainingError, match="not what phase2 was trained with"):
        read_training(run, film)
    weights.write_bytes(kept)
    assert list(read_training(run, film)) == ["phase1", "phase2"]
    with pytest.raises(FileNotFoundError, match="not finished"):
        read_training(run / "elsewhere", film)
