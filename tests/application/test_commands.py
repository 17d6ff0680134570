"How a command ends: interrupted, without room for its output, without memory, with names that no terminal shows."

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from deepfake_nbs.application.models import untrained_run
from deepfake_nbs.commands import explain, one_line

COMMAND = Path(sys.executable).with_name("deepfake-nbs")
START = """
import sys
from deepfake_nbs import commands
commands.check_memory = lambda: None
commands.COMMANDS["deepfake-nbs"] = ("small", "work", {})
commands.main()
"""


def start(folder: Path, code: str, **how) -> subprocess.CompletedProcess:
    "A command whose module is `code`: the real beginning and end, without the seconds that torch takes to load."
    (folder / "small.py").write_text(code)
    environment = os.environ | {"PYTHONPATH": str(folder)} | how.pop("env", {})
    return subprocess.run(
        [sys.executable, "-c", START],
        env=environment,
        timeout=60,
        **{"capture_output": True, "text": True, **how},
    )


SIGNALS = [
    (signal.SIGINT, "deepfake-nbs: interrupted\n", 130),
    (signal.SIGTERM, "deepfake-nbs: terminated\n", 143),
]
KILL = "import os; os.kill(os.getpid(), {:d})"


@pytest.mark.parametrize("number, line, code", SIGNALS)
@pytest.mark.parametrize(
    "module",
    [
        "KILL\nraise SystemError('it went on')",
        "def work(): KILL; raise SystemError('it went on')",
        "def work():\n    try: KILL\n    except BaseException: pass",
        "def work():\n    try: KILL\n    except BaseException as error: raise RuntimeError('a worker was killed') from error",
    ],
    ids=["loading", "working", "swallowed", "turned into another error"],
)
def test_a_signal_is_one_line_and_its_code(tmp_path, module, number, line, code):
    done = start(tmp_path, module.replace("KILL", KILL.format(number)))
    assert (done.returncode, done.stderr, done.stdout) == (code, line, "")


@pytest.mark.parametrize("number, line, code", SIGNALS)
def test_no_worker_is_left_and_what_was_printed_is_kept(tmp_path, number, line, code):
    module = f"""
import multiprocessing, os, signal, tempfile
def work():
    child = multiprocessing.get_context("fork").Process(target=signal.pause)
    child.start()
    with tempfile.TemporaryDirectory(dir={str(tmp_path)!r}, prefix="half-"):
        print(child.pid)
        os.kill(os.getpid(), {number:d})
"""
    done = start(tmp_path, module)
    assert (done.returncode, done.stderr) == (code, line)
    with pytest.raises(ProcessLookupError):
        os.kill(int(done.stdout), 0)
    assert not list(tmp_path.glob("half-*")), "what was unwound tidied up"


def test_a_worker_says_nothing_when_the_terminal_interrupts_all(tmp_path):
    work = f"    pid = os.fork()\n    if not pid: os.kill(os.getpid(), {signal.SIGINT:d})\n    print(os.waitpid(pid, 0)[1] >> 8)"
    module = f"import os\ndef work():\n{work}"
    done = start(tmp_path, module)
    assert (done.returncode, done.stdout, done.stderr) == (0, "130\n", "")


def test_a_command_behind_nohup_is_not_interrupted(tmp_path):
    module = f"def work(): {KILL.format(signal.SIGINT)}; print('went on')"
    done = start(tmp_path, module, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN))
    assert (done.returncode, done.stdout) == (0, "went on\n")


MANY = "def work():\n    for i in range(20_000): print('a line of some length', i)"


def test_a_full_disk_behind_standard_output_is_named(tmp_path):
    with open("/dev/full", "w") as full:
        for module in (MANY, "def work(): print('one line')"):
            done = start(tmp_path, module, capture_output=False, stdout=full, stderr=subprocess.PIPE)
            assert (done.returncode, done.stderr) == (
                1,
                "deepfake-nbs: standard output: No space left on device\n",
            )


def test_a_closed_pipe_is_quiet(tmp_path):
    read, write = os.pipe()
    os.close(read)
    done = start(tmp_path, MANY, capture_output=False, stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


def test_closed_streams(tmp_path):
    module = f"def work(): open({str(tmp_path / 'done')!r}, 'w').write('it worked'); print('said')"
    done = start(
        tmp_path, module, capture_output=False, stderr=subprocess.PIPE, preexec_fn=lambda: os.close(1)
    )
    assert (done.returncode, done.stderr) == (1, "deepfake-nbs: standard output: Bad file descriptor\n")
    assert not (tmp_path / "done").exists(), (
        "nothing is begun: the next file would take the place of standard output"
    )
    done = start(
        tmp_path,
        module + "; import sys; print('x', file=sys.stderr)",
        capture_output=False,
        stdout=subprocess.PIPE,
        preexec_fn=lambda: os.close(2),
    )
    assert (done.returncode, done.stdout, (tmp_path / "done").read_text()) == (0, "said\n", "it worked")


@pytest.mark.parametrize(
    "encoding, expected", [("ascii", b"caf\\xe9 \\udce9\n"), ("latin-1", b"caf\xe9 \\udce9\n")]
)
def test_terminals_that_lack_a_character_get_its_code(tmp_path, encoding, expected):
    done = start(
        tmp_path, "def work(): print('caf\\xe9 \\udce9')", env={"PYTHONIOENCODING": encoding}, text=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, expected, b"")


def test_too_little_memory_for_torch_is_one_line(tmp_path):
    limit = dict(preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (10**9, 10**9)))
    done = subprocess.run([COMMAND, "check", tmp_path / "a.jpg"], capture_output=True, text=True, **limit)
    assert (
        done.returncode == 1
        and done.stderr.count("\n") == 1
        and "memory is limited to 1.0 GB (ulimit -v)" in done.stderr
    )
    for error in (
        "MemoryError()",
        "ImportError('libtorch_cpu.so: failed to map segment from shared object')",
        "OSError(12, 'Cannot allocate memory')",
        "RuntimeError('DefaultCPUAllocator: not enough memory: 1 byte')",
    ):
        done = start(tmp_path, f"def work(): raise {error}")
        assert done.returncode == 1 and done.stderr.count("\n") == 1 and "not enough memory" in done.stderr, (
            error
        )


