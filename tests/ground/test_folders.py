"A folder is whole or not there: locks, foreign files, and processes that are killed at any step."

import fcntl
import json
import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from deepfake_nbs.files import (
    add_note,
    folder_lock,
    hold_lock,
    read_mark,
    read_notes,
    refuse_foreign,
    stage_folder,
    write_folder,
)


def content(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_text()
        for path in sorted(Path(folder).rglob("*"))
        if path.is_file()
    }


def fill(folder, word, n=3):
    for i in range(n):
        (folder / f"{i}.txt").write_text(word)
    return {f"{i}.txt": word for i in range(n)}


# --- Locks -------------------------------------------------------------------------------------------------------------


def test_a_lock_is_a_file_that_is_open_for_writing(tmp_path):
    with folder_lock(tmp_path / "new"):
        with open(tmp_path / "new" / ".lock", "r+b") as other, pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with open(tmp_path / "new" / ".lock", "r+b") as other:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_lock_is_waited_for_or_refused(tmp_path, capsys):
    order = []

    def wait():
        with folder_lock(tmp_path / "8", "8: another process is training this run", beside=True):
            order.append("second")

    with folder_lock(tmp_path / "8", beside=True):
        with (
            pytest.raises(BlockingIOError, match="^8: busy$"),
            folder_lock(tmp_path / "8", "8: busy", wait=False, beside=True),
        ):
            pytest.fail("it was not locked")
        other = threading.Thread(target=wait)
        other.start()
        other.join(0.3)
        order.append("first")
    other.join(30)
    assert order == ["first", "second"] and not (tmp_path / "8").exists()
    assert capsys.readouterr().out == "8: another process is training this run; waiting for it\n"


def test_a_killed_process_locks_nobody_out(tmp_path):
    code = f"""
import os, signal
from deepfake_nbs.files import hold_lock
with hold_lock({str(tmp_path / "lock")!r}): os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == -signal.SIGKILL
    with hold_lock(tmp_path / "lock", wait=False):
        pass


def test_a_folder_that_may_only_be_read_is_not_locked(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with folder_lock(tmp_path):
        assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("umask, mode", [(0o022, 0o644), (0o002, 0o664), (0o000, 0o666)])
def test_who_may_write_the_folder_may_take_its_lock(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        with folder_lock(tmp_path):
            assert stat.S_IMODE((tmp_path / ".lock").stat().st_mode) == mode
    finally:
        os.umask(before)


def test_a_lock_that_may_not_be_written_is_named(tmp_path, monkeypatch):
    def refuse(path, *rest):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(PermissionError, match=r"Permission denied: .*lock"), hold_lock(tmp_path / "lock"):
        pytest.fail("it was not locked")


# --- Marks and foreign files -------------------------------------------------------------------------------------------


def test_foreign_files_are_named(tmp_path):
    refuse_foreign(tmp_path / "new")
    refuse_foreign(tmp_path)
    for name in ("a", "b", "c", "d", "ours"):
        (tmp_path / name).touch()
    with pytest.raises(
        FileExistsError, match=r"holds something else \(a, b, c\); expected a new folder or a dataset"
    ):
        refuse_foreign(tmp_path, {"ours"}, "a new folder or a dataset")
    with pytest.raises(FileExistsError, match=r"holds something else \(train/notes.txt\)"):
        refuse_foreign(tmp_path, set("abcd") | {"ours"}, more=["train/notes.txt"])
    with pytest.raises(FileExistsError, match="a: a file; expected a new folder"):
        refuse_foreign(tmp_path / "a")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(FileExistsError, match="link: a file"):
        refuse_foreign(tmp_path / "link")


@pytest.mark.parametrize(
    "text, mark",
    [
        ('{"kind": "a 1", "n": 2}', dict(kind="a 1", n=2)),
        ('{"kind": "b 1"}', {}),
        ("[1]", {}),
        ("{", {}),
        (None, {}),
    ],
)
def test_a_mark_is_of_its_kind_or_nothing(tmp_path, text, mark):
    if text is not None:
        (tmp_path / "mark.json").write_text(text)
    assert read_mark(tmp_path / "mark.json", "a 1") == mark


def test_notes_survive_a_line_that_was_cut_off(tmp_path):
    path = tmp_path / "notes.jsonl"
    assert read_notes(path) == {}
    for key, more in (("a", '\n{"key": "cut of'), ("b", "\n7\n[]"), ("a", "")):
        with path.open("a") as file:
            add_note(file, key, dict(n=len(read_notes(path))))
            file.write(more)
    assert read_notes(path) == dict(a=dict(key="a", n=2), b=dict(key="b", n=1))


# --- Writing a folder --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_error_leaves_the_old_folder_and_nothing_else(tmp_path, error):
    with write_folder(tmp_path / "deep/model") as new:
        old = fill(new, "old")
    with pytest.raises(error), write_folder(tmp_path / "deep/model") as new:
        fill(new, "new", 2)
        raise error
    assert content(tmp_path / "deep/model") == old and os.listdir(tmp_path / "deep") == ["model"]
    with write_folder(tmp_path / "deep/model") as new:
        assert not os.listdir(new)
        fresh = fill(new, "new", 2)
    assert content(tmp_path / "deep/model") == fresh and os.listdir(tmp_path / "deep") == ["model"]


@pytest.mark.parametrize("at", ["aside", "into place"])
def test_an_interruption_between_the_renames_leaves_the_old_folder(tmp_path, monkeypatch, at):
    with write_folder(tmp_path / "model") as new:
        old = fill(new, "old")
    rename = os.rename

    def stop(source, target):
        if (at == "aside") == (Path(source).name == "model"):
            rename(source, target) if at == "aside" else None
            monkeypatch.setattr(os, "rename", rename)
            raise KeyboardInterrupt
        rename(source, target)

    with pytest.raises(KeyboardInterrupt), write_folder(tmp_path / "model") as new:
        fill(new, "new", 2)
        monkeypatch.setattr(os, "rename", stop)
    assert content(tmp_path / "model") == old and os.listdir(tmp_path) == ["model"]


def test_a_second_writer_is_refused_or_waits(tmp_path):
    def write():
        with write_folder(tmp_path / "model", wait=True) as new:
            fill(new, "second")

    with write_folder(tmp_path / "model") as new:
        fill(new, "first")
        with pytest.raises(BlockingIOError, match="model: another build of this dataset is running"):
            with write_folder(tmp_path / "model", "another build of this dataset is running"):
                pytest.fail("two at once")
        other = threading.Thread(target=write)
        other.start()
        other.join(0.3)
        assert content(new) == {f"{i}.txt": "first" for i in range(3)}
    other.join(30)
    assert content(tmp_path / "model") == {f"{i}.txt": "second" for i in range(3)} and os.listdir(
        tmp_path
    ) == ["model"]


def test_many_writers_take_turns(tmp_path):
    code = f"""
