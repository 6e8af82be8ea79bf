"""Checkpoints: whole or not there at all, checked before use, and never code."""

from __future__ import annotations

import copy
import hashlib
import json
import pickle
import subprocess
import sys
import textwrap

import pytest
import torch
from safetensors.torch import load_file
from safetensors.torch import save as save_tensors
from tandem.shared.durable import seal, unseal
from tandem.shared.errors import CheckpointError, SpoiltCheckpoint
from tandem.shared.weights.checkpoints import CheckpointStore
from tandem.shared.weights.flat_model import FlatModel


def model(width=3, seed=0):
    """A flat model of one layer."""
    torch.manual_seed(seed)
    return FlatModel(torch.nn.Sequential(torch.nn.Linear(2, width)))


@pytest.fixture
def store(tmp_path):
    """An empty store."""
    return CheckpointStore(tmp_path / "checkpoints")


def save(store, version, flat, **details):
    """Save with an optimiser state that names the version."""
    return store.save(version, flat.state(), {"step": torch.tensor(float(version))}, details)


def test_what_was_saved_comes_back(store):
    """Model, optimiser state and details survive the way to disk and back, bit for bit."""
    flat = model()
    save(store, 7, flat, metrics={"mean_reward": 0.5}, generation=2)
    checkpoint = store.newest()
    assert checkpoint.version == 7
    assert checkpoint.manifest["metrics"] == {"mean_reward": 0.5}
    assert checkpoint.manifest["generation"] == 2
    other = model(seed=1)
    checkpoint.load_model(other)
    assert torch.equal(other.flat, flat.flat)
    assert checkpoint.load_optimiser()["step"] == 7


def test_the_newest_good_one_is_found(store):
    """A damaged newest checkpoint is passed over for the one before, and said so."""
    flat = model()
    save(store, 1, flat)
    path = save(store, 2, flat) / "optimiser.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert store.newest().version == 1
    with pytest.raises(CheckpointError, match="do not match the manifest's hash"):
        store.all()[1].load_optimiser()


@pytest.mark.parametrize(
    "manifest", ["", "{", "{}", '{"format": 1, "version": 4}', '{"format": 9, "version": 3, "sha256": {}}']
)
def test_a_bad_manifest_is_left_out(store, manifest):
    """A manifest that is empty, cut off, of another version or format takes its checkpoint out, not the others."""
    save(store, 1, model())
    (save(store, 3, model()) / "manifest.json").write_text(manifest)
    assert [checkpoint.version for checkpoint in store.all()] == [1]


def test_an_edited_manifest_is_left_out(store):
    """A manifest has a hash of its own: a version or a score that was never saved is not believed."""
    save(store, 1, model(), score={"mean": 0.1})
    folder = save(store, 2, model(), score={"mean": 0.1})
    text = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(text.replace("0.1", "9.9"))
    assert [checkpoint.version for checkpoint in store.all()] == [1]
    assert store.newest().version == 1


def test_a_manifest_of_an_earlier_program_is_good(store):
    """Those that were saved before manifests had a hash of their own stay usable."""
    folder = save(store, 2, model())
    manifest = unseal((folder / "manifest.json").read_bytes())
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert store.newest().version == 2


def test_a_folder_that_cannot_be_listed_has_no_checkpoints(tmp_path):
    """A file in place of the folder, or one in place of its parent, is no error of the reader."""
    (tmp_path / "file").write_text("x")
    for folder in (tmp_path / "file", tmp_path / "file" / "checkpoints"):
        store = CheckpointStore(folder)
        assert store.all() == []
        assert store.newest() is None
        with pytest.raises(CheckpointError, match="cannot be written"):
            save(store, 1, model())


def test_another_models_checkpoint_is_refused_whole(store):
    """The first tensor that differs is named, and nothing is half-loaded."""
    save(store, 1, model(width=4))
    flat = model(width=3)
    before = flat.flat.clone()
    with pytest.raises(CheckpointError, match=r"0\.(bias|weight) is torch.float32 \[4"):
        store.newest().load_model(flat)
    assert torch.equal(flat.flat, before)


def test_nothing_that_is_loaded_can_run_code(store, tmp_path):
    """A pickle in place of the tensors is refused unread, even if the manifest vouches for it."""
    import hashlib

    class Trap:
        """Writes a file when it is unpickled."""

        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    folder = save(store, 1, model())
    data = pickle.dumps({"0.weight": Trap()})
    (folder / "model.safetensors").write_bytes(data)
    manifest = unseal((folder / "manifest.json").read_bytes())
    manifest["sha256"]["model.safetensors"] = hashlib.sha256(data).hexdigest()
    (folder / "manifest.json").write_bytes(seal(manifest))
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        store.all()[0].load_model(model())
    assert store.newest() is None
    assert not (tmp_path / "ran").exists()


def test_pruning_keeps_the_newest_and_the_spared(store):
    """The newest `keep` and those named stay; what a killed writer left half done goes."""
    for version in range(1, 8):
        save(store, version, model())
    (store.folder / ".000000000009.1").mkdir()
    store.prune(2, {3})
    assert sorted(path.name for path in store.folder.iterdir()) == ["000000000003", "000000000006", "000000000007"]


