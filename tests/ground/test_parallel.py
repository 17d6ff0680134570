"Worker processes: what they give, and that none is left behind, whatever ends the work."
import math
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import cv2
import numpy as np
import pytest

from deepfake_nbs.parallel import _interruptions_later, in_processes, worker_threads

needs_proc = pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs /proc to see processes")


def test_results_come_in_order_and_errors_as_they_were_raised():
    assert list(in_processes(math.hypot, [3, 5, 8] * 20, [4, 12, 15] * 20, workers=2)) == [5.0, 13.0, 17.0] * 20
    assert list(in_processes(math.sqrt, [], workers=2)) == []
    with pytest.raises(ValueError, match="math domain error"):
        list(in_processes(math.sqrt, [1, -1, 4], workers=2))


def test_an_interruption_waits_until_the_workers_are_started():
    came = []
    before = signal.signal(signal.SIGINT, lambda *_: came.append("interrupted"))
    try:
        with _interruptions_later():
            signal.raise_signal(signal.SIGINT)
            came.append("started")
    finally:
        signal.signal(signal.SIGINT, before)
    assert came == ["started", "interrupted"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError])
def test_threads_drop_what_nobody_waits_for(error):
    started, gate, done = threading.Event(), threading.Event(), []

    def wait():
        started.set()
        gate.wait()

    with pytest.raises(error), worker_threads(1) as pool:
        jobs = [pool.submit(wait), *(pool.submit(done.append, i) for i in range(50))]
        jobs[-1].add_done_callback(lambda _: gate.set())  # Dropped: only then the first one ends
        started.wait()
        raise error
    assert done == [] and [job.cancelled() for job in jobs] == [False] + [True] * 50
    with worker_threads(2) as pool:
        assert list(pool.map(abs, [-1, -2])) == [1, 2]


def processes(session):
    "Living processes of a session, with their command lines."
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, _, _, its_session = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
            if int(its_session) == session and state not in "ZX":
                found[int(folder.name)] = (folder / "cmdline").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def wait_for(happens, seconds=60):
    end = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


VIDEOS = """
import signal, sys
from pathlib import Path
from deepfake_nbs.datasets import _as_manifest, extract_frames

signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
root = Path(sys.argv[1])
rows = _as_manifest([dict(path=p.name, label=0) for p in sorted(root.glob("*.mp4"))])
try:
    frames, _ = extract_frames(rows, root, root / "work", 600, workers=2, progress=False)
    print(len(frames))
except KeyboardInterrupt:
    sys.exit(130)
"""
DRAWING = """
import signal, sys
from pathlib import Path
from deepfake_nbs.miniature import draw_miniature

signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
try:
    draw_miniature(Path(sys.argv[1], "work"), 40, 0, 0, workers=2, progress=False)
except KeyboardInterrupt:
    sys.exit(130)
"""


def draw_videos(folder):
    for i in range(4):
        writer = cv2.VideoWriter(str(folder / f"v{i}.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 25, (128, 128))
        noise = np.random.default_rng(i).integers(0, 256, (128, 128, 3)).astype(np.uint8)
        for number in range(600):
            writer.write(np.roll(noise, number, 1))
        writer.release()


def start(code, folder):
    return subprocess.Popen([sys.executable, "-c", code, str(folder)], start_new_session=True, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)


INT, TERM, KILL = (signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)


@needs_proc
@pytest.mark.parametrize("script, when, ends, whom", [
    (VIDEOS, "start", INT, "group"), (VIDEOS, "start", TERM, "group"), (VIDEOS, "start", KILL, "parent"),
    (VIDEOS, "work", INT, "group"), (VIDEOS, "work", INT, "parent"), (VIDEOS, "work", TERM, "parent"), (VIDEOS, "work", KILL, "parent"),
    (DRAWING, "work", INT, "group"), (DRAWING, "work", TERM, "parent"),
])
def test_no_process_outlives_an_interruption(tmp_path, script, when, ends, whom):
    number, code = ends
    if script == VIDEOS:
        draw_videos(tmp_path)
    parent = start(script, tmp_path)
    try:
        if when == "start":  # The server is there, its workers hardly
            wait_for(lambda: any("forkserver" in line for line in processes(parent.pid).values()))
        else:
            wait_for(lambda: sum(path.suffix in (".png", ".jpg") for path in tmp_path.rglob("*")) > 5)
            assert len(processes(parent.pid)) >= 4  # Parent, server, two workers
        (os.kill if whom == "parent" else os.killpg)(parent.pid, number)
        said, errors = parent.communicate(timeout=60)
        wait_for(lambda: not processes(parent.pid), 20)
    finally:
        if parent.poll() is None or processes(parent.pid):
            os.killpg(parent.pid, signal.SIGKILL)
    if ends == KILL:  # Python's own resource tracker counts what a killed process could not put away
        errors = "".join(line for line in errors.splitlines() if "resource_tracker" not in line and "warnings.warn" not in line)
    assert (parent.returncode, said, errors) == (code, "", "")


@needs_proc
def test_what_is_half_done_resumes(tmp_path):
    draw_videos(tmp_path)
    parent = start(VIDEOS, tmp_path)
    wait_for(lambda: any((tmp_path / "work").glob("*/frames.json")))
    os.killpg(parent.pid, signal.SIGINT)
    parent.communicate(timeout=60)
    done = {path: path.stat().st_mtime_ns for path in (tmp_path / "work").glob("*/frames.json")}
    assert 1 <= len(done) < 4
    said, errors = start(VIDEOS, tmp_path).communicate(timeout=120)
    assert (said, errors) == ("2400\n", "")
    assert all(path.stat().st_mtime_ns == time for path, time in done.items())


@needs_proc
def test_workers_end_where_the_results_are_not_used_up():
    with closing(in_processes(math.sqrt, list(range(50)), workers=2)) as results:
        assert next(results) == 0
        mine = {pid for pid in processes(os.getsid(0)) if parent_of(parent_of(pid)) == os.getpid()}
        assert len(mine) == 2
    wait_for(lambda: not mine & set(processes(os.getsid(0))), 20)


def parent_of(pid):
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0


def test_a_process_that_ends_at_once_leaves_no_warning_of_semaphores():
    code = """
import math, os
from deepfake_nbs.parallel import in_processes
results = in_processes(math.sqrt, [1, 4, 9], workers=2)
print(next(results), flush=True)
os._exit(3)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)  # Until the last holder of the pipe ends
    assert (done.returncode, done.stdout, done.stderr) == (3, "1.0\n", "")
