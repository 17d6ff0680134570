"All published numbers beside what a run measured, and what its networks have seen."

import json
import shutil
from dataclasses import replace

import pandas as pd
import pytest

from deepfake_nbs.claims import save_claims, save_verdicts
from deepfake_nbs.classifiers import numbers
from deepfake_nbs.classifiers.verdicts import learning_claims
from deepfake_nbs.core import write_json
from deepfake_nbs.settings import read_settings


@pytest.fixture
def claims(tmp_path):
    return numbers.published_beside(tmp_path / "none", "claims", numbers.MEASURED)


def test_a_run_fills_lines_and_loses_none(tmp_path, claims):
    measured = claims.assign(measured="0.5", status=["measured", *["not yet"] * (len(claims) - 1)])
    measured.to_csv(tmp_path / "claims.csv", index=False)
    found = numbers.published_beside(tmp_path, "claims", numbers.MEASURED)
    assert found["id"].tolist() == claims["id"].tolist() and found["status"].value_counts()["measured"] == 1
    assert found["published"].tolist() == claims["published"].tolist()


def test_progress_counts_results_and_leaves_settings_out(claims):
    results = claims[~numbers.is_setting(claims)]
    table = numbers.progress_table(results.assign(status="measured"))
    assert table["published"].sum() == table["measured"].sum() == len(results) < len(claims)
    assert not results["id"].str.startswith("table1-").any()


@pytest.mark.parametrize(
    "rows, limit, expected",
    [
        ((1, 2, 3, 4, 5, 6, 7, 8, 9), 3, "trains every run of table 2."),
        ((1, 2, 3, 4, 5, 6, 7, 8), 24, "does not train run 9: their numbers are gaps."),
        (
            (1, 3),
            3,
            "does not train runs 2, 4, 5, 6, 7, 8, 9: their numbers are gaps. Numbers after epochs 8",
        ),
    ],
)
def test_the_sentence_names_what_is_not_trained(tmp_path, claims, rows, limit, expected):
    (tmp_path / "claims.csv").write_text("id\n")
    settings = replace(
        read_settings("smoke"), rows=rows, epoch_limit=limit, protocol_rows=(), schedule_rows=()
    )
    said = numbers.progress_sentence(claims, claims, settings, tmp_path, "data/miniature")
    assert expected in said and said.startswith(f"Run `{tmp_path.name}`, seed 42: 0 of ")
    assert ("this profile stops at" in said) == (limit == 3 and len(rows) < 9)


def test_the_sentence_names_what_was_not_trained_yet(tmp_path, claims):
    (tmp_path / "claims.csv").write_text("id\n")
    some = claims["id"].str.fullmatch(r"table2-[1-7]-test_accuracy")
    claims = claims.assign(status=claims["status"].mask(some, "measured"))
    said = numbers.progress_sentence(claims, claims, read_settings("full"), tmp_path, "data/miniature")
    assert "these numbers lack runs 8, 9, which the profile has not trained yet" in said


def test_a_precision_of_a_finished_run_that_has_none_is_undefined(claims):
    claims = numbers.add_photographs(claims)
    row = claims["id"].eq("table2-1-test_accuracy")
    claims.loc[row, ["real measured", "measured"]] = ["0.71249", "0.5"]
    claims.loc[claims["id"].str.startswith("table2-1-precision"), "real measured"] = ""
    view = numbers.results_view(claims)
    assert view.loc[row, ["real measured", "measured"]].values.tolist() == [["0.712", "0.500"]]
    assert view.loc[claims["id"].str.startswith("table2-1-precision"), "real measured"].eq("undefined").all()


def test_counts_have_no_digits_and_every_other_number_three(claims):
    claims = numbers.add_photographs(claims).set_index("id", drop=False)
    claims.loc["datasets-challenge-images", "measured"] = "1600"
    claims.loc["retrieval-common", ["measured", "low", "high"]] = ["4.0", "4.078", "4.76"]
    view = numbers.results_view(claims)
    assert view.loc["datasets-challenge-images", "measured"] == "1600"
    assert view.loc["retrieval-common", ["measured", "low", "high"]].tolist() == ["4.000", "4.078", "4.760"]


def test_published_values_inside_an_interval_are_counted_and_a_page_has_a_title(claims):
    inside, outside = (
        f"the published value lies {word} the interval; 192 px." for word in ("inside", "outside")
    )
    results = pd.DataFrame({"reason": [inside, outside, "no run."], "real reason": [inside, inside, ""]})
    results = results.assign(verdict="not comparable", **{"real verdict": "not comparable"})
    said = numbers.inside_sentence(results, "miniature")
    assert "for 1 of 2 results on embedded data and 2 of 2 results on photographs. That confirms none" in said
    assert "confirms none" not in numbers.inside_sentence(results.assign(verdict="compatible"), "miniature")
    pages = numbers.titled_pages(claims[["notebook"]])["page"]
    assert "Head detection" in set(pages) and not pages.str.match(r"\d\d").any()


