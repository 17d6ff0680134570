"The waterfall by hand: differences, sums, intervals, and what is said where nothing can be measured."

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from deepfake_nbs.audit import defect_study as study
from deepfake_nbs.audit import defect_systems as systems
from deepfake_nbs.audit.defect_systems import AuditBudget
from deepfake_nbs.audit.defects import system_switches

NAMES = system_switches("words")


def by_hand(on):
    "The first switch adds .10, the second .04, but .01 only beside the first; the last costs .20; two seeds."
    number = 0.5 + 0.10 * (NAMES[0] in on) + 0.04 * (NAMES[1] in on) - 0.20 * (NAMES[-1] in on)
    number -= 0.03 * (NAMES[0] in on and NAMES[1] in on)
    return number + np.array([-0.02, 0.02]) * (1 + (NAMES[0] in on))


@pytest.fixture
def table():
    return study.defect_table(study.switch_numbers(by_hand, "words"), 88)


def test_steps_and_sums_by_hand(table):
    rows = table.set_index("switch")
    assert rows.index.tolist() == [*NAMES, study.TOGETHER]
    alone, step, after = (rows[name].tolist() for name in ("alone", "step", "after"))
    np.testing.assert_allclose(rows["honest"], 0.5)
    np.testing.assert_allclose(alone[:3] + alone[-2:-1], [0.10, 0.04, 0, -0.20], atol=1e-12)
    np.testing.assert_allclose(step[:3] + step[-2:-1], [0.10, 0.01, 0, -0.20], atol=1e-12)
    np.testing.assert_allclose(after[:3] + after[-2:], [0.60, 0.61, 0.61, 0.41, 0.41], atol=1e-12)
    assert step[-1] == pytest.approx(sum(step[:-1])) == pytest.approx(-0.09)
    assert alone[-1] == step[-1]  # All together has no other row to stand on
    assert set(table["n"]) == {88} and set(table["seeds"]) == {2}


def test_an_interval_by_hand_and_words_where_there_is_none(table):
    first = table.iloc[0]  # Differences of .08 and .12
    reach = stats.t.ppf(0.975, 1) * 0.02 * np.sqrt(2) * np.sqrt(1 / 2 + 1 / 3)
    assert first["alone_high"] - first["alone"] == pytest.approx(reach)
    assert table.iloc[2]["alone_why"] == study.SEEDS_AGREE and np.isnan(table.iloc[2]["alone_low"])
    assert study.seed_interval(np.array([0.4]))[3] == "1 seed"
    values = np.random.default_rng(0).normal(size=9)
    peer = stats.t.interval(0.95, 8, values.mean(), stats.sem(values))
    np.testing.assert_allclose(study.seed_interval(values, ratio=0)[1:3], peer)  # No overlap: the usual one


def test_each_system_has_its_own_sum():
    numbers = study.study_numbers(systems.noise_audit_set(budget=AuditBudget(seeds=2, n_words=8, epochs=1)))
    found = study.defect_table(numbers, 18)
    for system, rows in found.groupby("system"):
        steps, whole = rows[rows["switch"].ne(study.TOGETHER)], rows.iloc[-1]
        assert steps["switch"].tolist() == system_switches(system)
        assert steps["step"].sum() == pytest.approx(whole["after"] - whole["honest"])
        assert steps.iloc[0]["alone"] == pytest.approx(steps.iloc[0]["step"])
    assert set(found["system"]) == {"words", "network"}


def test_retrieval_stands_beside_the_sum(table):
    hits = pd.DataFrame(
        dict(group=np.repeat([f"g{i}" for i in range(12)], 2), honest=[1.0, 0.0] * 12, faulty=1.0)
    )
    row = study.retrieval_row(hits)
    assert (row["honest"], row["alone"], row["n"]) == (0.5, 0.5, 24) and "step" not in row
    whole = pd.concat([table, pd.DataFrame([row])], ignore_index=True)
    assert "+0.500" in study.query_sentence(whole) and "part of no sum" in study.query_sentence(whole)
    assert list(study.defect_view(whole, "retrieval")) == ["fault", "source", "alone [95 % interval]", "n"]
    assert study.defect_view(whole, "words").shape == (len(NAMES) + 2, 7)  # From the honest number on


