"Outputs of executed notebooks copied into their sources, and numbers kept."

import shutil
import nbformat
import pandas as pd
import pytest
from deepfake_nbs import core
from deepfake_nbs import claims
from deepfake_nbs import pages
from deepfake_nbs import publishing


def test_what_a_hidden_cell_printed_is_not_promoted(chapter):
    nb = nbformat.read(chapter / "nbs" / "x.ipynb", 4)
    nb.cells[
        -1
    ].source = (
        "#| output: false\nfrom ipywidgets import IntSlider\nprint('40 of 80')\ndisplay(IntSlider())\nrow * 2"
    )
    nb.cells.append(nbformat.v4.new_code_cell("print('seen')"))
    nbformat.write(nb, chapter / "nbs" / "x.ipynb")
    publishing.promote(pages.run_notebook("nbs/x.ipynb", "out/x.ipynb", {}), chapter / "nbs" / "x.ipynb")
    hidden, shown = nbformat.read(chapter / "nbs" / "x.ipynb", 4).cells[-2:]
    assert [one.output_type for one in hidden.outputs] == ["execute_result"] and shown.outputs[
        0
    ].text == "seen\n"


def test_a_warning_of_a_library_is_not_promoted(chapter):
    nb = nbformat.read(chapter / "nbs" / "x.ipynb", 4)
    warning = "import sys\nprint('/home/me/lib/site-packages/x.py:1: FutureWarning', file=sys.stderr)\nrow"
    nb.cells.append(nbformat.v4.new_code_cell(warning))
    nb.cells.append(nbformat.v4.new_code_cell("print('a note', file=sys.stderr)"))
    nbformat.write(nb, chapter / "nbs" / "x.ipynb")
    publishing.promote(pages.run_notebook("nbs/x.ipynb", "out/x.ipynb", {}), chapter / "nbs" / "x.ipynb")
    warned, said = nbformat.read(chapter / "nbs" / "x.ipynb", 4).cells[-2:]
    assert [one.output_type for one in warned.outputs] == ["execute_result"]
    assert said.outputs[0].text == "a note\n"


def test_the_record_of_what_is_published_was_made_before_the_pages_changed(chapter, root, monkeypatch):
    shutil.copytree(root / "papers" / "original", chapter / "papers" / "original")
    run, order = core.run_folder("smoke", "data/miniature"), []
    pages.run_notebook("nbs/x.ipynb", run / "nbs" / "x.ipynb", {})
    monkeypatch.setattr(publishing, "keep_results", lambda *args: order.append("kept") or [])
    monkeypatch.setattr(publishing, "promote", lambda *args: order.append("promoted"))
    publishing.publish("smoke", "data/miniature")
    assert order == ["kept", "promoted"]


def test_publishing_copies_outputs_and_measured_claims(chapter, root):
    shutil.copytree(root / "papers" / "original", chapter / "papers" / "original")
    with pytest.raises(FileNotFoundError, match="x.ipynb: this notebook has not run"):
        publishing.publish("smoke", "data/miniature")
    run = core.run_folder("smoke", "data/miniature")
    pages.run_notebook("nbs/x.ipynb", run / "nbs" / "x-8.ipynb", {})  # as a chapter that runs once a row
    claims.save_claims([{"id": "table2-8-test_accuracy", "measured": 0.5}], run)
    older = "id,published,measured,low,high,n,protocol,data,status\nretrieval-x,,0.5,,,9,pool,miniature,measured\n"
    (run / "tables").mkdir(exist_ok=True)
    (run / "tables" / "results-old.csv").write_text(older + "retrieval-y,,,,,,,,not yet\n")
    claims.save_table(
        pd.DataFrame({"step": ["blur 3"], "auc": [0.5]}), "table-robustness", run, "09c_robustness"
    )
    *changed, audit = publishing.publish("smoke", "data/miniature")
    assert [path.name for path in changed] == ["x.ipynb", "smoke-miniature.csv", "smoke-miniature.json"]
    assert audit.read_text() == "step,auc\nblur 3,0.5\n" and audit.parent.name == "smoke-miniature"
    assert nbformat.read(chapter / "nbs" / "x.ipynb", 4).cells[-1].outputs[0]["data"]["text/plain"] == "16"
    kept = pd.read_csv(changed[-2])
    assert kept["id"].tolist() == ["table2-8-test_accuracy", "retrieval-x"]
    assert kept["status"].eq("measured").all() and kept["n"].tolist()[1] == 9


