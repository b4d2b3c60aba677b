"""States of a training: those of earlier versions are taken up, and neither a kill nor a full disk loses one."""

import json
import os
import random
import resource
import signal
import time
from dataclasses import replace
from multiprocessing import get_context

import pytest
import torch
from accelerate import PartialState, debug_launcher

from corrlib import checkpoints, processes, training
from corrlib.encoder import PixelEncoder
from corrlib.training import TrainConfig

TINY = TrainConfig(steps=6, clips=1, frames=2, size=32, points=20, width=4, textures=3)


def encoder():
    torch.manual_seed(0)
    return PixelEncoder(width=4)


def weights_of(model):
    return torch.cat([value.flatten().double() for value in model.state_dict().values()])


@pytest.fixture
def state(tmp_path):
    path = tmp_path / "state.pt"
    training.train(encoder(), TINY, state_path=path, seconds=0.0)
    return path


def test_a_state_that_does_not_know_a_setting_is_taken_up(state):
    """As if it held the default; with another value it is of another training."""
    saved = torch.load(state, weights_only=True)
    settings, counts = json.loads(saved["config"])
    assert settings.pop("stage4") is False and counts.pop("domain") == 0.0
    torch.save({**saved, "config": json.dumps([settings, counts])}, state)
    whole, resumed = encoder(), encoder()
    training.train(whole, TINY)
    training.train(resumed, TINY, state_path=state)
    assert torch.equal(weights_of(whole), weights_of(resumed))
    torch.save({**saved, "config": json.dumps([settings, counts])}, state)
    with pytest.raises(ValueError, match="holds a training of another configuration"):
        training.train(encoder(), replace(TINY, stage4=True), state_path=state)


@pytest.mark.parametrize("damage", ["truncated", "text", "empty", "other"])
def test_damaged_states_are_refused(state, damage):
    data = {"truncated": state.read_bytes()[:-2000], "text": b"hello" * 50, "empty": b"", "other": b""}[damage]
    state.write_bytes(data)
    if damage == "other":
        torch.save({"weights": torch.zeros(3)}, state)
    with pytest.raises(ValueError, match=r"state\.pt should be the state of a training, and is not"):
        training.train(encoder(), TINY, state_path=state)


def test_a_full_disk_leaves_the_last_state(state):
    before, limits = state.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limits[1]))
    try:
        with pytest.raises(OSError, match=r"state\.pt could not be written, and is as it was"):
            training.train(encoder(), TINY, state_path=state)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert state.read_bytes() == before and [p.name for p in state.parent.iterdir()] == ["state.pt"]


def train_and_save(pipe, config, state, out):
    """What is killed: a training that keeps its state after every step."""
    model = encoder()
    training.train(model, config, state_path=state, report=lambda step, record: pipe.send(step))
    if processes.here().rank == 0:
        checkpoints.save(out, model, {})


def train_together(pipe, config, state, out):
    """The same, by two processes in one group, which one signal kills."""
    os.setsid()

    def one_of_them():
        PartialState._reset_state()  # of the process that this one is a copy of
        train_and_save(pipe, config, state, out)

    debug_launcher(one_of_them, num_processes=2)


def kill(child):
    child.kill()


def kill_both(child):
    os.killpg(child.pid, signal.SIGKILL)


@pytest.mark.parametrize(("target", "end"), [(train_and_save, kill), (train_together, kill_both)], ids=["one", "two"])
def test_killed_at_any_moment_it_goes_on_to_the_same_weights(target, end, tmp_path, monkeypatch):
    """SIGKILL at ten random moments, most of them in the middle of writing; no file is lost or half-written."""
    monkeypatch.setattr(training, "SAVE_EVERY", 0.0)
    config, moments, fork = replace(TINY, steps=60, clips=2), random.Random(0), get_context("fork")
    state, out, whole = (tmp_path / name for name in ("state.pt", "out.safetensors", "whole.safetensors"))

    def begin(*where):
        mine, theirs = fork.Pipe()
        child = fork.Process(target=target, args=(theirs, config, *where))
        child.start()
        theirs.close()
        return child, mine

    begin("", whole)[0].join()
    for _ in range(10):
        child, said = begin(state, out)
        for _ in range(moments.randint(2, 5)):
            step = said.recv()
        time.sleep(moments.random() * 0.05)
        end(child)
        child.join()
        done = json.loads(torch.load(state, weights_only=True)["history"])
        assert child.exitcode == -signal.SIGKILL and len(done) >= step and not out.exists()
    begin(state, out)[0].join()
    assert torch.equal(weights_of(checkpoints.load(whole)), weights_of(checkpoints.load(out)))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.safetensors", "state.pt", "whole.safetensors"]