def test_a_fault_of_the_program_keeps_its_traceback(tmp_path):
    done = start(tmp_path, "def work(): {}['gone']")
    assert done.returncode == 1 and "Traceback" in done.stderr and "KeyError: 'gone'" in done.stderr
    assert explain(KeyError("gone")) is None


def test_a_part_that_cannot_be_loaded_is_named(tmp_path):
    done = start(tmp_path, "import no_such_part")
    assert (done.returncode, done.stderr.count("\n")) == (
        1,
        1,
    ) and "No module named 'no_such_part'" in done.stderr


def test_messages_are_one_line_that_a_terminal_only_shows():
    assert one_line("a\x1b[2J\r\u202e\u2028\nb") == r"a\x1b[2J\r\u202e\u2028\nb"
    assert (
        one_line(FileNotFoundError(2, "No such file or directory", "a\x1bb"))
        == r"a\x1bb: No such file or directory"
    )
    assert (
        one_line(OSError(28, "No space left on device", "a.png", None, "set/a.png"))
        == "a.png -> set/a.png: No space left on device"
    )
    long = one_line("/photos/" + "x" * 6300 + ": expected a folder")
    assert (
        len(long) < 510
        and long.startswith("/photos/xx")
        and long.endswith("xx: expected a folder")
        and "[...]" in long
    )


def test_a_command_names_itself_once(root):
    done = subprocess.run(
        [COMMAND, "run", "nbs/gone.ipynb", "x.ipynb"], cwd=root, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (1, f"deepfake-nbs: {root}/nbs/gone.ipynb: no such notebook\n")


@pytest.mark.parametrize("old, new", [("deepfake-nbs-chapter", "run"), ("deepfake-nbs-train", "train")])
def test_an_old_name_says_the_new_one_and_does_the_same(root, old, new):
    words = {"run": ["nbs/gone.ipynb", "x.ipynb"], "train": ["epochs=many"]}[new]
    done = subprocess.run([COMMAND.with_name(old), *words], cwd=root, capture_output=True, text=True)
    again = subprocess.run([COMMAND, new, *words], cwd=root, capture_output=True, text=True)
    note, *said = done.stderr.splitlines()
    assert (
        note
        == f"{old}: this command is now called `deepfake-nbs {new}`; the old name goes with the next version"
    )
    assert (done.returncode, done.stdout) == (again.returncode, again.stdout) and again.returncode in (1, 2)
    assert [line.removeprefix(f"{old}: ").removeprefix("deepfake-nbs: ") for line in said] == [
        line.removeprefix("deepfake-nbs: ") for line in again.stderr.splitlines()
    ]


def test_the_old_name_is_noted_by_one_process_of_torchrun(tmp_path):
    code = START.replace("commands.main()", "commands.train()")
    (tmp_path / "small.py").write_text("def work(**how): print(how['args'])")
    for rank, note in (("0", 1), ("1", 0)):
        environment = os.environ | {"PYTHONPATH": str(tmp_path), "RANK": rank}
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60
        )
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (0, "['train']\n", note)


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_page_that_is_stopped_says_how_to_begin_again(tmp_path, number, code):
    module = f"""
import os
from deepfake_nbs.application import cli
def stopped(*words): os.kill(os.getpid(), {number:d})
cli.run_notebook = stopped
def work(): return cli.app(["run", "nbs/page.ipynb", "out.ipynb"], standalone_mode=False)
"""
    done = start(tmp_path, module)
    said = "page.ipynb: stopped, nothing was promoted; the same command starts it again.\n"
    assert (done.returncode, done.stderr, done.stdout) == (code, said, "")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    "One photograph whose name is neither UTF-8 nor printable."
    folder = tmp_path_factory.mktemp("photos")
    Image.new("RGB", (40, 30), "tan").save(folder / "a.png")
    os.rename(folder / "a.png", os.path.join(os.fsencode(folder), b"caf\xe9\x1b[31m.png"))
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return untrained_run(tmp_path_factory.mktemp("run"), head_threshold=None, crop=False)


def test_check_without_a_home_a_display_or_an_alphabet(tmp_path, run, photos):
    "The real command, and what is saved under a name that cannot be shown."
    environment = {name: value for name, value in os.environ.items() if name not in ("HOME", "MPLCONFIGDIR")}
    environment |= {
        "MPLBACKEND": "nonsense",
        "HOME": "/dev/null",
        "PYTHONIOENCODING": "ascii",
        "PYTHONUTF8": "0",
        "LC_ALL": "C",
    }
    done = subprocess.run(
        [COMMAND, "check", photos, "--run", run, "--save", tmp_path], capture_output=True, env=environment
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.splitlines()[-1].endswith(rb"caf\udce9\x1b[31m.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0000-caf__[31m.json", "0000-caf__[31m.png"]


def test_words_that_the_command_does_not_know(run, photos):
    done = subprocess.run(
        [COMMAND, "check", photos, "--run", run, "--row", "1/../8"], capture_output=True, text=True
    )
    assert (
        (done.returncode, done.stderr.count("\n")) == (2, 1)
        and "'--row'" in done.stderr
        and "check --help`" in done.stderr
    )