def test_a_disk_that_refuses_leaves_nothing_with_a_final_name(store, monkeypatch):
    """A full disk is a CheckpointError; the checkpoints that were there stay."""
    save(store, 1, model())

    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tandem.shared.weights.checkpoints.os.fsync", refuse)
    with pytest.raises(CheckpointError, match="No space left"):
        save(store, 2, model())
    assert sorted(path.name for path in store.folder.iterdir()) == ["000000000001"]


def test_of_a_hundred_kills_while_saving_none_leaves_a_bad_checkpoint(tmp_path):
    """Killed at any moment of saving, whatever bears a final name is whole, and the newest never goes back."""
    script = textwrap.dedent(
        """
        import os, random, signal, sys, time
        from pathlib import Path
        import torch
        torch.set_num_threads(1)
        from tandem.shared.weights.checkpoints import CheckpointStore
        from tandem.shared.weights.flat_model import FlatModel
        flat = FlatModel(torch.nn.Linear(200, 100))
        store = CheckpointStore(Path(sys.argv[1]))
        chance = random.Random(7)
        midway = 0
        def versions():
            return [int(path.name) for path in store.folder.iterdir() if path.name.isdecimal()]
        store.folder.mkdir(exist_ok=True)
        started = time.monotonic()
        store.save(1, flat.state(), {"step": torch.tensor(1.0)}, {})
        duration, newest = time.monotonic() - started, 1
        for kill in range(100):
            child = os.fork()
            if child == 0:
                version = newest
                while True:
                    version += 1
                    store.save(version, flat.state(), {"step": torch.tensor(float(version))}, {})
                    store.prune(3)
            while max(versions()) == newest:
                time.sleep(0.0005)
            time.sleep(chance.uniform(0.0, 1.5 * duration))
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            named = versions()
            midway += any(path.name.startswith(".") for path in store.folder.glob(".*"))
            checkpoints = store.all()
            assert len(checkpoints) == len(named), (kill, named)
            for checkpoint in checkpoints:
                checkpoint.load_model(flat)
                assert checkpoint.load_optimiser()["step"] == checkpoint.version
            found = checkpoints[-1].version
            assert found > newest, (kill, found, newest)
            newest = found
        assert midway >= 20, midway
        """
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, timeout=150)
    assert done.returncode == 0, done.stderr


def test_a_checkpoint_that_holds_what_is_not_finite_is_not_used(store):
    """Neither model nor optimiser: it is refused by the tensor's name, and the one before is the newest."""
    flat = model()
    save(store, 1, flat)
    for version, name in ((2, "model.safetensors"), (3, "optimiser.safetensors")):
        folder = save(store, version, flat)
        tensors = load_file(folder / name)
        first = min(tensors)
        tensors[first] = torch.full_like(tensors[first], float("nan"))
        forge(folder, name, tensors)
        with pytest.raises(SpoiltCheckpoint, match=rf"{name}: {first} has a value that is not finite"):
            store.all()[-1].check()
    assert store.newest().version == 1


def test_a_constant_that_is_not_finite_comes_back(store):
    """A mask of -inf was saved on purpose."""
    module = torch.nn.Linear(2, 2)
    module.register_buffer("mask", torch.tensor([0.0, float("-inf")]))
    save(store, 4, FlatModel(module))
    other = FlatModel(copy.deepcopy(module))
    other.state()["mask"].zero_()
    store.newest().load_model(other)
    assert other.state()["mask"].tolist() == [0.0, float("-inf")]


def forge(folder, name, tensors):
    """Replace a file of a checkpoint, hash included, as an earlier release would have written it."""
    (folder / name).write_bytes(save_tensors(tensors))
    manifest = unseal((folder / "manifest.json").read_bytes())
    manifest["sha256"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    manifest.pop("not_finite")
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_a_checkpoint_of_another_learner_is_never_loaded(tmp_path):
    """Its tensors may fit: it is named, set aside by whoever may, and nothing of it is used."""
    regression = {"learner": "reward_regression", "exploration": "inverse_gap_weighting"}
    gradient = {"learner": "policy_gradient", "exploration": "softmax"}
    tensors = {"weight": torch.ones(3)}
    CheckpointStore(tmp_path, regression).save(1, tensors, {}, {})
    CheckpointStore(tmp_path).save(2, tensors, {}, {})
    CheckpointStore(tmp_path, gradient).save(3, tensors, {}, {})
    ours = CheckpointStore(tmp_path, regression)
    assert [checkpoint.version for checkpoint in ours.all()] == [1]
    assert [checkpoint.version for checkpoint in CheckpointStore(tmp_path, gradient).all()] == [2, 3]
    assert ours.newest().version == 1
    assert len(list(tmp_path.iterdir())) == 3, "whoever may not repair has renamed something"
    assert ours.newest(repair=True).version == 1
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names[0] == "000000000001"
    assert [name.partition("-")[0] for name in names[1:]] == ["000000000002.other", "000000000003.other"]