def test_a_line_under_a_table_becomes_a_link_where_the_table_is_kept(chapter):
    nb = nbformat.read(chapter / "nbs" / "x.ipynb", 4)
    lines = "Download: `tables/table-audit.csv` of the run folder\n\nDownload: `tables/table-large.csv` of the run folder"
    nb.cells[-1].source = f"from IPython.display import Markdown\nMarkdown({lines!r})"
    nbformat.write(nb, chapter / "nbs" / "x.ipynb")
    done = pages.run_notebook("nbs/x.ipynb", "out/x.ipynb", {})
    kept = chapter / "papers" / "results" / "smoke-miniature"
    core.write_text(kept / "audit.csv", "split,n\n")
    publishing.promote(done, chapter / "nbs" / "x.ipynb", kept)
    (output,) = nbformat.read(chapter / "nbs" / "x.ipynb", 4).cells[-1].outputs
    first, second = output["data"]["text/markdown"].split("\n\n")
    assert first == "Download: [CSV](../papers/results/smoke-miniature/audit.csv)"
    assert second == lines.split("\n\n")[1]
    assert (chapter / "nbs" / first.partition("(")[2].rstrip(")")).resolve() == (kept / "audit.csv").resolve()


@pytest.mark.parametrize(
    "frame, embedded, reason",
    [
        ({"source": ["CelebA"], "auc": [0.5]}, False, ""),
        ({"photograph": ["000799.png"], "P(fake)": [0.7]}, False, "single images"),
        ({"pair": ["FaceSwap 634_660.mp4"], "heads": [1]}, False, "single images"),
        ({"photograph": ["000799.png"], "P(fake)": [0.7]}, True, ""),
        ({"file": ["/home/somebody/run.json"], "n": [1]}, True, "a place on this machine"),
        ({"value": ["x" * 100] * 3000}, True, "bytes, expected at most 200000"),
    ],
)
def test_a_table_of_single_photographs_of_a_place_or_a_large_one_is_left_out(
    tmp_path, root, capsys, frame, embedded, reason
):
    run, place = tmp_path / "smoke-toy", tmp_path / "kept"
    claims.save_table(pd.DataFrame(frame), "table-toy", run, "01_datasets")
    core.write_text(place / "toy.csv", "of an earlier run")
    kept = publishing.keep_tables(run, place, embedded)
    assert [path.name for path in kept] == ([] if reason else ["toy.csv"])
    assert [path.name for path in place.glob("*")] == [path.name for path in kept]
    said = capsys.readouterr().out
    assert ("table-toy.csv: not kept, because " in said and reason in said) if reason else said == ""


def test_numbers_of_a_kept_table_are_rounded_and_words_are_not():
    text = 'name,value,n\n"a, b",0.123456789,20811050\n1.5.3,-3.00000001,\n,2.5e-07,nan\n'
    assert publishing.round_csv(text) == 'name,value,n\n"a, b",0.123457,20811050\n1.5.3,-3,\n,2.5e-07,nan\n'


def test_a_chapter_with_an_error_is_not_promoted(chapter):
    done = pages.run_notebook("nbs/x.ipynb", "out/x.ipynb", {})
    broken = nbformat.read(done, 4)
    broken.cells[-1].outputs = [
        nbformat.v4.new_output("error", ename="ValueError", evalue="no", traceback=[])
    ]
    nbformat.write(broken, done)
    with pytest.raises(ValueError, match="a cell failed"):
        publishing.promote(done, chapter / "nbs" / "x.ipynb")
    assert nbformat.read(chapter / "nbs" / "x.ipynb", 4).cells[-1].outputs == []


def test_keeping_what_has_not_run_says_how_to_make_it(chapter):
    with pytest.raises(
        FileNotFoundError, match="smoke-toy/claims.csv: no such file; `make report PROFILE=smoke`"
    ):
        publishing.keep_results("smoke", "data/toy")
    assert not (chapter / "papers" / "results").exists()