def test_networks_say_what_they_have_seen(run, tmp_path):
    record = dict(counts=dict(train=7), backbone_weights="none", weights_sha256=None)
    copy = tmp_path / "run"
    (copy / "head_detection" / "phase2").mkdir(parents=True)
    write_json(copy / "head_detection" / "phase2" / "run.json", record)
    (copy / "training").symlink_to(run / "training")
    (copy / "cvcs_dfd").symlink_to(run / "cvcs_dfd")
    (copy / "cvcs_cropped_dfd").symlink_to(run / "cvcs_cropped_dfd")
    table = numbers.networks_table(copy).set_index("network")
    assert {"run 1", "run 8", "head detector"} <= set(table.index)
    assert table.loc["head detector", ["images", "weights"]].tolist() == [7, ""]
    kept = json.loads((run / "training" / "8" / "run.json").read_text())
    assert kept["weights_sha256"].startswith(table.loc["run 8", "weights"])
    assert "never seen a person" in numbers.networks_sentence(table, "miniature")
    assert "`photos`" in numbers.networks_sentence(table, "photos")
    assert "`miniature`" in numbers.networks_sentence(pd.DataFrame(), "miniature")


# --- verdicts on both sides ---


@pytest.fixture
def project(root, tmp_path, monkeypatch):
    shutil.copytree(root / "papers" / "original", tmp_path / "papers" / "original")
    (tmp_path / "papers" / "results").mkdir()
    shutil.copy(root / "settings.ini", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def keep(project, profile, auc, value=0.7, size=192, epochs=25, run=8):
    "Made-up kept results of one run, with the interval of its validation AUC."
    place = project / "papers" / "results" / f"{profile}-real.csv"
    head = "id,published,measured,low,high,n,protocol,data,status"
    rows = [f"table2-{run}-test_accuracy,.867,{value},{value - 0.05},{value + 0.05},900,group,real,measured"]
    rows += [f"table2-{run}-validation_auc,,{sum(auc) / 2},{auc[0]},{auc[1]},900,group,real,measured"]
    place.write_text("\n".join([head, *rows]) + "\n")
    record = dict(config=dict(image_size=size, width=1.0), epochs=epochs, crop=True)
    write_json(place.with_suffix(".json"), dict(training={str(run): record}))


def both_sides(project):
    claims = numbers.published_beside(project / "none", "claims", numbers.MEASURED)
    claims = numbers.add_photographs(numbers.add_verdicts(claims, project / "none"))
    return claims[~numbers.is_setting(claims)]


def test_every_one_of_75_results_has_a_verdict_and_a_reason_on_both_sides(project):
    results = both_sides(project)
    for side in ("", "real "):
        assert len(results) == 75 and set(results[f"{side}verdict"]) == {"not measured", "impossible"}
        assert results[f"{side}reason"].str.endswith(".").all()
    assert results["real reason"].str.contains("no run on photographs is kept").sum() == 70
    assert results["reason"].str.contains("`none` is not on this machine").sum() == 70
    said = numbers.verdicts_sentence(results, "miniature")
    assert (
        said.count("75 of 75 published results have a verdict") == 2
        and "5 impossible, 70 not measured" in said
    )
    assert not results["id"].str.startswith("conclusion-").any()


def test_kept_results_simply_appear_and_the_larger_budget_wins(project):
    keep(project, "mini", (0.6, 0.8))
    row = both_sides(project).set_index("id").loc["table2-8-test_accuracy"]
    assert (row["real measured"], row["real profile"], row["real learned"]) == ("0.7", "mini", "learned")
    assert row["real verdict"] == "not comparable" and "192 px instead of 299" in row["real reason"]
    keep(project, "full", (0.6, 0.8), value=0.86, size=299)
    row = both_sides(project).set_index("id").loc["table2-8-test_accuracy"]
    assert (row["real profile"], row["real verdict"]) == ("full", "compatible")
    missing = both_sides(project).set_index("id").loc["table2-2-test_accuracy"]
    assert (missing["real verdict"], missing["real reason"]) == ("not measured", "run 2 was not trained.")


def test_no_cell_comes_from_a_network_that_did_not_learn(project):
    keep(project, "smoke", (0.6, 0.8))  # The smallest profile is not shown, whatever it says
    assert both_sides(project)["real measured"].eq("").all()
    keep(project, "full", (0.45, 0.6), value=0.5)
    results = both_sides(project)
    view = numbers.results_view(results).assign(id=results["id"]).set_index("id")
    row = view.loc["table2-8-test_accuracy"]
    assert row[["real measured", "real low", "real learned"]].tolist() == [
        "did not learn",
        "",
        "did not learn",
    ]
    assert (
        row["real verdict"] == "not comparable"
        and "validation AUC 0.525 [0.450, 0.600]" in row["real reason"]
    )
    keep(project, "mini", (0.6, 0.8))
    row = both_sides(project).set_index("id").loc["table2-8-test_accuracy"]
    assert (row["real profile"], row["real measured"]) == ("mini", "0.7"), (
        "one that learned goes before a larger budget"
    )


def test_the_numbers_of_a_run_get_verdicts_from_its_records(project, run):
    copy = project / "smoke-noise"
    copy.mkdir()
    for name in ("training", "cvcs_dfd", "cvcs_cropped_dfd"):
        (copy / name).symlink_to(run / name)
    save_claims([dict(id="table2-8-test_accuracy", measured=0.9, low=0.8, high=0.95, n=6)], copy)
    save_claims(learning_claims(copy), copy)
    claims = numbers.add_verdicts(numbers.published_beside(copy, "claims", numbers.MEASURED), copy)
    row = claims.set_index("id").loc["table2-8-test_accuracy"]
    assert row["verdict"] == "not comparable" and row["reason"].startswith("the published value lies inside")
    assert row["learned"] in ("learned", "did not learn", "unknown")
    save_verdicts(claims, copy)
    kept = pd.read_csv(copy / "claims.csv", dtype=str).set_index("id")
    assert kept.loc["table2-8-test_accuracy", "verdict"] == "not comparable"
    assert kept.loc["table2-2-test_accuracy", ["verdict", "status"]].tolist() == ["not measured", "not yet"]


# --- A long table in a browser ---


LINES = pd.DataFrame(
    {"id": ["b", "a2", "a10", "c"], "measured": ["10.5", "", "did not learn", ".9"], "n": [9, 10, 100, 1]}
)
SHOWN = """return [...document.querySelectorAll('tbody tr')].filter(row => !row.hidden).map(
  row => row.cells[arguments[0]].innerText)"""


@pytest.mark.parametrize("width", [1400, 390])
def test_headings_sort_a_table_by_click_and_by_keyboard(browser, tmp_path, width):
    page = tmp_path / "page.html"
    page.write_text(f"<!doctype html><meta charset=utf-8>{numbers.filtered_html(LINES, 'id')}")
    browser.set_window_size(width, 900)
    browser.get(page.as_uri())
    buttons = browser.find_elements("css selector", "th button")
    states = "return [...document.querySelectorAll('th')].map(head => head.getAttribute('aria-sort'))"
    assert [button.text for button in buttons] == list(LINES)
    assert browser.execute_script(states) == ["none"] * 3

    buttons[1].click()
    assert browser.execute_script(SHOWN, 1) == [".9", "10.5", "did not learn", ""]
    assert browser.execute_script(states) == ["none", "ascending", "none"]
    buttons[1].click()
    assert browser.execute_script(SHOWN, 1) == ["10.5", ".9", "did not learn", ""]
    assert browser.execute_script(states) == ["none", "descending", "none"]

    browser.switch_to.active_element.send_keys("\ue004")  # Tab, to the next heading
    browser.switch_to.active_element.send_keys("\ue007")  # Enter
    assert browser.execute_script(SHOWN, 2) == ["1", "9", "10", "100"]
    buttons[0].send_keys(" ")
    assert browser.execute_script(SHOWN, 0) == ["a2", "a10", "b", "c"]
    assert browser.execute_script(states) == ["ascending", "none", "none"]

    browser.find_element("css selector", "input").send_keys("a")
    assert browser.execute_script(SHOWN, 0) == ["a2", "a10"]  # "did not learn" stands in the line of a10
    assert not [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]


def test_a_table_for_reading_has_value_and_interval_in_one_column_and_both_reasons():
    side = dict(measured="0.7", low="0.6", high="0.8", n="90", verdict="compatible", reason="inside `it`.")
    other = {f"real {key}": "" for key in side} | {"real verdict": "not measured", "real reason": "no run."}
    line = dict(section="5", claim="Run 1", published=".85") | side | other
    read = numbers.reading_view(pd.DataFrame([line])).iloc[0]
    assert read["measured [95 % interval]"] == "0.7 [0.6, 0.8]" and read["photographs [95 % interval]"] == ""
    assert read["why"] == "inside it. Photographs: no run."
    same = numbers.reading_view(pd.DataFrame([line | {"real reason": "inside `it`."}])).iloc[0]
    assert same["why"] == "inside it."
