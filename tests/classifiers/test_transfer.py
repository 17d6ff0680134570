"Runs that leave a family of sources out: views without copies, resuming, tables and sentences, bad input."

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from noise_run import TINY
from typer.testing import CliRunner

from deepfake_nbs.application import cli
from deepfake_nbs.classifiers import transfer
from deepfake_nbs.classifiers.outliers import QUANTILE
from deepfake_nbs.classifiers.data import draw_noise
from deepfake_nbs.classifiers.outliers import read_outliers
from deepfake_nbs.classifiers.training import train_run
from deepfake_nbs.core import file_sha256
from deepfake_nbs.files import read_table, write_table
from deepfake_nbs.runs import TrainingError

pytestmark = pytest.mark.usefixtures("one_thread")
CONFIG = replace(TINY, row=12, net="light", epochs=1, batch_size=8)


def draw(folder, sources=("A", "B"), n=240):
    "Noise of several sources; every third image is of the second one."
    draw_noise(folder, n)
    table = read_table(folder / "manifest.csv")
    table["source"] = [sources[min(i % 3, len(sources) - 1) if i % 3 else 0] for i in range(len(table))]
    write_table(table, folder / "manifest.csv")
    return folder


@pytest.fixture(scope="module")
def left(tmp_path_factory):
    run = tmp_path_factory.mktemp("left") / "smoke-noise"
    draw(run / "cvcs_dfd")
    train_run(run, CONFIG, "12")
    assert transfer.leave_out_sources(run, CONFIG, device="cpu") == {}
    return run


@pytest.mark.parametrize(
    "rows, expected",
    [
        (
            [("CelebA", "a"), ("StarGAN", "a"), ("DFDC", "b")],
            {"CelebA+StarGAN": ["CelebA", "StarGAN"], "DFDC": ["DFDC"]},
        ),
        (
            [("A", "1"), ("B", "1"), ("B", "2"), ("C", "2"), ("D", "3")],
            {"A+B+C": ["A", "B", "C"], "D": ["D"]},
        ),
        ([("A", "1"), ("A", "2")], {"A": ["A"]}),
        ([("D", "4"), ("C", "3"), ("B", "2"), ("D", "3"), ("B", "4")], {"B+C+D": ["B", "C", "D"]}),
    ],
)
def test_families_are_joined_by_shared_groups(rows, expected):
    assert (
        transfer.source_families(pd.DataFrame(rows, columns=["source", "group"]).assign(label=0)) == expected
    )


def test_halves_of_one_set_are_joined_and_whole_families_are_not():
    rows = [
        ("FFHQ", 0, "a", "challenge/0-FFHQ/a.jpg"),
        ("STYLEGAN2", 1, "b", "challenge/1-STYLEGAN2/b.jpg"),
        ("CelebA", 0, "c", "challenge/0-CelebA/c.jpg"),
        ("StarGAN", 1, "c", "challenge/1-StarGAN/c.jpg"),
        ("LFW", 0, "d", "lfw/d.jpg"),
    ]
    frame = pd.DataFrame(rows, columns=["source", "label", "group", "origin"])
    assert list(transfer.source_families(frame)) == ["CelebA+StarGAN", "FFHQ+STYLEGAN2", "LFW"]
    assert list(transfer.source_families(frame.drop(columns="origin"))) == [
        "CelebA+StarGAN",
        "FFHQ",
        "LFW",
        "STYLEGAN2",
    ]


def manifest(*rows):
    return pd.DataFrame(rows, columns=["source", "label", "split"])


@pytest.mark.parametrize(
    "sources, reason",
    [
        (["A"], "only fake training images would be left"),
        (["B"], "no validation and no test image would be left"),
        (["A", "B"], "it is the only family of sources"),
    ],
)
def test_what_cannot_be_left_out_is_said(sources, reason):
    rows = [("A", 0, "train"), ("A", 1, "train"), ("B", 1, "train"), ("B", 1, "validation"), ("B", 1, "test")]
    assert transfer.why_not(manifest(*rows), sources) == reason


def test_a_view_has_fewer_rows_and_the_same_files(tmp_path):
    dataset = draw(tmp_path / "cvcs_dfd")
    view = transfer.write_view(dataset, ["B"], tmp_path / "leave_out" / "B" / "cvcs_dfd")
    kept = read_table(view / "manifest.csv")
    assert set(kept["source"]) == {"A"} and len(kept) < 240
    assert all((view / name).is_symlink() for name in ("train", "validation", "test"))
    assert (view / kept["path"][0]).samefile(dataset / kept["path"][0])
    moved = tmp_path.rename(tmp_path.with_name(f"{tmp_path.name}-moved"))
    assert (moved / "leave_out" / "B" / "cvcs_dfd" / kept["path"][0]).is_file(), "links are relative"
    with pytest.raises(ValueError, match="manifest.csv: without A, B it is the only family"):
        transfer.write_view(moved / "cvcs_dfd", ["A", "B"], moved / "x")


