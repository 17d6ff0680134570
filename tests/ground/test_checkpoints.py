"Contracts of weights and checkpoints: foreign files are refused by name, nothing in them runs, a checkpoint is whole or not there."

import os

import pytest
import torch
from safetensors.torch import save_file

from deepfake_nbs import checkpoints
from deepfake_nbs.checkpoints import best_epoch, fetch, load_state, read_state, read_weights, save_checkpoint, save_weights
from deepfake_nbs.classifiers.xception import create_model



@pytest.fixture(scope="module")
def midway():
    torch.manual_seed(1)
    return create_model("midway", width=0.1).eval()


def saved(model, path):
    state = {k: v.contiguous() for k, v in model.state_dict().items()}
    save_file(state, path) if path.suffix == ".safetensors" else torch.save(state, path)
    return path


def test_refused_weights_leave_the_network_as_it_was(midway):
    model = create_model("xception", width=0.1)
    before = model.conv1.weight.clone()
    with pytest.raises(ValueError):
        load_state(model, midway.state_dict(), "midway")
    assert torch.equal(model.conv1.weight, before)


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("name", ["evil.pt", "evil.pth", "evil.safetensors"])
def test_a_pickle_never_runs(tmp_path, name):
    torch.save({"conv1.weight": Evil(tmp_path / "ran")}, tmp_path / name)
    with pytest.raises(ValueError, match=name):
        read_state(tmp_path / name)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name, content", [("a.safetensors", b""), ("a.safetensors", b"not weights at all"), ("a.pt", b""),
                                           ("a.pt", b"not weights at all"), ("a.pt", b"PK\x03\x04broken")])
def test_broken_files_are_named(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=name):
        read_state(tmp_path / name)


def test_a_truncated_file_is_named(midway, tmp_path):
    for path in (saved(midway, tmp_path / "m.safetensors"), saved(midway, tmp_path / "m.pt")):
        path.write_bytes(path.read_bytes()[:20_000])
        with pytest.raises(ValueError, match=path.name):
            read_state(path)


def test_a_missing_file_and_a_nested_dictionary(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing.pt"):
        read_state(tmp_path / "nothing.pt")
    torch.save({"state_dict": {"a": torch.zeros(1)}}, tmp_path / "nested.pt")
    with pytest.raises(ValueError, match="names and tensors"):
        read_state(tmp_path / "nested.pt")


# --- downloads --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [OSError("no route"), RuntimeError('invalid hash value (expected "43020ad28", got "0")')])
def test_a_download_that_fails_says_what_else_can_be_done(monkeypatch, error):
    def fail(*args, **more):
        raise error

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", fail)
    with pytest.raises(ConnectionError, match="net: cannot download http://x/net-43020ad28.pth .*; give a file") as caught:
        fetch("http://x/net-43020ad28.pth", "net", "give a file")
    assert str(error) in str(caught.value)


def test_a_download_is_bounded_in_time_silent_and_checked(monkeypatch, capsys):
    seen = {}

    def load(url, **options):
        print("Downloading to /home/somebody")
        seen.update(options, timeout=checkpoints.socket.getdefaulttimeout())
        return {"weight": torch.ones(1)}

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", load)
    assert fetch("http://x/net-0.pth", "net", "")["weight"].item() == 1
    assert seen == dict(map_location="cpu", progress=False, check_hash=True, weights_only=True, timeout=checkpoints.SECONDS_TO_ANSWER)
    assert checkpoints.socket.getdefaulttimeout() is None and capsys.readouterr().out == ""


# --- checkpoints ------------------------------------------------------------------------------------------------------


def test_weights_come_back_from_either_form_of_file(midway, tmp_path):
    for name in ("a.safetensors", "a.pt"):
        again = create_model("midway", width=0.1)
        read_weights(again, saved(midway, tmp_path / name))
        assert all(torch.equal(a, b) for a, b in zip(again.state_dict().values(), midway.state_dict().values(), strict=True))
    with pytest.raises(ValueError, match=r"a.pt: not weights of this network \(why not\): "):
        read_weights(create_model("light", width=0.1), tmp_path / "a.pt", "why not")


def test_the_earliest_of_equal_epochs_is_kept():
    history = [dict(epoch=i + 1, loss=loss) for i, loss in enumerate((0.5, 0.3, 0.3))]
    assert best_epoch(history, lambda row: -row["loss"]) == 2 and best_epoch(history[:1], lambda row: -row["loss"]) == 1


def keep(folder, epoch, history, **kept):
    net = torch.nn.Linear(1, 1)
    torch.nn.init.constant_(net.weight, epoch)
    state = dict(identity=dict(seed=1), progress=dict(history=history[:epoch]))
    return save_checkpoint(folder, net, torch.optim.SGD(net.parameters(), 0.1, momentum=0.9), state, kept)


def test_a_checkpoint_holds_the_kept_epochs_and_replaces_the_one_before(tmp_path):
    history = [dict(epoch=i, auc=float("nan")) for i in (1, 2, 3)]
    for epoch in (1, 2, 3):
        checkpoint = keep(tmp_path / "run", epoch, history, best=min(epoch, 2), early=1)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["checkpoint-0003"]
    weights = {name: read_state(checkpoint / f"{name}.safetensors")["weight"].item() for name in ("last", "best", "early")}
    assert weights == dict(last=3, best=2, early=1)
    state = checkpoints.read_checkpoint_state(checkpoint)
    assert state["identity"] == dict(seed=1) and all(row["auc"] != row["auc"] for row in state["progress"]["history"])


@pytest.mark.parametrize("step", ["save_weights", "write_json"])
def test_a_stop_while_a_checkpoint_is_written_leaves_the_one_before(tmp_path, monkeypatch, step):
    history = [dict(epoch=1, auc=0.5), dict(epoch=2, auc=0.6)]
    keep(tmp_path / "run", 1, history, best=1)

    def stop(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, step, stop)
        with pytest.raises(KeyboardInterrupt):
            keep(tmp_path / "run", 2, history, best=2)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["checkpoint-0001"]
    assert keep(tmp_path / "run", 2, history, best=1).name == "checkpoint-0002"


def test_a_full_disk_names_the_file_of_weights(midway, tmp_path, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="No space left on device: .*model.safetensors"):
        save_weights(midway, tmp_path / "model.safetensors")
    assert list(tmp_path.iterdir()) == []
