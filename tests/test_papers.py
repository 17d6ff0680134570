"""What the report published, as data: complete, consistent with itself, and what its arithmetic allows."""

import csv
import re
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
import yaml
from scipy.optimize import linprog

ROOT = Path(__file__).resolve().parents[1]
ORIGINAL = ROOT / "papers" / "original"
PAGES = {path.stem for path in (ROOT / "nbs").glob("[0-9a-z]*.ipynb")}
LIBRARY = {path.stem for path in (ROOT / "nbs" / "library").glob("[0-9]*.ipynb")}

# A second transcription, by columns, to check the files against.
TABLE_1 = """
1 no xception adam .001 16 20 | 2 yes midway adam .001 16 20 | 3 no midway adam .001 16 20 | 4 yes midway momentum .001 16 20
5 yes midway momentum .01 16 20 | 6 yes light adam .001 16 20 | 7 yes xception adam .001 8 25 | 8 yes xception adam .001 16 25
9 no xception adam .001 16 15
"""
TABLE_2 = """
1 .85 .85 .82 .87 .72 .92 | 2 .76 .843 .77 .87 .73 .89 | 3 .835 .897 .96 .87 .70 .98 | 4 .755 .824 .73 .86 .72 .87
5 .764 .776 .62 .89 .82 .75 | 6 .803 .849 .74 .91 .82 .86 | 7 .763 .778 .89 .696 .60 .93 | 8 .867 .867 .79 .91 .82 .89
9 .893 .896 .97 .88 .71 .99
"""
OTHERS = """
datasets-challenge-images 15000 datasets-challenge-real 10000 datasets-challenge-fake 5000
datasets-faceforensics-originals 1000 datasets-faceforensics-methods 4
datasets-heads-heads 369846 datasets-heads-frames 224740 datasets-heads-films 21
heads-phase1-batch_size 32 heads-phase1-iterations 1000 heads-phase1-epochs 50 heads-phase1-map .85
heads-phase2-batch_size 4 heads-phase2-iterations 10000 heads-phase2-epochs 50 heads-phase2-map .88
retrieval-common 5 retrieval-different 5
baselines-svm-accuracy .6756 baselines-forest-accuracy .5843 baselines-forest-accuracy_later .6753
baselines-forest-trees 500 baselines-codebook-words 256
training-dropout .5 training-decay .05 training-decay_epochs 5
epoch-8-accuracy .8800 epoch-8-precision_0 .8428 epoch-8-precision_1 .8980 epoch-8-recall_0 .7811 epoch-8-recall_1 .9297
epoch-24-accuracy .8668
"""
CONCLUSIONS = """
independence cosine features_differ small_c gaussian_kernel 500_trees adam run_3 many_real cropping whole_midway midway
midway_crops light more_epochs epoch_8
""".split()
ARTIFACTS = [*(f"fig-{i}" for i in range(1, 10)), "table-1", "table-2", "fig-our-faces-1", "fig-our-faces-2"]