import sys
from pathlib import Path
from deepfake_nbs.files import write_folder
for i in range(20):
    with write_folder({str(tmp_path / "model")!r}, wait=True) as new:
        for name in "abc": (new / name).write_text(f"{{sys.argv[1]}}-{{i}}")
"""
    writers = [
        subprocess.Popen([sys.executable, "-c", code, str(i)], stdout=subprocess.PIPE, text=True)
        for i in range(3)
    ]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    assert len(set(content(tmp_path / "model").values())) == 1 and os.listdir(tmp_path) == ["model"]


@pytest.mark.parametrize("name", ["thesis.tex", "plan"])
def test_a_hidden_folder_of_ones_own_is_never_deleted(tmp_path, name):
    own = tmp_path / ".set.building" / name
    own.parent.mkdir()
    own.write_text("mine")
    (tmp_path / ".set.old").mkdir()
    (tmp_path / ".set.old/thesis.tex").write_text("mine")
    with (
        pytest.raises(FileExistsError, match=rf".set.building: holds something else \({name}\)"),
        write_folder(tmp_path / "set"),
    ):
        pytest.fail("it was taken")
    assert own.read_text() == "mine" and os.listdir(own.parent) == [name]
    own.unlink()
    with write_folder(tmp_path / "set") as new:
        fill(new, "new")
    assert (tmp_path / ".set.old/thesis.tex").read_text() == "mine"


def test_a_full_disk_names_the_folder(tmp_path):
    with pytest.raises(OSError, match=r"No space left on device: .*model"), write_folder(tmp_path / "model"):
        raise OSError(28, "No space left on device")
    with (
        pytest.raises(OSError, match=r"No space left on device: .*weights"),
        write_folder(tmp_path / "model"),
    ):
        raise OSError(28, "No space left on device", "weights")
    assert not os.listdir(tmp_path)


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "model").symlink_to(tmp_path / "disk/model")
    for word in ("old", "new"):
        with write_folder(tmp_path / "model") as new:
            expected = fill(new, word)
    assert (tmp_path / "model").is_symlink() and content(tmp_path / "disk/model") == expected
    assert sorted(os.listdir(tmp_path)) == ["disk", "model"] and os.listdir(tmp_path / "disk") == ["model"]


@pytest.mark.parametrize("umask, mode", [(0o022, 0o755), (0o077, 0o700), (0o002, 0o775)])
def test_a_folder_is_as_readable_as_the_user_wants_it(tmp_path, umask, mode):
    code = f"import os; os.umask({umask}); from deepfake_nbs.files import write_folder\nwith write_folder('x') as new: pass"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == mode


# --- Resuming -----------------------------------------------------------------------------------------------------------


def test_the_same_plan_is_resumed_and_another_begins_anew(tmp_path):
    def stop(plan, word):
        with pytest.raises(KeyboardInterrupt), stage_folder(tmp_path / "set", plan) as staging:
            found = content(staging.hidden)
            (staging.folder / "a.txt").write_text(word)
            (staging.scratch / "notes.jsonl").write_text(word)
            raise KeyboardInterrupt
        return {name for name in found if not name.startswith((".lock", "plan"))}

    assert stop(dict(seed=1, size=(1, 2)), "one") == set()
    assert stop(dict(seed=1, size=[1, 2]), "two") == {"new/a.txt", "scratch/notes.jsonl"}
    assert stop(dict(seed=2, size=[1, 2]), "three") == set()
    with stage_folder(tmp_path / "set", dict(seed=2, size=[1, 2])) as staging:
        assert content(staging.folder) == {"a.txt": "three"}
        staging.publish()
    assert content(tmp_path / "set") == {"a.txt": "three"} and os.listdir(tmp_path) == ["set"]


def test_what_is_there_may_stay(tmp_path):
    for word in ("old", "new"):
        with stage_folder(tmp_path / "set", 1) as staging:
            if not staging.place.exists():
                expected = fill(staging.folder, word)
                staging.publish()
    assert content(tmp_path / "set") == expected and os.listdir(tmp_path) == ["set"]


def test_what_version_0_1_left_is_cleared(tmp_path):
    hidden = tmp_path / ".set.building"
    (hidden / "dataset/train").mkdir(parents=True)
    (hidden / "plan.json").write_text("{}")
    (hidden / "notes.jsonl").write_text("\n")
    with stage_folder(tmp_path / "set", {}) as staging:
        assert sorted(os.listdir(hidden)) == [".lock", "new", "plan.json", "scratch"]
        staging.publish()
    assert os.listdir(tmp_path) == ["set"]


# --- Killed at any step ------------------------------------------------------------------------------------------------

KILLER = """
import json, os, shutil, signal, sys
from pathlib import Path
from deepfake_nbs import files

