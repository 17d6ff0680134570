"""Tables, claims and sentences made from saved runs."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.head_samples import TINY
from PIL import Image

from deepfake_nbs.heads import report
from deepfake_nbs.core import set_seed
from deepfake_nbs.heads.cropping import show_crops
from deepfake_nbs.heads.data import HeadSet, build_head_set
from deepfake_nbs.heads.detector import HeadBox
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
    assert results[["phase", "chosen_by"]].to_numpy().tolist() == [
        [p, c] for p in ("phase1", "phase2") for c in ("loss", "ap")
    ]
    claims = {row["id"]: row for row in claim_rows(results, trained[1], film)}
    assert set(claims) == {
        f"heads-{phase}-{what}"
        for phase in ("phase1", "phase2")
        for what in ("map", "batch_size", "iterations", "epochs")
    }
    assert (
        claims["heads-phase2-map"]["n"] == len(film.split("test"))
        and claims["heads-phase2-iterations"]["measured"] == 2
    )
    assert {row["protocol"] for row in claims.values()} == {"group"}
    assert show_results(results)["published"].tolist() == [0.85, 0.85, 0.88, 0.88]
    published = pd.read_csv(
        Path(__file__).resolve().parents[2] / "papers/original/claims.csv", index_col="id"
    )["published"]
    assert {phase: float(published[f"heads-{phase}-map"]) for phase in ("phase1", "phase2")} == published_ap()


def test_lists_that_divide_a_film_are_reported(copy, tmp_path, run, film, trained):
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
    fresh_ap = compare_fresh(film, trained[1], n_resamples=5)
    assert (
        0 <= fresh_ap["value"] < 0.5
        and np.isnan(fresh_ap["low"])
        and fresh_ap["n"] == len(film.split("test"))
    )
    assert "film" in fresh_ap["why"] and fresh_ap["films"] < 10, "frames of a few films are no interval"
    set_seed(TINY.seed)
    fresh = EfficientDet().state_dict()

    def see_all(model, images, anchors):
        assert all(torch.equal(value, fresh[key]) for key, value in model.state_dict().items())
        assert images.paths == film.split("test") and images.image_size == 64 and not images.augment
        rows = [(path, *box, 0.9) for path in images.paths for box in film.boxes[path]]
        return pd.DataFrame(rows, columns=["path", "x0", "y0", "x1", "y1", "score"]), 0.0

    monkeypatch.setattr(report, "detect_split", see_all)
    assert compare_fresh(film, trained[1], n_resamples=5)["value"] == pytest.approx(1)


def test_targets_and_chance_level_are_compared():
    fresh = pd.Series(dict(value=0.1, low=0.05, high=0.15, n=40))
    good, weak = pd.Series(dict(ap50=0.851, low=0.8, high=0.9)), pd.Series(dict(ap50=0.3, low=0.1, high=0.5))
    assert "is **reached**: 0.851. " in describe_targets(good, fresh, embedded=True)
    assert "is **missed**: 0.300. " in describe_targets(weak, fresh, embedded=True)
    for row, words in ((good, "0.800, is above"), (weak, "0.100, is **not** above")):
        sentence = describe_targets(row, fresh, embedded=False)
        assert (
            words in sentence
            and "target" not in sentence
            and "0.100 [0.050, 0.150] (n=40 frames)" in sentence
        )
    perfect, chance = (
        pd.Series(dict(ap50=1.0, low=1.0, high=1.0)),
        pd.Series(dict(value=0.0, low=0.0, high=0.0, n=40)),
    )
    sentence = describe_targets(perfect, chance, embedded=False)
    assert (
        "second phase, 1.000 (no interval: all resamples agree), is above" in sentence and "[" not in sentence
    )
    few = pd.Series(dict(ap50=0.9, low=np.nan, high=np.nan, why="4 films"))
    assert "second phase, 0.900 (no interval: 4 films), has no interval to compare with" in describe_targets(
        few, fresh, embedded=False
    )


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


def record_of(**more):
    counts = dict(train=16, validation=4, test=40)
    config = dict(phi=0, image_size=64, seed=42)
    return (
        dict(
            run="phase2",
            counts=counts,
            epochs=dict(loss=1, ap=2),
            threshold=0.625,
            data="film",
            config=config,
            seed=42,
            backbone_weights="none",
        )
        | more
    )


def result_lines(heads=90, **more):
    lines = [
        dict(phase=phase, chosen_by=name, ap50=ap, low=ap - 0.1, high=ap + 0.1, why="", n=40, heads=heads)
        for phase, ap in (("phase1", 0.4), ("phase2", 0.8))
        for name in ("loss", "ap")
    ]
    return pd.DataFrame(lines).assign(**more)


def test_the_finding_names_both_phases_and_both_criteria():
    results = result_lines()
    results.loc[2, ["ap50", "low", "high"]] = 0.7, 0.6, 0.8
    sentence = report.describe_results(results, synthetic=False)
    assert sentence == (
        "AP50 on the test split is 0.400 [0.300, 0.500] after the first phase and 0.800 [0.700, 0.900] after the second "
        "(n=40 frames, 90 heads). The epoch with the lowest validation loss gives 0.700 [0.600, 0.800] after the second phase."
    )
    assert report.describe_results(results, synthetic=True).endswith("cannot be ranked.")
    assert report.describe_results(result_lines(heads=0), synthetic=False).startswith(
        "No test frame shows a head"
    )


@pytest.mark.parametrize(
    "phi, name", [(0, "EfficientDet-D0"), (3, "EfficientDet-D3"), ("lite0", "EfficientDet-Lite0")]
)
def test_networks_have_the_names_of_the_literature(phi, name):
    assert report.network_name(phi) == name


def test_tables_of_a_page_have_words():
    phase = dict(name="phase2", batch_size=4, iterations=75, epochs=10, freeze_norm=True, learning_rate=0.1)
    record = record_of(phase=phase, learned=9, wall_seconds=60.0, images_per_second=2.0, device="cpu")
    shown = report.show_phases(dict(phase2=record))["second phase"]
    assert shown["batches an epoch"] == 4 and shown["batch norms frozen"] == "yes"  # 16 frames, 4 a batch
    assert "iterations" not in shown and "name" not in shown and "learned" not in shown
    counts = pd.DataFrame(dict(source=["A"], images=[8], fraction_dropped=[0.125], more_heads=[1]))
    assert show_crops(counts).to_dict("records") == [
        {"source": "A", "images": 8, "fraction dropped": "12.5%", "several heads detected": 1}
    ]


def test_frames_and_weights_are_described(film):
    sentence = report.describe_frames(film, record_of())
    assert sentence.startswith(
        "18 frames with 12 heads, 6 frames without heads; 16 for train, 4 for validation, 40 for test"
    )
    assert "no film in two splits. 0 entries in rejected.csv." in sentence
    assert "The network is EfficientDet-D0; its backbone started from **random weights**" in sentence
    frames = film.frames.assign(group="one film")
    leaking = HeadSet(film.root, film.folder, frames, film.boxes, pd.DataFrame(dict(what=["frame", "frame"])))
    sentence = report.describe_frames(leaking, record_of(backbone_weights="imagenet"))
    assert (
        "**1 film is in more than one split** of this set's lists, so the splits leak. 2 entries in rejected.csv: 2 frame."
        in sentence
    )
    assert sentence.endswith("its backbone started from ImageNet weights.")
    assert report.describe_backbone(record_of(backbone_weights="imagenet")) == ""
    assert report.describe_backbone(record_of()).startswith("**Without ImageNet weights")


def test_the_criteria_are_compared_and_ties_are_named():
    pytest.importorskip("torchmetrics")
    metrics = pd.DataFrame(
        dict(value=[0.6, 0.7], low=[0.5, 0.6], high=[0.7, 0.8], why=""), index=["ap", "ap75"]
    )
    history = pd.DataFrame(dict(epoch=[1, 2, 3], validation_ap50=[0.5, 0.9, 0.9]))
    sentence = report.describe_criteria(record_of(), history, dict(ap=metrics, loss=metrics))
    assert sentence.startswith(
        "Validation AP50 chooses epoch 2, with test AP 0.600 and AP75 0.700 [0.600, 0.800]; "
    )
    assert (
        "validation loss chooses epoch 1, with test AP" in sentence
        and "0.900 at 2 of 3 epochs (2, 3), so it does not" in sentence
    )
    same = report.describe_criteria(
        record_of(epochs=dict(loss=2, ap=2)), history[:2], dict(ap=metrics, loss=metrics)
    )
    assert same.endswith("validation loss chooses the same epoch (n=40 frames).")
    assert sentence.endswith("the lowest validation loss among them decided.")
    every = history.assign(validation_ap50=1.0)
    assert "is 1.000 at all 3 epochs, so" in report.describe_criteria(
        record_of(), every, dict(ap=metrics, loss=metrics)
    )
    assert "phase2" in report.describe_used(record_of()) and "a score of 0.62," in report.describe_used(
        record_of()
    )


@pytest.mark.parametrize(
    "value, n, words",
    [
        (0.5, 4, "4 test frames show no head; the mean number of heads detected in them is 0.50"),
        (float("nan"), 0, "Every test frame of this data root shows a head"),
    ],
)
def test_false_heads_are_described(value, n, words):
    metrics = pd.DataFrame(
        [dict(value=value, low=np.nan, high=np.nan, n=n, why="2 films")],
        index=["false_heads_per_headless_frame"],
    )
    assert report.describe_false_heads(metrics).startswith(words)


def test_dropped_images_and_an_unreliable_detector_are_reported():
    whole = pd.DataFrame(dict(split=["train"] * 6 + ["test"] * 4))
    assert report.describe_crops(whole[:9], whole).startswith("9 of 10 images were cropped (10.0% dropped). ")
    assert "(3 and 4 images)" in report.describe_crops(whole[:9], whole)
    assert report.describe_crops(whole, whole).startswith("All 10 images were cropped: ")
    assert report.describe_reliability(
        0.5
    ) == "" and "AP50 of 0.499 this detector" in report.describe_reliability(0.499)
    limits = report.describe_limits(record_of(), synthetic=False)
    assert "one seed (42), at 64 pixels, on 16 frames of `film`" in limits and "224,740 frames" in limits
    assert "synthetic" not in limits and "synthetic" in report.describe_limits(record_of(), synthetic=True)


def test_heads_are_counted_by_size():
    boxes = {
        "a": np.array([[0, 0, 20, 20], [0, 0, 32, 32], [0, 0, 50, 60]], float),
        "b": np.array([[0, 0, 200, 100]], float),
    }
    frames = pd.DataFrame(dict(path=["a", "b"], split="test"))
    heads = HeadSet(Path("."), Path("."), frames, boxes, pd.DataFrame())
    names = ["ap", "ap50_95_small", "ap50_95_medium", "ap50_95_large", "false_heads_per_headless_frame"]
    counted = report.count_by_size(pd.DataFrame(index=names), heads)
    assert counted["heads"].tolist() == [4, 2, 2, 1, 0]  # A side of 32 counts in both sizes


def test_figures_show_what_they_are_given():
    images = [Image.new("RGB", (8, 6), "tan")] * 5
    fig = report.show_grid(images, [[(0, 0, 4, 4)]] * 5, [["0.90"]] * 5, list("abcde"), n_columns=3)
    assert [ax.get_title() for ax in fig.axes] == ["a", "b", "c", "d", "e", ""]
    assert [len(ax.patches) for ax in fig.axes] == [1] * 5 + [0] and fig.axes[0].texts[0].get_text() == "0.90"
    fig = report.plot_detections(images[:2], [[HeadBox((0.0, 0.0, 4.0, 4.0), 0.5)], []])
    assert [ax.get_title() for ax in fig.axes] == ["1 heads", "0 heads"]
    assert len(report.show_grid([]).axes) == 1


def test_examples_show_every_kind_before_a_second_of_one():
    kinds = dict(source=["A", "B", "C"] * 5, label=[0, 1, 1] * 5, method=["none", "m", "n"] * 5)
    manifest = pd.DataFrame(kinds).assign(split="test", width=4, height=3)
    chosen = report.choose_examples(manifest, limit=4)
    assert chosen["source"].tolist() in (["A", "A", "B", "C"], ["A", "B", "B", "C"], ["A", "B", "C", "C"])
    assert report.describe_examples(chosen, manifest) == "All 3 kinds of source and label are shown."
    assert report.describe_examples(chosen[:1], manifest) == "Only 1 of 3 kinds of source and label fit."
    assert report.example_titles(manifest[:2]) == ["A, real", "B, fake: m"]
    assert report.example_titles(manifest[:2], sizes=True) == ["A, real\n4 x 3", "B, fake\n4 x 3"]