def test_every_image_is_scored_by_a_network_that_did_not_train_on_its_family(left):
    frames = transfer.read_scores(left)
    assert list(frames) == ["A", "B"]
    whole = read_table(left / "cvcs_dfd" / "manifest.csv")
    for name, frame in frames.items():
        assert len(frame) == whole["split"].ne("train").sum()
        assert frame["left_out"].eq(frame["source"].eq(name)).all()
        assert np.isfinite(frame[[*transfer.SCORES, "probability"]]).all(axis=None)
        record = json.loads((left / "leave_out" / name / "run" / "run.json").read_text())
        trained_on = read_table(left / "leave_out" / name / "cvcs_dfd" / "manifest.csv")
        assert record["counts"]["train"] == trained_on["split"].eq("train").sum() and name not in set(
            trained_on["source"]
        )
    kept = frames["B"][frames["B"]["left_out"].eq(0) & frames["B"]["split"].eq("test")].set_index("path")
    predictions = transfer.read_predictions(left / "leave_out" / "B" / "run").set_index("path")
    assert np.allclose(kept["probability"], predictions["probability"][kept.index], atol=1e-5)


def test_it_is_resumed_and_renewed(left, monkeypatch):
    scores = left / "leave_out" / "A" / "scores.csv"
    before = scores.read_bytes()
    monkeypatch.setattr(transfer, "score_left_out", lambda *_: pytest.fail("what is done is done"))
    assert transfer.leave_out_sources(left, CONFIG, device="cpu") == {}
    with pytest.raises(TrainingError, match="learning_rate"):
        transfer.leave_out_sources(left, replace(CONFIG, learning_rate=0.02), device="cpu")
    assert scores.read_bytes() == before
    with pytest.raises(ValueError, match="no family C; expected A, B"):
        transfer.leave_out_sources(left, CONFIG, ["C"], device="cpu")


def test_one_source_alone_and_a_source_with_few_images_are_reasons(tmp_path):
    draw(tmp_path / "one" / "cvcs_dfd", ("A",))
    assert transfer.leave_out_sources(tmp_path / "one", CONFIG, device="cpu") == {
        "A": "it is the only family of sources"
    }
    draw(tmp_path / "few" / "cvcs_dfd", ("A", "B"), n=60)
    reasons = transfer.leave_out_sources(tmp_path / "few", CONFIG, ["A"], device="cpu")
    assert "expected" in reasons["A"] and "images" in reasons["A"]


def test_a_run_gets_its_distance_beside_its_weights(left):
    folder = left / "training" / "12"
    outliers = transfer.fit_run_outliers(folder, "cpu")
    again = read_outliers(folder / "model", file_sha256(folder / "model" / "model.safetensors"))
    assert again.limit == outliers.limit and again.kinds == ("A, fake", "A, real", "B, fake", "B, real")
    assert transfer.fit_run_outliers(folder, "cpu").limit == pytest.approx(outliers.limit, rel=1e-5)


def scores(n=200, unlike=0.0, seed=0):
    "A table as a run leaves it: left-out images are `unlike`, and called at random."
    rng = np.random.default_rng(seed)
    parts = []
    for split in ("validation", "test"):
        for flag in (0, 1):
            label = np.arange(n) % 2
            logit = rng.normal(size=n) + (0 if flag else 6 * label - 3)
            frame = pd.DataFrame(dict(label=label, probability=1 / (1 + np.exp(-2 * logit))))
            frame = frame.assign(
                split=split,
                left_out=flag,
                source="AB"[flag],
                method="m",
                group=[f"{flag}{i}" for i in range(n)],
            )
            base = rng.random(n) + flag * unlike
            parts.append(
                frame.assign(
                    path=[f"{split}{flag}{i}" for i in range(n)],
                    distance=base,
                    energy=rng.random(n),
                    neighbours=rng.random(n),
                )
            )
    return pd.concat(parts, ignore_index=True)


def test_the_rule_takes_back_what_is_unlike():
    known, unlike = (transfer.transfer_row(scores(unlike=gap)) for gap in (0.0, 5.0))
    assert known["kept"] > 0.95 and 0.35 < known["left_out"] < 0.65 and known["kept_low"] < known["kept"]
    assert known["n"] == 200 and known["n_fakes"] == 100
    assert unlike["unlike"] == 1.0 and unlike["with_rule"] == 0.0 < unlike["fakes_called_real"]
    assert (
        known["unlike"] < 0.15
        and known["with_rule"] <= known["fakes_called_real"]
        and known["kept_unlike"] < 0.15
    )


