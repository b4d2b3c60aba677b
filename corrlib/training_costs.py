"""What a training step costs on the machine at hand, against the loop that one would write first.

The naive loop computes in float32, lays maps out channel by channel, and draws its clips in between;
ours computes the encoder's products in bfloat16, keeps the channels of a cell together, and has clips
drawn by other processes meanwhile. Both take turns, so that whatever else the machine does hits both.
"""

import statistics
import time
from dataclasses import replace

import torch
from torch import nn

from . import training
from .losses import LossWeights
from .recipes import TrainConfig
from .training_data import Batch, batches
from .training_step import train_step

WARM = 3  # steps that are not counted


def measure(config: TrainConfig, steps: int = 20, workers: int = 1, rounds: int = 3) -> dict[str, dict]:
    """Seconds a step of both loops, medians over rounds, and their ratio, as entries of a metrics.json.

    Args:
        config: of the training; its `bfloat16` and number of steps are set here.
        steps: counted in each round, several times as many as workers draw ahead (four each).
        workers: processes that draw clips for our loop.
        rounds: in each of which both loops run once.

    Raises:
        ValueError: steps or rounds are below 1.
    """
    if min(steps, rounds) < 1:
        raise ValueError(f"training costs: steps and rounds should be at least 1, got {steps} and {rounds}.")
    took: dict[str, list[float]] = {"naive": [], "ours": []}
    for turn in range(rounds):
        given = replace(config, steps=steps + WARM, seed=config.seed + turn)
        took["naive"].append(seconds_per_step(replace(given, bfloat16=False), 0, naive=True))
        took["ours"].append(seconds_per_step(replace(given, bfloat16=True), workers, naive=False))
    found = {name: statistics.median(values) for name, values in took.items()}
    ratios = [naive / ours for naive, ours in zip(took["naive"], took["ours"])]
    entries = {f"training.{name}.seconds_per_step": (value, "s") for name, value in found.items()}
    entries |= {"training.ours.times_naive": (statistics.median(ratios), "ratio")}
    return {key: {"value": value, "unit": unit, "count": rounds} for key, (value, unit) in entries.items()}


def seconds_per_step(config: TrainConfig, workers: int, naive: bool) -> float:
    """The mean time of a step, clips and all, without the first `WARM` ones."""
    encoder = network(config, naive).train()
    optimizer = training.new_optimizer(list(encoder.parameters()), config)
    begun = time.perf_counter()
    for step, batch in enumerate(batches(config, 0, workers)):
        if step == WARM:
            begun = time.perf_counter()
        learn(encoder, optimizer, batch, config)
    return (time.perf_counter() - begun) / (config.steps - WARM)


def learn(encoder: nn.Module, optimizer: torch.optim.Optimizer, batch: Batch, config: TrainConfig) -> None:
    """One step, without its clips."""
    losses = train_step(encoder, None, batch, None, config, LossWeights())
    optimizer.zero_grad(set_to_none=True)
    losses["total"].backward()
    optimizer.step()


def network(config: TrainConfig, naive: bool) -> nn.Module:
    """An untrained encoder whose maps lie as each of the loops has them."""
    torch.manual_seed(config.seed)
    encoder = training.new_encoder(config)
    if naive:  # the encoder itself would lay them out better
        encoder.stem.register_forward_pre_hook(lambda module, given: (given[0].contiguous(),))
        return encoder
    return encoder.to(memory_format=torch.channels_last)
