"""Make .venv from requirements.lock, or bring it up to date. The standard library alone: it runs before anything is installed.

.venv/ready marks an environment as made here and says what it was made from, by content: a checkout changes file times, not hashes.
An environment without the mark belongs to somebody else and is left alone.
"""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

PLACE = Path(".venv")
MARK = PLACE / "ready"
NEW_MARK = PLACE / ".ready-new"
INSTALL = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]


def sources():
    "What the environment is made from; the folder, because the package in it points there."
    hashes = {
        name: hashlib.sha256(Path(name).read_bytes()).hexdigest()
        for name in ("requirements.lock", "pyproject.toml")
    }
    return {**hashes, "folder": os.getcwd()}


def read_mark():
    "What the mark says, empty for a set-up that did not end; None where there is no mark."
    if not MARK.is_file():
        return None
    return dict(line.split(" ", 1) for line in MARK.read_text(encoding="utf-8").splitlines() if " " in line)


def write_mark(made_from):
    NEW_MARK.write_text("".join(f"{name} {value}\n" for name, value in made_from.items()), encoding="utf-8")
    os.replace(NEW_MARK, MARK)


def refusal():
    "Why .venv cannot be used, or None."
    if PLACE.is_symlink() and not PLACE.exists():
        return f".venv is a link to {os.readlink(PLACE)}, which does not exist; remove the link or make that folder, then try again"
    if PLACE.exists() and not PLACE.is_dir():
        return ".venv is a file; expected a folder or nothing: move it away, then try again"
    if PLACE.is_dir() and read_mark() is None and set(PLACE.iterdir()) - {NEW_MARK}:
        return (
            ".venv was not made by this project and is left as it is; move it away, then try again, "
            "or run `touch .venv/ready` to let the packages of requirements.lock be installed into it"
        )
    return None


def call(*command, **options):
    "Exit code of a command in a session of its own: Ctrl-C reaches this program alone, which ends the command and all that it started."
    process = subprocess.Popen(command, start_new_session=True, **options)
    try:
        return process.wait()
    except BaseException:
        for number in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError, subprocess.TimeoutExpired):
                os.killpg(process.pid, number)
                process.wait(5)
        raise


def run(*command):
    code = call(*command)
    if code:
        sys.exit(
            f"setting up .venv failed ({' '.join(command[:4])} ended with {code}); the next make goes on from here"
        )


def forget_half_installed():
    "A package whose installation was cut off has no RECORD; without this pip takes it for installed."
    for folder in PLACE.glob("lib/python*/site-packages/*.dist-info"):
        if not (folder / "RECORD").is_file():
            shutil.rmtree(folder)


def install(made, python, inside):
    "Make the environment where it is absent or cannot run, then install what the lock says and is not there."
    if made is None:
        print("Setting up .venv: about 3 GB to download, 7 GB on disk, once", flush=True)
    else:
        print(
            "Bringing .venv up to date with requirements.lock: what is there already is not downloaded again",
            flush=True,
        )
    PLACE.mkdir(exist_ok=True)
    write_mark({"unfinished": "yes"})
    if not works(inside):
        needed = f"python 3.11 or newer is needed; {python} is "
        check = f"import sys; sys.exit(sys.version_info < (3, 11) and {needed!r} + sys.version.split()[0])"
        if call(python, "-c", check):
            sys.exit(1)
        run(python, "-m", "venv", str(PLACE))
    if "unfinished" in (made or {}):
        forget_half_installed()
    run(inside, *INSTALL, "--require-hashes", "-r", "requirements.lock")


def works(inside):
    return os.path.exists(inside) and not call(inside, "-c", "import pip", stderr=subprocess.DEVNULL)


def make(python):
    made, wanted, inside = read_mark(), sources(), str(PLACE / "bin" / "python")
    if made == wanted and os.path.exists(inside):
        return
    if (made or {}).get("requirements.lock") != wanted["requirements.lock"] or not os.path.exists(inside):
        install(made, python, inside)
        write_mark({"requirements.lock": wanted["requirements.lock"]})
    run(inside, *INSTALL, "--no-build-isolation", "--editable", ".")
    write_mark(wanted)
    if made is None and os.path.exists(".git"):
        print("If you edit notebooks: `git config core.hooksPath .githooks` cleans them before each commit")


def stop(number, frame):
    raise KeyboardInterrupt(number)


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    try:
        if refusal():
            sys.exit(refusal())
        make(sys.argv[1])
    except KeyboardInterrupt as stopped:
        print("Setting up .venv was stopped; the next make goes on from here", file=sys.stderr)
        sys.exit(128 + stopped.args[0])
    except OSError as error:
        sys.exit(f"{error.filename or '.venv'}: {error.strerror or error}")
