import os
import signal
from pathlib import Path

import pytest

os.environ.setdefault("MPLBACKEND", "Agg")
for name in (
    "MAKEFLAGS",
    "MAKELEVEL",
    "MFLAGS",
    "MAKEOVERRIDES",
):  # `make test` starts this; a test starts make as a person does
    os.environ.pop(name, None)
# A shell that runs tests in the background has them ignore Ctrl-C, and so would the programs that they interrupt
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
pytest_plugins = ["noise_run", "helpers.browser", "helpers.pretrained_weights"]
ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def root() -> Path:
    "The project's folder."
    return ROOT


@pytest.fixture(scope="session")
def real() -> Path:
    "Real images for development; never committed, so absent on most machines."
    folder = ROOT.parent / "shared" / "real"
    if not folder.is_dir():
        pytest.skip("../shared/real is not on this machine")
    return folder
