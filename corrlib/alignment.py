"""Aligning two domains by an adversary: gradient reversal, and the discriminator behind it.

The discriminator learns to tell synthetic (0) from real (1) video by what the network makes of
them; the reversed gradient teaches the network to give it nothing to go by.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from . import coords, matching

INPUTS = ("raw", "normalised", "softmax", "features")


class _Reversal(torch.autograd.Function):
    """The identity, whose gradient is turned round and scaled."""

    @staticmethod
    def forward(ctx, values: Tensor, strength: float) -> Tensor:
        ctx.strength = strength
        return values.view_as(values)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        return -ctx.strength * grad, None


def reverse_gradient(values: Float[Tensor, "*shape"], strength: float = 1.0) -> Float[Tensor, "*shape"]:
    """The values themselves; their gradient is multiplied by -strength on its way back.

    Source: Ganin and Lempitsky, ICML 2015.
    """
    return _Reversal.apply(values, strength)


def warm_up(progress: float) -> float:
    """How much of the reversal's strength is used after that share of the training: 0 at first, towards 1.

    Source: Ganin et al., JMLR 2016, section 5.2.2.
    """
    return 2 / (1 + torch.exp(torch.tensor(-10.0 * progress)).item()) - 1


class Discriminator(nn.Module):
    """Three linear layers that tell from a vector which domain it is from: logits, above 0 for real.

    Each layer is half as wide as the one before it: 2401-1200-600-1 for correlations in windows of
    49 x 49 cells, 3.60 M parameters; 256-128-64-1 for the paper's features.

    Args:
        channels: length of the vectors, at least 4.

    After a backward pass `sent` is the norm of the gradient that went back to the network.

    Source: Li, Zhou and Liu, ICCV 2023, adversarial training.
    """

    def __init__(self, channels: int):
        super().__init__()
        if channels < 4:
            raise ValueError(f"Discriminator: channels should be at least 4, got {channels}.")
        self.layers = nn.Sequential(
            nn.Linear(channels, channels // 2),
            nn.ReLU(),
            nn.Linear(channels // 2, channels // 4),
            nn.ReLU(),
            nn.Linear(channels // 4, 1),
        )
        self.sent = 0.0

    def forward(self, vectors: Float[Tensor, "*shape C"], strength: float = 1.0) -> Float[Tensor, "*shape"]:
        reversed_vectors = reverse_gradient(vectors, strength)
        if reversed_vectors.requires_grad:
            reversed_vectors.register_hook(lambda grad: setattr(self, "sent", strength * grad.norm().item()))
        return self.layers(reversed_vectors)[..., 0]


def domain_vectors(
    query: Float[Tensor, "B C h w"],
    key: Float[Tensor, "B C h w"],
    cells: Float[Tensor, "B N 2"],
    radius: int,
    kind: str = "raw",
    temperature: float = 0.07,
) -> Float[Tensor, "B N V"]:
    """What the discriminator sees of a pair of frames, at some cells.

    Args:
        query, key: features, of unit length for "normalised" and "softmax", for the others raw.
        cells: whole cells of the query.
        radius: of the window of the key around the same place, in cells.
        kind: "raw" or "normalised": the products, the former as in the paper's release; "softmax",
            their affinity; "features", the query's features alone.
        temperature: of the affinity.

    Returns:
        V = (2 * radius + 1) ** 2 numbers, 0 where the key's cell is outside the frame; for
        "features" V = C.

    Raises:
        ValueError: the kind is unknown, or the radius is negative or larger than the map.

    Source: Li, Zhou and Liu, ICCV 2023; their discriminator sees every cell's raw correlations.
    Differs: raw products tell the domains apart by the length of the features alone, which the
    default of `recipes.TrainConfig`, "normalised", takes away.
    """
    if kind not in INPUTS:
        raise ValueError(f"domain_vectors: kind should be one of {', '.join(INPUTS)}, got {kind!r}.")
    vectors = coords.sample(query, cells)[0].mT
    if kind == "features":
        return vectors
    products, _ = matching.window_correlation(vectors, key, cells, radius)
    if kind == "softmax":
        return (products / temperature).softmax(dim=-1)
    return products.masked_fill(torch.isneginf(products), 0.0)


def some_cells(size_hw: tuple[int, int], batch: int, count: int) -> Float[Tensor, "B N 2"]:
    """So many random cells of each map of a batch, none twice; all of them for 0."""
    every = rearrange(coords.grid(size_hw), "h w c -> (h w) c")
    if not count or count >= len(every):
        return every.expand(batch, -1, -1)
    return torch.stack([every[torch.randperm(len(every))[:count]] for _ in range(batch)])


def domain_loss(synthetic: Float[Tensor, "N"], real: Float[Tensor, "M"]) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """How badly a discriminator tells synthetic (0) from real (1), by its logits: cross-entropy in nat.

    Returns:
        the mean over both domains, each counting half however many vectors it has, and the
        accuracy, of which 0.5 is chance.
    """
    loss = F.softplus(synthetic).mean() + F.softplus(-real).mean()
    accuracy = (synthetic <= 0).float().mean() + (real > 0).float().mean()
    return loss / 2, accuracy.detach() / 2
