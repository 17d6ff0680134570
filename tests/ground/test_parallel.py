"Worker processes: what they give, and that none is left behind, whatever ends the work."

import hashlib
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
import pandas as pd
import pytest
from joblib import parallel_config

from deepfake_nbs.core import file_sha256
from deepfake_nbs.data.video import extract_frames
from deepfake_nbs.parallel import _interruptions_later, batched, parallel_map, worker_threads

needs_proc = pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs /proc to see processes")


def test_results_come_in_order_and_errors_as_they_were_raised():
    assert (
        list(parallel_map(math.hypot, [3, 5, 8] * 20, [4, 12, 15] * 20, workers=2)) == [5.0, 13.0, 17.0] * 20
    )
    assert list(parallel_map(math.sqrt, [], workers=2)) == []
    with pytest.raises(ValueError, match="math domain error"):
        list(parallel_map(math.sqrt, [1, -1, 4], workers=2))


@pytest.mark.parametrize("threads", [False, True])
@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_names_the_item(threads, workers):
    with pytest.raises(ValueError, match="math domain error") as error:
        list(parallel_map(math.sqrt, [4, -7], workers=workers, threads=threads))
    assert error.value.__notes__ == ["while sqrt was given -7"]


def test_columns_are_of_one_length_and_lists_of_one_size():
    with pytest.raises(ValueError, match="shorter"):
        list(parallel_map(math.hypot, [1, 2], [1], threads=True))
    assert list(batched(range(5), 2)) == [[0, 1], [2, 3], [4]] and not list(batched([], 2))


@pytest.mark.parametrize("workers", [1, 3])
def test_threads_read_only_so_far_ahead(workers):
    pulled = []
    items = (pulled.append(i) or i for i in range(100))
    with closing(parallel_map(abs, items, workers=workers, threads=True, read_ahead=5)) as results:
        for n in range(20):
            assert next(results) == n and len(pulled) == n + 6


def test_processes_read_only_so_far_ahead():
    pulled = []
    items = (pulled.append(i) or i for i in range(100))
    with closing(parallel_map(math.sqrt, items, workers=2, read_ahead=5)) as results:
        assert [next(results) for _ in range(3)] == [0, 1, math.sqrt(2)] and len(pulled) == 8


@pytest.mark.parametrize(
    "weights, most, expected",
    [
        ([5] * 6, 10, [2, 3, 4, 5, 6, 6]),
        ([1, 50, 1, 1, 1, 1], 10, [1, 2, 6, 6, 6, 6]),
        ([1] * 6, math.inf, [5, 6, 6, 6, 6, 6]),
    ],
)
def test_heavy_items_are_not_held_ahead(weights, most, expected):
    "How many items have been handed to the threads when each result is given."
    submitted, seen = [], []
    with worker_threads(1) as pool:
        submit, pool.submit = pool.submit, lambda *call: submitted.append(call) or submit(*call)
        for _ in parallel_map(abs, weights, pool=pool, read_ahead=4, weigh=abs, most=most):
            seen.append(len(submitted))
    assert seen == expected


def test_after_an_error_nothing_more_is_begun():
    begun, gate = [], threading.Event()

    def work(i):
        begun.append(i)
        gate.wait() if i else None
        raise ValueError(i)

    with pytest.raises(ValueError, match="0"):
        with closing(parallel_map(work, range(50), workers=1, threads=True)) as results:
            threading.Timer(0.2, gate.set).start()
            next(results)
    assert begun in ([0], [0, 1])


def test_a_bar_is_shown_where_it_has_a_title(capsys):
    assert sum(parallel_map(abs, [-1, -2])) == 3 and capsys.readouterr().err == ""
    assert sum(parallel_map(abs, [-1, -2], progress="numbers")) == 3
    assert "numbers: 100%" in capsys.readouterr().err


# --- Backends of joblib ------------------------------------------------------------------------------------------------


