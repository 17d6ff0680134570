"Following a claim to its predictions, and computing it again."

import json

import pytest

from deepfake_nbs.classifiers import trace


def write_run(folder, measured, right):
    "A run folder whose SVM is right about so many of twenty test images, two a group."
    place = folder / "baselines" / "group"
    place.mkdir(parents=True)
    lines = ["classifier,path,label,probability,group,split"]
    for i in range(20):
        label = i % 2
        p = (0.9 if label else 0.1) if i < right else (0.1 if label else 0.9)
        lines.append(f'"SIFT words, SVM",test/{i}.png,{label},{p},g{i // 2},test')
        lines.append(f"constant,test/{i}.png,{label},0.5,g{i // 2},test")
    (place / "predictions.csv").write_text("\n".join(lines) + "\n")
    for name in ("svm_search", "forest_search", "differences"):
        (place / f"{name}.csv").write_text("value\n1\n")
    record = dict(commit="abc", dirty=True, seed=7, device="cpu", data="miniature", config={})
    (place / "run.json").write_text(json.dumps(record))
    (folder / "claims.csv").write_text(
        f"id,measured,protocol\nbaselines-svm-accuracy,{measured},group\nbaselines-forest-accuracy,,\n"
    )
    return folder


def test_a_number_is_computed_again_from_the_predictions_of_its_classifier_alone(tmp_path):
    run = write_run(tmp_path, 0.8, 16)
    found = trace.follow_claim(run, "baselines-svm-accuracy")
    again = trace.recompute(found)
    assert again["value"] == pytest.approx(16 / 20) and again["n"] == 20 and again["groups"] == 10
    assert trace.agrees(found, again)
    text = trace.trace_sentence(found, again)
    assert text.startswith("**The kept and the recomputed value agree.**") and "it is 0.8000 [" in text
    assert "The report states .6756, inside this interval." in text and "class frequencies" not in text


def test_the_sentence_says_the_verdict_on_the_published_value_and_names_a_constant_classifier(tmp_path):
    run = write_run(tmp_path, 0.5, 10)
    path = run / "baselines" / "group" / "predictions.csv"
    path.write_text(path.read_text().replace("0.1,g", "0.5,g").replace("0.9,g", "0.5,g"))
    (run / "claims.csv").write_text(
        "id,measured,protocol,verdict,reason\nbaselines-svm-accuracy,0.5,group,not comparable,other images.\n"
    )
    found = trace.follow_claim(run, "baselines-svm-accuracy")
    text = trace.trace_sentence(found, trace.recompute(found))
    assert "keeps 0.5000 for *Accuracy of the SVM on SIFT words*" in text
    assert "Verdict: *not comparable* (other images)." in text and "calls every image fake" in text
    assert trace.predictions_view(found)["predicted"].eq("fake").all()


def test_a_number_that_was_changed_is_found_out(tmp_path):
    found = trace.follow_claim(write_run(tmp_path, 0.8001, 16), "baselines-svm-accuracy")
    assert "recomputed value do not agree" in trace.trace_sentence(found, trace.recompute(found))


def test_the_steps_name_files_that_are_there(tmp_path):
    run = write_run(tmp_path, 0.8, 16)
    steps = trace.steps_table(trace.follow_claim(run, "baselines-svm-accuracy"), run).set_index("step")
    assert all((run / steps.loc[step, "file"]).is_file() for step in ("measured", "record", "predictions"))
    assert steps.loc["record", "what it says"] == "commit abc with uncommitted changes, seed 7, cpu"
    assert steps.loc["measured", "what it says"] == "0.8000, group split"


def test_without_a_run_or_a_measured_value_the_way_ends_in_a_sentence(tmp_path):
    nothing = trace.follow_claim(tmp_path / "none", "baselines-svm-accuracy")
    assert "nothing to follow" in trace.trace_sentence(nothing, None)
    assert len(trace.steps_table(nothing, tmp_path)) == 2 and trace.predictions_view(nothing).empty
    run = write_run(tmp_path / "run", 0.8, 16)
    assert trace.follow_claim(run, "baselines-forest-accuracy").predictions == []
    (run / "baselines" / "group" / "run.json").unlink()
    gone = trace.follow_claim(run, "baselines-svm-accuracy")
    assert "not on this machine" in trace.trace_sentence(gone, None)
    with pytest.raises(ValueError, match="no predictions; expected those of a finished run"):
        trace.recompute(gone)


@pytest.mark.parametrize(
    "claim", ["table1-1-net", "heads-phase1-map", "table2-1-speed", "baselines-svm-speed", ""]
)
def test_a_claim_without_predictions_is_refused_by_name(claim):
    with pytest.raises(ValueError, match=f"claim {claim!r}: no predictions.*expected an id such as"):
        trace.claim_source(claim)
