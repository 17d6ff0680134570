"""The recorded training step: what can be seen without a GPU, and, where there is one, its numbers."""

import pytest
import torch
from fastai.data.core import DataLoaders
from torch import nn

from deepfake_nbs.engine import OPTIMISERS, EpochRecorder, make_learner, torch_optimiser
from deepfake_nbs.graphs import RecordedSteps, TrainingStep, rate_in, record, state_kept

BATCHES = [
    (torch.randn(n, 3, 4, 4, generator=torch.manual_seed(n)), torch.arange(n) % 2) for n in (6, 6, 6, 5)
]


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Dropout(0.2), nn.Linear(32, 2)
    )


def train(callbacks, batches=BATCHES, optimiser="adam", device="cpu"):
    batches = [(x.to(device), y.to(device)) for x, y in batches]
    model, rates = network().to(device), lambda gone: 0.01 / (1 + gone)
    options = dict(fused=True) if device == "cuda" else {}
    loaders = DataLoaders(batches, [], device=torch.device(device))
    learner = make_learner(
        loaders, model, nn.CrossEntropyLoss(), torch_optimiser(optimiser, **options), 0.01, rates, callbacks
    )
    torch.manual_seed(1)
    learner.fit(1)
    return learner


def nothing(step):
    "Stands for recording: the steps stay plain."


@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_steps_of_the_callback_give_the_numbers_of_plain_steps(optimiser):
    plain, ours = (
        train([], optimiser=optimiser),
        train([RecordedSteps("float32", nothing)], optimiser=optimiser),
    )
    for a, b in zip(plain.model.state_dict().values(), ours.model.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b)
    assert plain.epoch_recorder.mean_loss() == pytest.approx(ours.epoch_recorder.mean_loss(), abs=1e-6)
    assert ours.epoch_recorder.counts == [6, 6, 6, 5]  # The last, smaller batch took a plain step
    assert ours.opt.hypers[0]["lr"] == plain.opt.hypers[0]["lr"]


@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_warming_up_moves_nothing(optimiser):
    model = network()
    made = OPTIMISERS[optimiser](model.parameters(), lr=0.1)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    step = TrainingStep(model, nn.CrossEntropyLoss(), made, *BATCHES[0])
    with state_kept(model, made), rate_in(made, 0.5):
        step.plain()
        assert any(not torch.equal(before[key], value) for key, value in model.state_dict().items())
        assert made.param_groups[0]["lr"] == 0.5
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    moments = [v for state in made.state.values() for v in state.values() if isinstance(v, torch.Tensor)]
    assert moments and not any(value.any() for value in moments)
    assert made.param_groups[0]["lr"] == 0.1


def test_moments_of_a_resumed_training_are_put_back():
    model = network()
    made = OPTIMISERS["adam"](model.parameters(), lr=0.1)
    step = TrainingStep(model, nn.CrossEntropyLoss(), made, *BATCHES[0])
    step.plain()
    kept = [value.clone() for state in made.state.values() for value in state.values()]
    with state_kept(model, made):
        step.plain()
    again = [value for state in made.state.values() for value in state.values()]
    assert all(torch.equal(a, b) for a, b in zip(kept, again, strict=True)) and any(v.any() for v in kept)


def test_a_step_that_cannot_be_recorded_is_a_plain_one_with_a_note():
    def fail(step):
        raise RuntimeError("no capture here")

    with pytest.warns(UserWarning, match="no CUDA graph of a training step .no capture here.; plain steps"):
        ours = train([RecordedSteps("float32", fail)])
    for a, b in zip(train([]).model.parameters(), ours.model.parameters(), strict=True):
        torch.testing.assert_close(a, b)
    assert ours.recorded_steps.failed and ours.recorded_steps.step is None


def test_a_lack_of_memory_is_not_taken_for_a_failed_record():
    def fail(step):
        raise torch.OutOfMemoryError("no memory")

    with pytest.raises(torch.OutOfMemoryError):
        train([RecordedSteps("float32", fail)])


def test_a_loss_that_is_not_finite_names_its_batch():
    broken = [BATCHES[0], (BATCHES[1][0] * float("nan"), BATCHES[1][1]), BATCHES[2]]
    ours = train([RecordedSteps("float32", nothing)], batches=broken)
    assert ours.epoch_recorder.failed_batch == "training batch 2"
    assert RecordedSteps.order < EpochRecorder.order


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU: a CUDA graph cannot be recorded")
@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_a_graph_gives_the_numbers_of_plain_steps(optimiser):
    plain = train([], optimiser=optimiser, device="cuda")
    ours = train([RecordedSteps("float32", record)], optimiser=optimiser, device="cuda")
    assert ours.recorded_steps.step is not None and ours.recorded_steps.step.graph is not None
    for a, b in zip(plain.model.state_dict().values(), ours.model.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