def written(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("backend", ["threading", "loky", "multiprocessing", "sequential"])
def test_a_backend_that_is_named_serves_the_map(tmp_path, backend):
    for i in range(40):
        (tmp_path / f"{i}.txt").write_text(str(i))
    files = sorted(tmp_path.iterdir())
    expected = list(parallel_map(file_sha256, files))
    with parallel_config(backend=backend, n_jobs=2), worker_threads(1) as pool:
        assert list(parallel_map(file_sha256, files, read_ahead=3)) == expected
        assert list(parallel_map(file_sha256, iter(files), threads=True, progress="files")) == expected
        with closing(parallel_map(file_sha256, files)) as results:
            assert next(results) == expected[0]
        with pytest.raises(FileNotFoundError, match="gone.txt"):
            list(parallel_map(file_sha256, [*files, tmp_path / "gone.txt"]))
        here = []  # These stay in this process
        assert list(parallel_map(here.append, [1], threads=True, local=True)) == [None]
        assert list(parallel_map(here.append, [2], pool=pool)) == [None] and here == [1, 2]
    assert list(parallel_map(file_sha256, files, workers=None, threads=True)) == expected


def nested(path):
    "Whether a map inside a map stays in its own process, and what it gives."
    return (
        os.getpid(),
        {os.getpid(), *parallel_map(os.getpgid, [0, 0], workers=2)} == {os.getpid(), os.getpgid(0)},
        file_sha256(path),
    )


def test_a_map_inside_a_map_stays_where_it_is(tmp_path):
    (tmp_path / "a").write_text("a")
    with parallel_config(backend="threading", n_jobs=2):
        assert [told[1] for told in parallel_map(nested, [tmp_path / "a"] * 4)] == [True] * 4


def test_a_dask_cluster_takes_the_same_frames_as_one_process(tmp_path):
    distributed = pytest.importorskip(
        "dask.distributed", reason="dask.distributed is not installed: a cluster was not tried"
    )
    (tmp_path / "videos").mkdir()
    draw_videos(tmp_path / "videos")
    videos = pd.DataFrame(
        [dict(path=path.name, label=0, video="") for path in sorted((tmp_path / "videos").iterdir())]
    )
    one = extract_frames(videos, tmp_path / "videos", tmp_path / "one", 20, workers=1, progress=False)
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
    ) as cluster:
        with distributed.Client(cluster) as client, parallel_config(backend="dask"):
            two = extract_frames(videos, tmp_path / "videos", tmp_path / "two", 20, workers=1, progress=False)
            files = sorted((tmp_path / "two").rglob("*.png"))
            hashes = list(parallel_map(file_sha256, files, threads=True, read_ahead=16))
            pids = set(parallel_map(worker_pid, range(40)))
            assert pids <= set(client.run(os.getpid).values())
            with pytest.raises(FileNotFoundError, match="gone.png") as error:
                list(parallel_map(file_sha256, [*files, tmp_path / "gone.png"]))
    pd.testing.assert_frame_equal(one[0], two[0])
    assert written(tmp_path / "one") == written(tmp_path / "two") and len(files) == 80
    assert hashes == [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]
    assert "gone.png" in error.value.__notes__[0]


def worker_pid(_):
    return os.getpid()


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
import pandas as pd
from deepfake_nbs.data.video import extract_frames

signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
root = Path(sys.argv[1])
rows = pd.DataFrame([dict(path=p.name, label=0, video="") for p in sorted(root.glob("*.mp4"))])
try:
    frames, _ = extract_frames(rows, root, root / "work", 600, workers=2, progress=False)
    print(len(frames))
except KeyboardInterrupt:
    sys.exit(130)
"""
DRAWING = """
import signal, sys
from pathlib import Path
from deepfake_nbs.miniature.drawing import draw_miniature

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
    return subprocess.Popen(
        [sys.executable, "-c", code, str(folder)],
        start_new_session=True,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


INT, TERM, KILL = (signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)


@needs_proc
@pytest.mark.parametrize(
    "script, when, ends, whom",
    [
        (VIDEOS, "start", INT, "group"),
        (VIDEOS, "start", TERM, "group"),
        (VIDEOS, "start", KILL, "parent"),
        (VIDEOS, "work", INT, "group"),
        (VIDEOS, "work", INT, "parent"),
        (VIDEOS, "work", TERM, "parent"),
        (VIDEOS, "work", KILL, "parent"),
        (DRAWING, "work", INT, "group"),
        (DRAWING, "work", TERM, "parent"),
    ],
)
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
        errors = "".join(
            line
            for line in errors.splitlines()
            if "resource_tracker" not in line and "warnings.warn" not in line
        )
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
    with closing(parallel_map(math.sqrt, list(range(50)), workers=2)) as results:
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
from deepfake_nbs.parallel import parallel_map
results = parallel_map(math.sqrt, [1, 4, 9], workers=2)
print(next(results), flush=True)
os._exit(3)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True
    )  # Until the last holder of the pipe ends
    assert (done.returncode, done.stdout, done.stderr) == (3, "1.0\n", "")
