"""The processes that train together, and where each of them works.

One alone, or those that torchrun started, on this machine or on several: accelerate finds the device,
joins them, and adds up between them. What is random is drawn for all of them by each of them, which
then takes its own rows; so their number changes no result but by rounding, batch statistics aside.
"""

import atexit
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

Found = TypeVar("Found")


class Processes(NamedTuple):
    """This process's number among those that train together, how many there are, and its device."""

    rank: int = 0
    count: int = 1
    device: torch.device = torch.device("cpu")

    def mine(self, count: int) -> slice:
        """The rows of this process, of so many that it has."""
        return slice(self.rank * count, (self.rank + 1) * count)

    def total(self, value: Tensor) -> Tensor:
        """The sum of a tensor over all processes; no gradient flows through it."""
        if self.count == 1:
            return value
        from accelerate.utils import reduce

        return reduce(value, "sum")

    def add_up(self, tensors: Sequence[Float[Tensor, "..."]]) -> None:
        """Replaces tensors of one type by their sums over all processes, in one message."""
        if self.count > 1 and tensors:
            sums = self.total(torch.cat([tensor.flatten() for tensor in tensors]))
            for tensor, part in zip(tensors, sums.split([tensor.numel() for tensor in tensors])):
                tensor.copy_(part.view_as(tensor))

    def agree(self, module: torch.nn.Module) -> None:
        """Makes a module's weights those of the first process."""
        with torch.no_grad():
            tensors = [value for value in module.state_dict().values() if value.is_floating_point()]
            for tensor in tensors if self.rank else ():
                tensor.zero_()
            self.add_up(tensors)

    def average(self, tensors: Sequence[Float[Tensor, "..."]]) -> None:
        """Replaces tensors of one type by their means over all processes."""
        self.add_up(tensors)
        for tensor in tensors if self.count > 1 else ():
            tensor.div_(self.count)

    def any(self, condition: bool) -> bool:
        """Whether it holds in any of the processes."""
        return bool(self.total(torch.tensor(float(condition), device=self.device)))


ALONE = Processes()


def here() -> Processes:
    """The processes that this one was started with: on GPUs where there are some, one each, else on processors."""
    from accelerate import PartialState  # takes a second to import, and only training needs it

    several = int(os.environ.get("WORLD_SIZE", 1)) > 1
    joining = several and not torch.distributed.is_initialized()
    if joining:
        # An optimiser imports this, and the defaults of its functions keep the group of that time, with its threads.
        from torch.distributed import nn  # noqa: F401
    state = PartialState(cpu=not (torch.cuda if several else torch.accelerator).is_available())
    if joining:
        atexit.register(torch.distributed.destroy_process_group)  # else its threads end some processes with an abort
    device = torch.device("cpu") if state.device.type == "cpu" else state.device
    return Processes(state.process_index, state.num_processes, device)


def launch(function: Callable[[], Found], count: int) -> Found:
    """Calls a function in several processes that train together, from a notebook, where torchrun does not reach.

    Each is a copy of this one, by accelerate's notebook_launcher on GPUs, one for each process, and
    otherwise on the processor, with one thread each. With a count of 1 it is only called.

    Args:
        function: trains; takes nothing. On GPUs nothing may have used one before.
        count: of processes.

    Returns:
        what the first process's call returned: tensors, numbers, strings and containers of these.

    Raises:
        ValueError: count is below 1.
        RuntimeError: the function failed in one of them.
    """
    if count < 1:
        raise ValueError(f"launch: count should be at least 1, got {count}.")
    if count == 1:
        return function()
    from accelerate import PartialState, debug_launcher, notebook_launcher

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "found.pt"

        def one_of_them() -> None:
            PartialState._reset_state()  # of the process that this one is a copy of
            if not torch.cuda.is_available():
                torch.set_num_threads(1)  # threads that the copied process had are not in the copy
            found = function()
            if here().rank == 0:
                torch.save(found, path)

        (notebook_launcher if torch.cuda.is_available() else debug_launcher)(one_of_them, num_processes=count)
        return torch.load(path, weights_only=True)