def test_the_score_is_chosen_on_validation_alone():
    frame = scores(unlike=5.0)
    detected = transfer.detection_table(dict(B=frame))
    assert detected.loc["B", "distance"] == 1.0 and detected.loc["B", "energy"] < 0.2
    test = frame["split"].eq("test")
    assert transfer.detection_table(dict(B=frame.assign(distance=frame["distance"].where(~test, 0)))).equals(
        detected
    )
    assert "which is the best of them" in transfer.score_sentence(detected)
    other = detected.assign(energy=1.0, distance=0.0)
    assert "though energy is better here" in transfer.score_sentence(other)
    assert transfer.score_sentence(transfer.detection_table({})).endswith("not measured.")


def test_a_family_of_one_class_is_counted_without_an_auc(monkeypatch):
    frame = scores()
    frame = frame[frame["left_out"].eq(0) | frame["label"].eq(0)]
    row = transfer.transfer_row(frame)
    assert np.isnan(row["left_out"]) and row["left_out_why"] == "one class only" and row["n_fakes"] == 0
    table = pd.DataFrame([dict(family="B", known=np.nan) | row])
    view = transfer.transfer_view(table)
    assert view["AUC left out [95 % interval]"][0] == "one class only" and view.shape == (1, 8)
    assert "no family has both classes" in transfer.transfer_sentence(table)


def test_table_and_sentence(left, tmp_path):
    table = transfer.transfer_table(left)
    assert table["family"].tolist() == ["A", "B"] and table["known"].between(0, 1).all()
    text = transfer.transfer_sentence(table)
    assert all(f"{row.family} {row.left_out:.3f}" in text for row in table.itertuples()) and "nan" not in text
    assert transfer.transfer_table(left, "11")["known"].isna().all()
    absent = transfer.transfer_table(tmp_path)
    assert (
        absent.empty
        and "not measured; `deepfake-nbs train --leave-out-sources`" in transfer.transfer_sentence(absent)
    )
    assert transfer.transfer_view(absent).shape == (0, 8)


def test_the_command_says_what_was_found(left, monkeypatch):
    monkeypatch.setattr("deepfake_nbs.core.run_folder", lambda *_: left)
    monkeypatch.setattr("deepfake_nbs.classifiers.recipes.run_config", lambda *_, **__: CONFIG)
    words = ["train", "--leave-out-sources", "--run-number", "12"]
    done = CliRunner().invoke(cli.app, words)
    assert done.exit_code == 0 and "on a family that was left out: A" in done.stdout, done.output
    monkeypatch.setattr(
        transfer, "leave_out_sources", lambda *_, **__: {"A": "it is the only family of sources"}
    )
    done = CliRunner().invoke(cli.app, words)
    assert done.exit_code == 1 and "A is not left out: it is the only family" in done.stderr


def test_scores_by_hand():
    assert transfer.energy(np.array([[0.0, 0.0], [900.0, 0.0]])) == pytest.approx([-np.log(2), -900])
    near = transfer.neighbour_distance(np.eye(3), np.array([[2.0, 0, 0], [-1.0, 0, 0], [0, 0, 0]]), k=2)
    assert near == pytest.approx([2**0.5, 2**0.5, 2**0.5])
    assert transfer.neighbour_distance(np.eye(2), np.eye(2), k=1) == pytest.approx([0, 0], abs=1e-6)


def test_the_limit_narrows_until_few_left_out_fakes_are_called_real():
    far, near = scores(unlike=5.0), scores(unlike=0.3, seed=1)
    assert transfer.choose_quantile({}) == transfer.choose_quantile(dict(B=far)) == QUANTILE
    bounds = [transfer.most_called_real(near, q) for q in transfer.QUANTILES]
    assert bounds == sorted(bounds, reverse=True), "a narrower limit never lets more through"
    chosen = transfer.choose_quantile(dict(B=near, C=far))
    assert bounds[transfer.QUANTILES.index(chosen)] <= transfer.MOST_CALLED_REAL < bounds[0]
    assert transfer.QUANTILES[-1] <= chosen < QUANTILE
    row = transfer.transfer_row(near, chosen)
    assert row["quantile"] == chosen and row["kept_unlike"] > transfer.transfer_row(near)["kept_unlike"]


def test_the_limit_is_chosen_on_validation_and_counts_groups():
    frame = scores(unlike=0.0, seed=1)
    test = frame["split"].eq("test")
    other = frame.assign(probability=frame["probability"].where(~test, 0.0))
    assert transfer.choose_quantile(dict(B=other)) == transfer.choose_quantile(dict(B=frame))
    one = frame.assign(group=frame["group"].str[0])  # All left-out images are of one person
    assert transfer.most_called_real(one, 0.5) > transfer.most_called_real(frame, 0.5)
    assert transfer.choose_quantile(dict(B=one)) == transfer.QUANTILES[-1], "no limit is narrow enough"
    real = frame[frame["label"].eq(0) | frame["left_out"].eq(0)]
    assert np.isnan(transfer.most_called_real(real, 0.95))
    assert transfer.choose_quantile(dict(B=real)) == QUANTILE, "a family without a fake has no say"
