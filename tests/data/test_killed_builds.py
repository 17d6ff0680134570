"A killed build never passes for a whole one, and the next call resumes it."

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from helpers.data_sets import build, contents

from deepfake_nbs.data import inspection, storage


KILLER = """
import json, os, shutil, signal, sys, time
from pathlib import Path
from deepfake_nbs.data.build import build_cvcs_dfd
from deepfake_nbs.data.manifest import read_manifest
from deepfake_nbs.data.storage import read_annotation_files, read_list_files

root, out, plans, moments = sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3]), json.loads(sys.argv[4])

def killed_at(step):
    "Die at the step-th call that changes the disk, half of the time just after it."
    left = [step]
    def guard(function):
        def call(*arguments, **more):
            left[0] -= 1
            if left[0] == 0 and step % 2:
                os.kill(os.getpid(), signal.SIGKILL)
            try:
                return function(*arguments, **more)
            finally:  # Also where there was nothing to remove
                if left[0] == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
        return call
    for name in ("replace", "rename", "unlink"):
        setattr(os, name, guard(getattr(os, name)))
    Path.write_text, shutil.rmtree = guard(Path.write_text), guard(shutil.rmtree)
    shutil.copyfile = guard(shutil.copyfile)

def attempt(plan, moment):
    pid = os.fork()
    if pid == 0:
        if isinstance(moment, int):
            killed_at(moment)
        build_cvcs_dfd(root, out, n_frames=3, workers=1, progress=False, **plan)
        os._exit(0)
    if isinstance(moment, float):
        time.sleep(moment)
        os.kill(pid, signal.SIGKILL)
    return os.waitpid(pid, 0)[1]

for i, moment in enumerate(moments):
    status, plan = attempt(plans[i % len(plans)], moment), None
    if out.exists():
        assert read_annotation_files(out).equals(read_list_files(out)) and len(read_manifest(out)) == len(read_list_files(out))
        plan = json.loads((out / "dataset.json").read_text())["plan"]
    print(json.dumps(dict(killed=os.WIFSIGNALED(status), seed=plan and plan["seed"])), flush=True)
"""


def kill_builds(tree, out, plans, moments):
    "Start a build for each moment, kill it there; after each, whatever lies at `out` must be whole."
    command = [sys.executable, "-c", KILLER, str(tree), str(out), json.dumps(plans), json.dumps(moments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_killed_at_chosen_steps_then_resumes(tree, tmp_path):
    out = tmp_path / "set"
    states = kill_builds(
        tree, out, [{}], [1, 2, 3, 10, 25, 41, 60, 61, 90, 120, 150, 151, 180, 200, 220, 4, 5, 6, 7]
    )
    assert sum(state["killed"] for state in states) > 10
    build(tree, out)
    build(tree, tmp_path / "clean")
    assert contents(out) == contents(tmp_path / "clean") and not list(tmp_path.glob(".*"))


def test_killed_while_replacing_leaves_the_old_or_the_new(tree, tmp_path):
    out = tmp_path / "set"
    build(tree, out, seed=1)
    build(tree, tmp_path / "clean", seed=2)
    seen = set()
    moments = [1, 2, 3, *range(190, 330, 7), *range(1, 25, 2), 2, 4, 6]
    for state in kill_builds(tree, out, [{"seed": 2}], moments):
        assert state["seed"] in (1, 2, None)  # None: between the two renames
        seen.add(state["seed"])
    build(tree, out, seed=2)
    assert contents(out) == contents(tmp_path / "clean") and {1, 2} <= seen and not list(tmp_path.glob(".*"))


def test_killed_between_the_two_renames(tree, tmp_path):
    "The old set comes back when another plan is refused, and is replaced when the new plan is built."
    out, old = tmp_path / "set", tmp_path / ".set.building/old"
    build(tree, out, seed=1)
    old.parent.mkdir()
    os.rename(out, old)
    build(tree, out, seed=1)
    assert not old.exists() and json.loads((out / "dataset.json").read_text())["plan"]["seed"] == 1
    old.parent.mkdir()
    os.rename(out, old)
    build(tree, out, seed=2)
    assert not old.exists() and json.loads((out / "dataset.json").read_text())["plan"]["seed"] == 2


def test_killed_at_random_moments(tree, tmp_path):
    out, rng = tmp_path / "set", np.random.default_rng(0)
    states = kill_builds(
        tree,
        out,
        [{"seed": 1}, {"seed": 1}, {"seed": 2}],
        [float(moment) for moment in rng.uniform(0, 0.5, 16)],
    )
    assert any(state["killed"] for state in states)
    build(tree, out, seed=2)
    build(tree, tmp_path / "clean", seed=2)
    assert contents(out) == contents(tmp_path / "clean")


def test_files_that_are_whole_are_kept(tree, tmp_path, monkeypatch):
    out, placed, looked = tmp_path / "set", [], []
    place, look = storage._copy_or_link, inspection.inspect_image

    def stop(source, target, *rest):
        if len(placed) == 40:
            raise KeyboardInterrupt
        place(source, target, *rest)
        placed.append(target)

    monkeypatch.setattr(storage, "_copy_or_link", stop)
    with pytest.raises(KeyboardInterrupt):
        build(tree, out)
    times = {path: path.stat().st_ino for path in placed}
    monkeypatch.setattr(storage, "_copy_or_link", place)
    monkeypatch.setattr(inspection, "inspect_image", lambda file: looked.append(file) or look(file))
    (tmp_path / ".set.building/scratch/notes.jsonl").open("a").write('\n{"key": "cut of')
    build(tree, out)
    assert not looked and len(times) == 40
    assert all(
        (out / path.relative_to(tmp_path / ".set.building/new")).stat().st_ino == number
        for path, number in times.items()
    )
