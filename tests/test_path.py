"The path through the library: every chapter is on it once, and the solutions of its exercises run."

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SECTIONS = 9


def cells():
    loaded = json.loads((ROOT / "nbs/path.ipynb").read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in loaded]


def exercises():
    "Number and solution of each, in order."
    found = []
    for text in cells():
        if number := re.match(r"\*\*Exercise (\d+\.\d+): ", text):
            found.append((number[1], re.findall(r"^```python\n(.*?)^```$", text, flags=re.M | re.S)))
    return found


def test_every_section_has_three_exercises_with_one_folded_solution_each():
    assert [number for number, _ in exercises()] == [
        f"{i}.{j}" for i in range(1, SECTIONS + 1) for j in range(1, 4)
    ]
    for text in cells():
        if text.startswith("**Exercise"):
            assert re.search(r"<details>\n<summary>Solution</summary>\n\n```python\n", text), text[:40]
    assert all(len(code) == 1 and "assert " in code[0] for _, code in exercises())


def test_chapters_stand_in_the_order_of_the_library_with_a_time_that_their_length_gives():
    rows = re.findall(r"^\| \[[^\]]+\]\(library/(\w+\.ipynb)\) \| (\d+) min \|$", "\n".join(cells()), re.M)
    names = [name for name, _ in rows]
    assert names == sorted(set(names)) and len({name[0] for name in names}) == SECTIONS
    for name, minutes in rows:
        loaded = json.loads((ROOT / "nbs/library" / name).read_text(encoding="utf-8"))["cells"]
        texts = {kind: [] for kind in ("markdown", "code", "raw")}
        for cell in loaded:
            texts[cell["cell_type"]].append("".join(cell["source"]))
        words = len("\n".join(texts["markdown"]).split())
        lines = sum(bool(line.strip()) for text in texts["code"] for line in text.splitlines())
        expected = max(5, words / 150 + lines / 15)
        assert abs(int(minutes) - expected) <= max(5, expected / 3), (
            f"path.ipynb: {name} takes about {expected:.0f} minutes to read, not {minutes}"
        )


def test_the_solutions_run_in_one_process():
    "In order, in one namespace: a later solution may use what an earlier one of its section made."
    found = exercises()
    code = "\n".join(f"print({number!r}, flush=True)\n{''.join(solution)}" for number, solution in found)
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(
        command,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    last = done.stdout.split()[-1] if done.stdout else "none"
    assert done.returncode == 0, f"exercise {last}: {done.stderr[-600:]}"
    assert last == found[-1][0]


@pytest.mark.parametrize("number, code", [(n, c[0]) for n, c in exercises()])
def test_a_solution_is_short_and_fits_a_page(number, code):
    lines = code.strip().splitlines()
    assert len(lines) <= 16 and max(map(len, lines)) <= 110, number


def test_environments_for_a_browser_install_what_make_setup_does():
    post_build = ROOT / ".binder" / "postBuild"
    assert os.access(post_build, os.X_OK) and "requirements.lock" in post_build.read_text(encoding="utf-8")
    assert (ROOT / ".binder" / "runtime.txt").read_text(encoding="utf-8") == "python-3.11\n"
    made = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text(encoding="utf-8"))
    assert made["postCreateCommand"] == "make setup"


def test_the_table_of_sections_counts_the_chapters_of_their_lists():
    row = r"^\| \[[^\]]+\]\(library/(\w+\.ipynb)\) \| (\d+) min \|$"
    listed = {}
    for text in cells():
        if (title := re.match(r"## (.+)\n", text)) and (rows := re.findall(row, text, re.M)):
            listed[title[1]] = {name: int(minutes) for name, minutes in rows}
    all_chapters = {path.name for path in (ROOT / "nbs/library").glob("*.ipynb")}
    assert {name for rows in listed.values() for name in rows} == all_chapters
    table = re.findall(r"^\| \[([^\]]+)\]\(#[\w-]+\) \| (\d+) \| ([\d.]+) h \|$", "\n".join(cells()), re.M)
    sums = [(name, str(len(rows)), f"{sum(rows.values()) / 60:.1f}") for name, rows in listed.items()]
    assert table == sums
    day = next(text for text in cells() if "**If you have one day**" in text)
    minutes = {name: time for rows in listed.values() for name, time in rows.items()}
    hours = sum(minutes[name] for name in re.findall(r"library/(\w+\.ipynb)", day)) / 60
    assert f"({hours:.0f} hours of reading)" in day
