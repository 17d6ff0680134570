"Profiles of settings.ini: what is read, and what a wrong value gets."

from dataclasses import replace
import pytest
from deepfake_nbs.settings import read_settings


@pytest.mark.parametrize("profile", ["smoke", "mini", "full"])
def test_every_profile_reads(profile):
    settings = read_settings(profile)
    assert settings.name == profile and sum(settings.fractions) == pytest.approx(1) and settings.rows


def test_runs_are_configurations_and_pairs_on_both_splits():
    settings = replace(
        read_settings("smoke"), rows=(1, 3), protocol_rows=(1, 3), protocol_seeds=(2, 42), schedule_rows=(3,)
    )
    assert settings.runs == [
        "1",
        "3",
        "1-published",
        "3-published",
        "1-seed2",
        "1-seed2-published",
        "3-cosine",
    ]
    assert replace(settings, protocol_rows=(), schedule_rows=()).runs == ["1", "3"]


def test_more_runs_are_seeds_then_other_sizes_then_other_splits():
    rows = dict(rows=(1, 3), protocol_rows=(1, 3), protocol_seeds=(), schedule_rows=())
    settings = replace(
        read_settings("smoke"), **rows, seeds=(42, 1), seed_rows=(1, 3), more_runs=("1-128px", "3-seed1")
    )
    splits = ["1-pair", "3-pair", "1-seed1-published", "1-seed1-pair"]
    assert settings.seed_runs == ["1-seed1", "3-seed1", "1-128px", *splits]
    assert not {*settings.runs} & {*settings.seed_runs}, "the report does not grow"
    none = replace(settings, seeds=(), seed_rows=(), more_runs=(), protocol_rows=())
    assert none.seed_runs == []


def test_mini_trains_every_configuration_and_five_of_them_with_three_seeds():
    settings = read_settings("mini")
    assert settings.rows == tuple(range(1, 14)) and (settings.seed, *settings.seeds) == (42, 1, 2)
    assert settings.seed_rows == (1, 3, 8, 11, 12) and len(settings.paged_runs) < len(settings.runs)
    assert {"11-seed2", "1-256px", "11-192px", "1-pair", "1-seed2-published"} <= {*settings.seed_runs}


@pytest.mark.parametrize(
    "old, new, words",
    [
        ("image_limit = 800", "image_limt = 800", ["image_limt", "did you mean 'image_limit'"]),
        ("image_limit = 800", "image_limit = 4.5", ["image_limit = '4.5'", "expected int"]),
        ("\nrows = 1 2", "\nrows = one two", ["rows = 'one two", "expected"]),
        ("protocol_rows = 8", "protocol_rows = 99", ["protocol_rows is (99,)", "expected some of rows"]),
        ("schedule_rows = 8", "schedule_rows = 99", ["schedule_rows is (99,)", "expected some of rows"]),
        ("seed_rows =\n", "seed_rows = 99\n", ["seed_rows is (99,)", "expected some of rows"]),
        ("seeds =\n", "seeds = one\n", ["seeds = 'one'", "expected"]),
        ("more_runs =\n", "more_runs = 99-128px\n", ["'99-128px'", "expected one of rows"]),
        ("balance = false", "balance = perhaps", ["balance = 'perhaps'", "expected bool"]),
        ("train_fraction = 0.70", "train_fraction = 0.90", ["fractions", "add up to 1"]),
        ("train_fraction = 0.70", "train_fraction = nan", ["fractions", "add up to 1"]),
        ("split_protocol = group", "split_protocol = frames", ["split_protocol", "'group' or 'published'"]),
        ("seed = 42", "", ["'seed' is missing"]),
        ("width = 0.25", "width = 0", ["width is 0", "above 0"]),
        ("head_network = lite0", "head_network = lite1", ["head_network is 'lite1'", "2, 3 or 'lite0'"]),
        ("head_network = lite0", "head_network = 7", ["head_network is '7'", "2, 3 or 'lite0'"]),
        ("epoch_limit = 2", "epoch_limit = -1", ["epoch_limit is -1", "0 or more"]),
    ],
)
def test_bad_settings_name_the_key(tmp_path, root, old, new, words):
    text = (root / "settings.ini").read_text()
    assert old in text
    (tmp_path / "settings.ini").write_text(
        text.replace(old, new, 1) if "seed" not in old else text.replace(old, new)
    )
    with pytest.raises(ValueError) as error:
        read_settings("smoke", tmp_path / "settings.ini")
    assert all(word in str(error.value) for word in words) and "settings.ini" in str(error.value)


def test_the_network_of_heads_is_a_number_or_lite0():
    assert read_settings("full").head_network == 0 and read_settings("smoke").head_network == "lite0"


def test_unknown_profile_and_missing_file(tmp_path):
    with pytest.raises(ValueError, match="did you mean 'mini'"):
        read_settings("minni")
    with pytest.raises(FileNotFoundError, match="nothing.ini"):
        read_settings("smoke", tmp_path / "nothing.ini")
