"""Training in several processes: two that share a step's clips learn what one learns from all of them."""

import functools
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import PartialState, debug_launcher

from corrlib import processes, training
from corrlib.encoder import PixelEncoder
from corrlib.losses import LossWeights
from corrlib.processes import ALONE, Processes
from corrlib.training import TrainConfig

SMALL = TrainConfig(
    steps=10, clips=2, frames=2, size=40, points=30, width=4, textures=3, bfloat16=False, learning_rate=5e-3,
    real_clips=2, own_radius=3, label="teacher", teacher_momentum=0.9, domain_warm_up=False,
)  # fmt: skip
WHOLE = LossWeights(reconstruction=1.0, domain=1.0, masks=1.0)


class Frozen(PixelEncoder):
    """Batch statistics are as they were at first."""

    def train(self, mode=True):
        super().train(mode)
        for module in self.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.training = False
        return self


def trained(config, **how):
    torch.manual_seed(int(os.environ.get("RANK", 0)))  # unlike the first's, which is taken
    model = Frozen(width=4, fine_channels=8)
    return training.train(model, config, WHOLE, **how), model.state_dict()


def in_a_process(folder, config, stop):
    """What each of the two does."""
    PartialState._reset_state()  # of the process that this one is a copy of
    together = processes.here()
    assert together.count == 2 and together.any(together.rank == 1) and not together.any(False)
    tensors = [torch.full((2, 3), 1.0 + together.rank), torch.tensor(10.0 * together.rank)]
    together.average(tensors)
    assert tensors[0].eq(1.5).all() and tensors[1] == 5
    state = folder / "state.pt"
    first = trained(config, state_path=state, seconds=stop if together.rank else float("inf"))[0]
    assert len(first) == 1  # the other process's time was up
    history, weights = trained(config, state_path=state)
    torch.save((history, weights), folder / f"{together.rank}.pt")


def test_two_processes_are_as_good_as_one(tmp_path, real_folder):
    """The same losses to 1e-4 over ten steps of the whole method, stopped after the first; equal weights in both."""
    config = replace(SMALL, real_videos=real_folder)
    history, weights = trained(config)
    debug_launcher(functools.partial(in_a_process, tmp_path, config, 0.0), num_processes=2)
    (one, same), (other, too) = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    assert all(torch.equal(same[name], too[name]) for name in same)
    for name in ("coarse", "fine", "masks", "reconstruction", "domain", "domain_accuracy", "domain_gradient", "total"):
        expected = [record[name] for record in history]
        assert [record[name] for record in one] == pytest.approx(expected, rel=1e-4), name
        assert [record[name] for record in other] == pytest.approx(expected, rel=1e-4), name
    assert history[0]["total"] > 0.1 + history[-1]["total"]  # they learn something
    for name, value in weights.items():
        assert torch.allclose(value, same[name], rtol=1e-2, atol=1e-3), name


def test_alone_nothing_is_exchanged():
    value = torch.tensor([1.0, 2.0])
    assert ALONE.total(value) is value and ALONE.any(True) and not ALONE.any(False)
    ALONE.add_up([value]), ALONE.average([value])
    assert value.tolist() == [1.0, 2.0]
    assert Processes(1, 3).mine(4) == slice(4, 8)
    assert processes.here().count == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"accumulate": 2, "clips": 3}, "clips should be a multiple of 2, 1 processes times accumulate 2, got 3"),
        ({"accumulate": 2, "real_clips": 1}, "real_clips should be a multiple of 2"),
    ],
)
def test_clips_that_cannot_be_shared_out(changes, message, real_folder):
    with pytest.raises(ValueError, match=message):
        trained(replace(SMALL, real_videos=real_folder, **changes))


def test_processes_part_before_they_end(tmp_path):
    """A process group that is still there when Python ends, or one of its threads, now and then aborts the process."""
    script = tmp_path / "script.py"
    script.write_text(
        "import atexit, os, pathlib, torch\n"
        "def left():\n"
        "    threads = [each.read_text() for each in pathlib.Path('/proc/self/task').glob('*/comm')]\n"
        "    return torch.distributed.is_initialized(), sum('gloo' in name for name in threads)\n"
        "mine = pathlib.Path(__file__).with_name(os.environ['RANK'])\n"
        "atexit.register(lambda: mine.write_text(str(left())))\n"
        "from corrlib import processes\n"
        "assert processes.here() == processes.here() and processes.here().count == 2\n"
        "torch.optim.SGD([torch.nn.Parameter(torch.ones(1))])  # which imports what keeps a group\n"
    )
    how = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    environ = os.environ | {"PYTHONPATH": str(Path(processes.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    ran = subprocess.run([sys.executable, *how], env=environ, capture_output=True, text=True)
    assert ran.returncode == 0 and [(tmp_path / rank).read_text() for rank in "01"] == ["(False, 0)"] * 2, ran.stderr
    assert "Exception ignored" not in ran.stderr


def test_a_notebook_launches_processes():
    def count():
        together = processes.here()
        return {"count": together.count, "sum": together.total(torch.tensor([1.0 + together.rank]))}

    found = processes.launch(count, 2)
    assert found["count"] == 2 and found["sum"].tolist() == [3.0]
    assert processes.launch(count, 1)["count"] == 1

    def fail():
        raise ValueError("no such colour")

    with pytest.raises(Exception, match="no such colour"):
        processes.launch(fail, 2)
    with pytest.raises(ValueError, match="count should be at least 1, got 0"):
        processes.launch(count, 0)