place, plan = Path(sys.argv[1]), json.loads(sys.argv[2])

def killed_at(step, after):
    "Die before or after the step-th call that changes the disk."
    left = [step]
    def guard(function):
        def call(*arguments, **more):
            left[0] -= 1
            if left[0] == 0 and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            last = left[0] == 0
            try:
                return function(*arguments, **more)
            finally:
                if last:
                    os.kill(os.getpid(), signal.SIGKILL)
        return call
    for name in ("replace", "rename", "unlink", "rmdir", "mkdir", "open"):
        setattr(os, name, guard(getattr(os, name)))
    Path.write_text = guard(Path.write_text)

def write(word):
    with files.stage_folder(place, plan) as staging:
        for name in "abc":
            (staging.folder / name).write_text(word)
        staging.publish()

def attempt(word, step, after):
    pid = os.fork()
    if pid == 0:
        killed_at(step, after)
        write(word)
        os._exit(0)
    return os.WIFSIGNALED(os.waitpid(pid, 0)[1])

step, seen = 1, []
while True:
    for after in (False, True):
        write("old")
        killed = attempt("new", step, after)
        whole = {path.name: path.read_text() for path in place.iterdir()} if place.exists() else {}
        with files.stage_folder(place, plan) as staging:  # The next process puts things right
            found = {path.name: path.read_text() for path in place.iterdir()}
        assert found in (dict.fromkeys("abc", "old"), dict.fromkeys("abc", "new")), (step, found)
        assert whole in (found, {}), (step, whole)
        assert os.listdir(place.parent) == [place.name], os.listdir(place.parent)
        seen.append((killed, found["a"], not whole))
    if not killed:
        break
    step += 1
print(json.dumps(seen))
"""


@pytest.mark.parametrize("plan", [None, dict(seed=1)])
def test_killed_at_every_step_leaves_the_old_or_the_new_folder(tmp_path, plan):
    done = subprocess.run(
        [sys.executable, "-c", KILLER, str(tmp_path / "set"), json.dumps(plan)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    seen = [tuple(one) for one in json.loads(done.stdout)]
    assert {(True, "old", False), (True, "new", False), (True, "old", True)} <= set(seen) and len(seen) > 30
