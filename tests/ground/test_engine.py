"Contracts of the training engine: schedules, precision, one process at a time, resume."

import subprocess
import sys
import threading

import numpy as np
import pytest
import torch

from deepfake_nbs import engine
from deepfake_nbs.engine import lock_run
from deepfake_nbs.runs import TrainingError


def test_the_published_schedule_is_torchs_step():
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.001)
    theirs = torch.optim.lr_scheduler.StepLR(optimiser, step_size=5, gamma=0.05)
    for epoch in range(25):
        assert engine.SCHEDULES["published"](0.001, epoch, 25) == pytest.approx(theirs.get_last_lr()[0])
        optimiser.step()
        theirs.step()


def test_cosine_warms_up_and_comes_to_rest():
    rates = [engine.SCHEDULES["cosine"](0.001, gone, 20) for gone in np.linspace(0, 20, 41)]
    assert np.argmax(rates) == 4 and rates[4] == pytest.approx(0.001), "a tenth of the run is warm-up"
    assert rates[0] < rates[4] / 10 and rates[-1] < rates[4] / 100 and (np.diff(rates[4:]) < 0).all()


def test_auto_takes_what_the_processor_has(monkeypatch):
    amd, intel = ({"avx512_bf16": True, "cpu_name": name} for name in ("AMD EPYC", "Intel(R) Xeon(R)"))
    for able, expected in (
        ({}, "float32"),
        ({"avx512_bf16": True}, "float32"),
        ({"amx_bf16": True}, "bfloat16"),
        (amd, "bfloat16"),
        (intel, "float32"),
        ({"cpu_name": "AMD EPYC"}, "float32"),
    ):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda able=able: able)
        assert engine.choose_precision("auto", "cpu") == expected
    assert engine.choose_precision("float32", "cpu") == "float32"


def test_a_run_that_another_process_trains_is_waited_for_or_refused(tmp_path, monkeypatch, capsys):
    out, order = tmp_path / "training" / "8", []

    def wait():
        with lock_run(out):
            order.append("second")

    with lock_run(out):
        with (
            monkeypatch.context() as several,
            pytest.raises(TrainingError, match="8: another process .* this run; start again when"),
        ):
            several.setattr(engine, "run_on_rank_zero", lambda make: make())
            several.setattr(engine, "rank_and_world_size", lambda: (0, 2))
            wait()
        other = threading.Thread(target=wait)
        other.start()
        other.join(0.5)
        order.append("first")
    other.join(30)
    assert (
        order == ["first", "second"]
        and "8: another process is training this run; waiting for it" in capsys.readouterr().out
    )


def test_freed_memory_is_kept_for_the_next_step():
    code = (
        "import resource, numpy as np\n"
        "from deepfake_nbs.engine import keep_freed_memory\n"
        "kept = keep_freed_memory()\n"
        "def faults():\n"
        "    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "    for _ in range(5):\n"
        "        np.ones(50_000_000, np.uint8)\n"
        "    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before\n"
        "faults(); print(kept, faults())\n"
    )
    kept, faults = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    if kept == "False":
        pytest.skip("the C library of this machine is not glibc")
    assert int(faults) < 1000  # 61,000 pages of 4 KB are asked for