def test_a_retrieval_without_mates_has_no_number(table):
    whole = pd.concat(
        [table, pd.DataFrame([study.retrieval_row(pd.DataFrame(dict(group=[], honest=[], faulty=[])))])]
    )
    assert study.query_sentence(whole) == "A query in its own pool: not measured, no group has two images."


def test_sentences_say_where_an_interval_holds_0(table):
    text = study.alone_sentence(table.assign(alone_low=-1.0, alone_high=1.0, alone_why=""), "words")
    assert (
        f"0 of {len(NAMES)} faults" in text
        and "The interval holds 0, so no effect is shown, for: actors" in text
    )
    sure = table.assign(alone_low=table["alone"] - 0.05, alone_high=table["alone"] + 0.05, alone_why="")
    text = study.alone_sentence(sure, "words")
    assert f"2 of {len(NAMES)} faults" in text
    assert text.index("directory order (-0.200") < text.index("several splits (+0.100")  # The largest first
    both = pd.concat([table, table.assign(system="network")])
    text = study.together_sentence(both, dict(fakes=2 / 3))
    assert f"{len(NAMES)} faults together turn 0.500 into 0.410 (-0.090" in text and "gives 0.667" in text


def test_a_run_that_cannot_be_audited_gets_a_sentence(tmp_path):
    table, facts = study.try_study(tmp_path, AuditBudget())
    assert table.empty and "no such manifest" in facts["why"]
    assert study.together_sentence(table, facts).startswith("No fault was measured on these images: ")
    assert study.alone_sentence(table, "network").endswith("not measured.")
    assert study.images_sentence(facts) == "Nothing was measured."
    assert study.defect_view(table, "words").empty and study.query_sentence(table).startswith("A query in")


def test_the_waterfall_is_drawn_from_the_honest_number_to_the_faulty_one(table):
    ax = study.plot_waterfall(table, "words")
    labels = [label.get_text() for label in ax.get_yticklabels()]
    assert labels[0] == "honest" and labels[-1] == "all faults on" and len(labels) == len(NAMES) + 2
    bars = [(bar.get_x(), bar.get_x() + bar.get_width()) for bar in ax.patches]
    np.testing.assert_allclose(bars[0], (0.5, 0.6))
    assert all(a[1] == pytest.approx(b[0]) for a, b in zip(bars, bars[1:], strict=False))
    assert len(study.plot_alone(table).get_yticklabels()) == len(NAMES)


def predictions(*right):
    "Ten groups of a real image and a fake; in those that are named, the fake has the higher probability."
    made = [(i, label, 0.5 + (0.1 if i in right else -0.1) * label) for i in range(10) for label in (0, 1)]
    rows = [dict(group=f"g{i}", label=label, probability=p) for i, label, p in made]
    return pd.DataFrame(rows)


def test_choices_among_finished_runs_by_hand():
    finished = {
        "3": dict(
            validation=predictions(*range(9)), best=predictions(*range(6)), last=predictions(*range(7))
        ),
        "8": dict(validation=predictions(*range(5)), best=predictions(*range(8)), last=predictions()),
    }
    found = study.compare_choices(finished).set_index("fault")
    assert found.loc["setting_on_test", ["first", "second"]].tolist() == ["8", "3"]
    assert found.loc["setting_on_test", "value"] == pytest.approx(
        0.2
    )  # A fake that is right beats all ten real
    assert found.loc["last_epoch", "value"] == pytest.approx(0.1)
    text = study.choices_sentence(finished)
    assert (
        "Of 2 finished runs, validation chooses run 3 and the test split run 8: a test AUC of +0.200" in text
    )
    same = {name: finished["8"] for name in ("4", "8")}
    assert "the test split the same, so that nothing is gained" in study.choices_sentence(same)
    assert study.choices_sentence({"3": finished["3"]}).startswith("Fewer than two runs are finished")


def test_a_folder_without_runs_has_no_finished_ones(tmp_path):
    assert study.read_finished(tmp_path) == {}
