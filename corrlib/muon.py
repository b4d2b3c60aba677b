"""Muon for convolutions, AdamW for the rest: equal steps in all directions that the gradients of late have had."""

import torch
from torch import Tensor

MOMENTUM = 0.9
RMS = 0.2  # of the numbers of one step, at a rate of 1: about what AdamW's have


class Muon(torch.optim.AdamW):
    """AdamW, but for the kernels of convolutions, which move along their momentum made orthogonal.

    As a matrix of one row an output channel, all singular values of such a step are about alike, so that the rarely
    asked directions are learnt as fast as the common ones. PyTorch's own `torch.optim.Muon` takes matrices only, and
    multiplies in bfloat16, which a processor without such instructions has to imitate.

    Args:
        parameters: those of four dimensions are kernels.
        lr: the rate of AdamW, from which schedules start.
        times: the kernels' rate, in units of `lr`.
        weight_decay: of all of them, a step at the rate of each.

    Source: Jordan et al., Muon: An optimizer for hidden layers in neural networks (2024); the scale of a step is
    that of Liu et al., Muon is scalable for LLM training (2025).
    """

    def __init__(self, parameters: list[Tensor], lr: float, times: float = 4.0, weight_decay: float = 0.0):
        kernels = [p for p in parameters if p.ndim == 4]
        others = [p for p in parameters if p.ndim != 4]
        groups = [{"params": kernels, "lr": times * lr}, {"params": others}]
        super().__init__([group for group in groups if group["params"]], lr=lr, weight_decay=weight_decay)

    @torch.no_grad()
    def step(self) -> None:
        """One step along the gradients that the parameters have; kernels are left without theirs."""
        for group in self.param_groups:
            for kernel in (p for p in group["params"] if p.ndim == 4 and p.grad is not None):
                state = self.state[kernel]
                if not state:  # AdamW wants a number of steps of all that has a state
                    state |= {"step": torch.tensor(0.0), "momentum": torch.zeros_like(kernel)}
                momentum = state["momentum"]
                momentum.lerp_(kernel.grad, 1 - MOMENTUM)
                ahead = kernel.grad.lerp(momentum, MOMENTUM).flatten(1)
                kernel.mul_(1 - group["lr"] * group["weight_decay"])
                length = group["lr"] * RMS * max(ahead.shape) ** 0.5
                kernel.add_(orthogonal(ahead).view_as(kernel), alpha=-length)
                kernel.grad = None
        super().step()


def orthogonal(matrix: Tensor) -> Tensor:
    """A matrix (R, C) with its singular vectors, and singular values between about 0.7 and 1.2, less where they were
    below a hundredth of its norm; zeros stay.

    Five steps of a Newton-Schulz iteration, whose numbers are Jordan's: steep at zero rather than exact at one.
    """
    found = matrix / (matrix.norm() + 1e-7)
    found = found.T if len(matrix) > matrix.shape[1] else found
    gram = found @ found.T  # all that happens is a polynomial of it, so that the long rows wait for the last line
    factor = one = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    for _ in range(5):
        times = 3.4445 * one - 4.775 * gram + 2.0315 * gram @ gram
        factor, gram = times @ factor, times @ gram @ times
    found = factor @ found
    return found.T if len(matrix) > matrix.shape[1] else found