def read(name):
    with open(ORIGINAL / name, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def transcribed(text):
    return [row.split() for row in text.strip().replace("\n", "|").split("|")]


def published():
    return {row["id"]: row["published"] for row in read("claims.csv")}


# The files


@pytest.mark.parametrize(
    "name, columns",
    [
        ("claims.csv", "id section claim published unit notebook"),
        ("artifacts.csv", "id kind title section notebook"),
        ("table1.csv", "row crop net optimiser learning_rate batch_size epochs"),
        ("table2.csv", "row validation_accuracy test_accuracy precision_0 precision_1 recall_0 recall_1"),
    ],
)
def test_files_have_their_columns_and_no_empty_cell(name, columns):
    rows = read(name)
    assert list(rows[0]) == columns.split()
    for row in rows:
        assert all(value and value == value.strip() for value in row.values()), row


@pytest.mark.parametrize("name, text", [("table1.csv", TABLE_1), ("table2.csv", TABLE_2)])
def test_tables_equal_a_second_transcription(name, text):
    assert [list(row.values()) for row in read(name)] == transcribed(text)


def test_every_cell_of_both_tables_is_a_claim_with_the_same_value():
    claims = published()
    for number in (1, 2):
        for row in read(f"table{number}.csv"):
            for column, value in list(row.items())[1:]:
                assert claims[f"table{number}-{row['row']}-{column}"] == value


def test_claims_are_the_cells_of_the_tables_and_the_other_numbers_and_nothing_else():
    words = OTHERS.split()
    others = dict(zip(words[::2], words[1::2], strict=True))
    rest = {id: value for id, value in published().items() if not id.startswith(("table", "conclusion-"))}
    assert rest == others
    assert len(published()) == len(read("claims.csv")) == len(others) + 9 * 6 + 9 * 6 + len(CONCLUSIONS)


def test_conclusions_are_directions_of_a_section():
    rows = [row for row in read("claims.csv") if row["id"].startswith("conclusion-")]
    assert [row["id"].removeprefix("conclusion-") for row in rows] == CONCLUSIONS
    assert {(row["published"], row["unit"], row["notebook"]) for row in rows} == {
        ("yes", "direction", "conclusions")
    }
    assert {row["section"] for row in rows} == {"2", "4", "5", "5.2"}


def test_claims_are_numbers_unless_their_unit_is_text():
    for row in read("claims.csv"):
        if row["unit"] == "direction":
            assert row["published"] == "yes"
        elif row["unit"] == "text":
            assert row["published"] in {"yes", "no", "xception", "midway", "light", "adam", "momentum"}
        else:
            assert Decimal(row["published"]) > 0
            assert row["unit"] != "share" or Decimal(row["published"]) <= 1


def test_artifacts_are_all_there_and_their_chapters_exist():
    rows = read("artifacts.csv")
    assert [row["id"] for row in rows] == ARTIFACTS
    assert all(row["kind"] == ("table" if row["id"].startswith("table") else "figure") for row in rows)
    assert {row["notebook"] for row in rows} <= PAGES | LIBRARY


def test_claims_name_pages_of_the_report():
    assert {row["notebook"] for row in read("claims.csv")} <= PAGES


# References


def bibliography():
    text = (ROOT / "papers" / "references.bib").read_text(encoding="utf-8")
    parts, entries = re.split(r"^% (?:Part two|The report itself).*$", text, flags=re.M), []
    for part, body in enumerate(parts):
        found = re.findall(r"^@(\w+)\{([^,\s]+),\n(.*?)^\}", body, flags=re.M | re.S)
        entries += [
            (part, key, dict(re.findall(r"^\s+(\w+)\s*=\s*\{(.*)\},?$", fields, flags=re.M)))
            for _, key, fields in found
        ]
    return text, entries


def test_bibliography_is_well_formed():
    text, entries = bibliography()
    assert text.count("{") == text.count("}")
    assert len(entries) == len(re.findall(r"^@", text, flags=re.M)), "an entry did not parse"
    keys = [key for _, key, _ in entries]
    assert len(keys) == len(set(keys))
    for _, key, fields in entries:
        assert {"author", "title", "year"} <= set(fields), f"{key}: author, title or year is missing"
        assert re.fullmatch(r"[a-z]+\d{4}[a-z0-9]+", key), key
        assert re.fullmatch(r"(19|20)\d\d", fields["year"]) and fields["year"] in key, key
        assert re.fullmatch(r"\d{4}\.\d{5}|\d{4}\.\d{4}", fields.get("eprint", "1234.56789")), key
        assert all(value.count("{") == value.count("}") for value in fields.values()), key


def test_the_report_cites_seventeen_works_and_is_cited_itself():
    _, entries = bibliography()
    assert sum(part == 0 for part, _, _ in entries) == 17
    assert [key for part, key, _ in entries if part == 1] == ["govi2022report"]


# What the published numbers say about each other

METRICS = ("precision_0", "precision_1", "recall_0", "recall_1")
# Fractions of (real called real, real called fake, fake called fake, fake called real): what each metric divides by what
PARTS = {
    "recall_0": ([1, 0, 0, 0], [1, 1, 0, 0]),
    "recall_1": ([0, 0, 1, 0], [0, 0, 1, 1]),
    "precision_0": ([1, 0, 0, 0], [1, 0, 0, 1]),
    "precision_1": ([0, 0, 1, 0], [0, 1, 1, 0]),
    "test_accuracy": ([1, 0, 1, 0], [1, 1, 1, 1]),
}


def rounded(text):
    "Values that print as `text` when rounded."
    unit = Decimal(1).scaleb(Decimal(text).as_tuple().exponent)
    return float(Decimal(text) - unit / 2), float(Decimal(text) + unit / 2)


def cut(text):
    "Values that print as `text` when their further digits are dropped."
    return float(Decimal(text)), float(Decimal(text)) + 10.0 ** Decimal(text).as_tuple().exponent


def loose(text):
    "Values within a whole last digit of `text`."
    unit = 10.0 ** Decimal(text).as_tuple().exponent
    return float(text) - unit, float(text) + unit


def real_fraction(row, metrics, interval=rounded):
    "Smallest and largest fraction of real images in a test set with all `metrics` of `row`; None where none has."
    limits = []
    for name in metrics:
        part, whole = (np.array(side, float) for side in PARTS[name])
        low, high = interval(row[name])
        limits += [low * whole - part, part - high * whole]
    ends = []
    for sign in (1, -1):
        found = linprog(
            sign * np.array([1.0, 1, 0, 0]),
            np.array(limits),
            np.zeros(len(limits)),
            np.ones((1, 4)),
            [1],
            bounds=(0, 1),
        )
        if found.status != 0:
            return None
        ends.append(sign * found.fun)
    return tuple(ends)


def runs_of_table_2(but=()):
    return [pytest.param(row, id=f"run{row['row']}") for row in read("table2.csv") if row["row"] not in but]


def test_the_fraction_of_a_known_test_set_is_found():
    # 300 real, 700 fake; 240 and 630 are right
    row = dict(
        recall_0=".8",
        recall_1=".9",
        precision_0=f"{240 / 310:.6f}",
        precision_1=f"{630 / 690:.6f}",
        test_accuracy=".87",
    )
    exact = {name: f"{float(value):.6f}" for name, value in row.items()}
    assert real_fraction(exact, [*METRICS, "test_accuracy"]) == pytest.approx((0.3, 0.3), abs=1e-4)
    assert real_fraction(exact | {"test_accuracy": ".920000"}, [*METRICS, "test_accuracy"]) is None


@pytest.mark.parametrize("row", runs_of_table_2(but="7"))
def test_precision_and_recall_imply_a_third_of_real_images(row):
    low, high = real_fraction(row, METRICS)
    assert low <= 0.34 and high >= 0.32
    assert 0.30 < low < high < 0.35


def test_run_7_was_read_on_another_test_set():
    low, high = real_fraction(read("table2.csv")[6], METRICS)
    assert 0.495 < low < high < 0.51


@pytest.mark.parametrize("row", runs_of_table_2())
def test_runs_3_and_7_are_impossible_and_the_others_are_not(row):
    fraction = real_fraction(row, [*METRICS, "test_accuracy"])
    if row["row"] in "37":
        assert fraction is None
    else:
        assert 0.31 < fraction[0] < fraction[1] < 0.35


@pytest.mark.parametrize(
    "interval, impossible", [(rounded, {"3", "7"}), (cut, {"7", "8", "9"}), (loose, {"7"})]
)
def test_only_run_7_is_impossible_however_the_digits_were_dropped(interval, impossible):
    rows = read("table2.csv")
    assert {
        row["row"] for row in rows if real_fraction(row, [*METRICS, "test_accuracy"], interval) is None
    } == impossible


def test_run_3_agrees_once_one_of_three_cells_is_set_aside():
    row = read("table2.csv")[2]
    agree = {
        left
        for left in [*METRICS, "test_accuracy"]
        if real_fraction(row, {*METRICS, "test_accuracy"} - {left})
    }
    assert agree == {"test_accuracy", "precision_1", "recall_0"}


def test_the_eighth_epoch_agrees_only_with_an_accuracy_of_two_digits():
    claims = published()
    epoch = {name: claims[f"epoch-8-{name}"] for name in METRICS} | {
        "test_accuracy": claims["epoch-8-accuracy"]
    }
    low, high = real_fraction(epoch, METRICS)
    assert 0.325 < low < high < 0.326
    assert real_fraction(epoch, [*METRICS, "test_accuracy"]) is None
    assert real_fraction(epoch | {"test_accuracy": ".88"}, [*METRICS, "test_accuracy"]) is not None


def test_the_last_epoch_of_run_8_is_its_line_in_table_2():
    claims = published()
    assert f"{float(claims['epoch-24-accuracy']):.3f}" == f"{float(claims['table2-8-test_accuracy']):.3f}"


def test_always_fake_is_about_as_good_as_the_published_svm():
    low, high = real_fraction({name: published()[f"epoch-8-{name}"] for name in METRICS}, METRICS)
    svm = float(published()["baselines-svm-accuracy"])
    assert abs((1 - low) - svm) < 0.002 and abs((1 - high) - svm) < 0.002
    assert not 1 - high <= svm <= 1 - low  # near, but not the same number


def test_challenge_counts_add_up():
    claims = {id: int(value) for id, value in published().items() if id.startswith("datasets-challenge")}
    assert (
        claims["datasets-challenge-real"] + claims["datasets-challenge-fake"]
        == claims["datasets-challenge-images"]
    )


# Citation and licence


def test_citation_file_is_valid_and_gives_no_address_but_that_of_the_report():
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    cff = yaml.safe_load(text)
    assert cff["cff-version"] == "1.2.0" and cff["message"] and cff["title"] and cff["type"] == "software"
    assert cff["authors"] == [{"name": "The deepfake_nbs contributors"}]
    assert not {"repository-code", "repository", "url", "doi"} & set(cff)
    (report,) = [one for one in cff["references"] if one["type"] == "report"]
    assert re.findall(r"https?://\S+", text.replace('"', " ")) == [report["url"]]
    assert all({"family-names", "given-names"} <= set(author) for author in report["authors"])
    for reference in cff["references"]:
        assert {"type", "title", "authors"} <= set(reference)


def test_licence_is_apache_2():
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert (
        "Apache License" in text
        and "Version 2.0, January 2004" in text
        and "END OF TERMS AND CONDITIONS" in text
    )
