"Contracts of the recipes: the runs of Table 1, profiles, experiments, names."

from dataclasses import replace

import pytest
from noise_run import TINY

from deepfake_nbs import runs
from deepfake_nbs.classifiers import recipes, training
from deepfake_nbs.classifiers.recipes import (
    TrainingConfig,
    drop_empty,
    profile_config,
    run_config,
    run_name,
    table_config,
)
from deepfake_nbs.core import file_sha256
from deepfake_nbs.settings import read_settings


pytestmark = pytest.mark.usefixtures("one_thread")


def test_rows_are_those_of_the_report():
    table = {
        1: ("no", "xception", "adam", 0.001, 16, 20),
        2: ("yes", "midway", "adam", 0.001, 16, 20),
        3: ("no", "midway", "adam", 0.001, 16, 20),
        4: ("yes", "midway", "momentum", 0.001, 16, 20),
        5: ("yes", "midway", "momentum", 0.01, 16, 20),
        6: ("yes", "light", "adam", 0.001, 16, 20),
        7: ("yes", "xception", "adam", 0.001, 8, 25),
        8: ("yes", "xception", "adam", 0.001, 16, 25),
        9: ("no", "xception", "adam", 0.001, 16, 15),
    }
    for row, (crop, net, optimiser, rate, batch, epochs) in table.items():
        expected = TrainingConfig(
            row=row,
            crop=crop == "yes",
            net=net,
            optimiser=optimiser,
            learning_rate=rate,
            batch_size=batch,
            epochs=epochs,
        )
        assert table_config(row) == expected
        assert (expected.image_size, expected.width, expected.dropout, expected.class_weights) == (
            299,
            1.0,
            0.5,
            True,
        )


@pytest.mark.parametrize(
    "field, value",
    [
        ("net", "resnet"),
        ("optimiser", "sgd"),
        ("schedule", "linear"),
        ("precision", "half"),
        ("patience", -1),
        ("weight_decay", -0.1),
        ("protocol", "frames"),
        ("learning_rate", 0.0),
        ("learning_rate", -1.0),
        ("learning_rate", float("nan")),
        ("batch_size", 1),
        ("epochs", 0),
        ("image_size", 8),
        ("width", 0.0),
        ("dropout", 1.0),
        ("workers", -1),
        ("seed", -1),
        ("learning_rate", "abc"),
        ("epochs", 2.5),
        ("seed", 1.5),
        ("patience", True),
        ("net", 3),
        ("weights", None),
        ("class_weights", 1),
        ("crop", "no"),
        ("dropout", "half"),
        ("width", False),
    ],
)
def test_an_impossible_value_is_named(field, value):
    with pytest.raises(ValueError, match=field):
        replace(TINY, **{field: value})


def test_an_unknown_run_lists_the_known():
    with pytest.raises(
        ValueError,
        match="run number is 0, expected one of Table 1: 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13$",
    ):
        table_config(0)


def test_a_profile_lowers_and_never_raises():
    settings = replace(read_settings("smoke"), epoch_limit=7, image_size=64, width=0.25, seed=5)
    config = profile_config(8, settings)
    assert (config.epochs, config.image_size, config.width, config.seed) == (7, 64, 0.25, 5)
    assert profile_config(9, replace(settings, epoch_limit=99)).epochs == 15
    assert profile_config(9, replace(settings, epoch_limit=0)).epochs == 15


def test_an_experiment_never_takes_the_place_of_a_row():
    settings = read_settings("smoke")
    row = profile_config(8, settings)
    kept = run_config(
        8,
        settings,
        **drop_empty(
            net="",
            optimiser="",
            learning_rate=0.0,
            batch_size=0,
            epochs=0,
            crop="",
            seed=0,
            protocol="",
            schedule="published",
        ),
    )
    assert kept == row and run_name(kept, settings) == "8"
    changes = [
        dict(net="midway"),
        dict(optimiser="momentum"),
        dict(learning_rate=0.01),
        dict(batch_size=8),
        dict(epochs=99),
        dict(crop="no"),
        dict(seed=7),
        dict(protocol="published"),
        dict(schedule="constant"),
        dict(image_size=32),
        dict(width=0.5),
        dict(dropout=0.1),
        dict(class_weights=False),
    ]
    names = [run_name(run_config(8, settings, **change), settings) for change in changes]
    assert len(set(names)) == len(changes) and all(name.startswith("custom-") for name in names)
    assert run_config(8, settings, crop="yes") == row
    assert run_config(8, settings, net="midway", optimiser="momentum", learning_rate=0.01).row == 0
    with pytest.raises(ValueError, match="crop is 'perhaps'"):
        run_config(8, settings, crop="perhaps")
    with pytest.raises(ValueError, match="unknown net 'vgg'"):
        run_config(8, settings, net="vgg")


def test_a_zero_that_was_typed_counts():
    settings = read_settings("smoke")
    changes = recipes.parse_changes(["dropout=0", "weight_decay=0", "seed=0", "patience=0", "workers=0"])
    config = run_config(11, settings, **changes)
    assert (
        config.row,
        config.dropout,
        config.weight_decay,
        config.seed,
        config.patience,
        config.workers,
    ) == (0, 0, 0, 0, 0, 0)
    assert run_config(8, settings, workers=0) == replace(profile_config(8, settings), workers=0), (
        "workers do not make another run"
    )
    for change, problem in (
        (dict(epochs=0), "epochs is 0"),
        (dict(learning_rate=0.0), "learning_rate is 0.0"),
        (dict(net=""), "net ''"),
    ):
        with pytest.raises(ValueError, match=problem):
            run_config(8, settings, **change)
    assert drop_empty(seed=0, window=0.0, net="", crop="no", class_weights=False) == dict(
        crop="no", class_weights=False
    )


def test_first_weights_are_known_by_their_content(tmp_path, monkeypatch):
    settings, paths = (
        read_settings("smoke"),
        [tmp_path / name / "model.safetensors" for name in ("a", "b", "c")],
    )
    for path, content in zip(paths, (b"one", b"two", b"one"), strict=True):
        path.parent.mkdir()
        path.write_bytes(content)
    configs = [run_config(8, settings, weights=str(path)) for path in paths]
    names = [run_name(config, settings) for config in configs]
    identities = [training.run_identity(config, "") for config in configs]
    assert names[0] == names[2] != names[1] and identities[0] == identities[2]
    assert names[0].endswith(f"weights{file_sha256(paths[0])[:8]}")
    assert runs.differing_keys(*identities[:2]) == [
        f"weights ({identities[1]['weights']!r}, not {identities[0]['weights']!r})"
    ]
    monkeypatch.setattr("deepfake_nbs.core.project_root", lambda: tmp_path)
    monkeypatch.chdir(tmp_path / "b")
    assert run_name(run_config(8, settings, weights="a/model.safetensors"), settings) == names[0], (
        "paths count from the project's folder"
    )
    with pytest.raises(FileNotFoundError, match="d/model.safetensors: no such file, expected none, imagenet"):
        run_name(run_config(8, settings, weights="d/model.safetensors"), settings)


def test_our_rows_follow_the_published_nine():
    assert replace(table_config(10), row=6, net="light") == table_config(6)
    assert (
        table_config(11).schedule == "cosine"
        and table_config(11).augment == "flip"
        and table_config(11).optimiser == "adamw"
    )
    assert table_config(11).window == 0.75
    assert profile_config(11, replace(read_settings("smoke"), image_size=96)).image_size == 128, (
        "windows of 96 pixels"
    )
    assert {row for row in read_settings("full").rows} == set(range(1, 14))
