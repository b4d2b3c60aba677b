"""Random numbers, from one generator, as the drawing of scenes wants them."""

import math

import torch
from torch import Tensor


class Dice:
    """Draws from one generator."""

    def __init__(self, seed: int):
        self.generator = torch.Generator().manual_seed(seed)
        self.ahead: list[float] = []

    def __call__(self, low: float = 0.0, high: float = 1.0) -> float:
        """A number between two."""
        if not self.ahead:  # many at once: a single one costs as much
            self.ahead = torch.rand(256, generator=self.generator).tolist()
        return low + (high - low) * self.ahead.pop()

    def many(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """Numbers between two."""
        numbers = torch.rand(shape, generator=self.generator)
        numbers = numbers if high - low == 1 else numbers.mul_(high - low)
        return numbers.add_(low) if low else numbers

    def log(self, low: float, high: float) -> float:
        """A number between two, its logarithm evenly so."""
        return math.exp(self(math.log(low), math.log(high)))

    def chance(self, share: float) -> bool:
        """True in this share of throws."""
        return self() < share

    def pick(self, *things):
        """One of them."""
        return things[min(int(self() * len(things)), len(things) - 1)]
