"""What both trainers share: moving averages, learning rates, checkpoints and a step clock."""

import copy
import logging
import math
import time
from collections import deque
from pathlib import Path

import torch
from torch import nn

logger = logging.getLogger(__name__)


def device() -> torch.device:
    """The GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def autocast(half: bool) -> torch.autocast:
    """Computes in bfloat16 where that is safe, if wanted."""
    return torch.autocast(device().type, torch.bfloat16, enabled=half)


def step_generator(seed: int, step: int) -> torch.Generator:
    """All randomness of one step.

    Since it depends on nothing but the step, an interrupted run goes on exactly as it would have.
    """
    return torch.Generator().manual_seed((seed << 32) + step)


def learning_rate(step: int, steps: int, peak: float, warm_up: int, hold: float = 0.0) -> float:
    """A linear warm-up, then the peak for a share `hold` of all steps, then a half cosine."""
    progress = max(0.0, (step / steps - hold) / (1 - hold))
    decay = 0.5 + 0.5 * math.cos(math.pi * min(progress, 1.0))
    return peak * min(1.0, (step + 1) / warm_up) * decay + peak * 0.01


class Average:
    """An exponential moving average of a module's weights."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.module = copy.deepcopy(module).requires_grad_(False).eval()
        self.decay = decay

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Takes in the weights after a step; early steps count more, so that it starts at once."""
        decay = min(self.decay, (1 + step) / (10 + step))
        averages, weights = list(self.module.parameters()), list(module.parameters())
        torch._foreach_lerp_(averages, [w.detach() for w in weights], 1 - decay)


class Checkpoint:
    """The state of a run, written often enough that an interruption costs a minute or two."""

    def __init__(self, path: Path, module: nn.Module, average: Average, optimizer: object) -> None:
        self.path = path
        self._parts = {"module": module, "average": average.module, "optimizer": optimizer}

    def save(self, step: int) -> None:
        """Writes the state after `step` steps."""
        state = {name: part.state_dict() for name, part in self._parts.items()}
        state["step"] = step
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(".partial")
        torch.save(state, partial)
        # A run that is killed while it writes keeps its previous checkpoint.
        partial.replace(self.path)

    def load(self) -> int:
        """Restores the state, if there is one; returns the number of steps done."""
        if not self.path.exists():
            return 0
        state = torch.load(self.path, map_location=device(), weights_only=True)
        for name, part in self._parts.items():
            part.load_state_dict(state[name])
        logger.info("resumed %s at step %d", self.path.name, state["step"])
        return state["step"]


class Clock:
    """Measures speed by the median step, which pauses of the process do not move."""

    def __init__(self, window: int = 100) -> None:
        self._durations: deque[float] = deque(maxlen=window)
        self._last = time.perf_counter()

    def tick(self) -> None:
        """Marks the end of a step."""
        now = time.perf_counter()
        self._durations.append(now - self._last)
        self._last = now

    def per_second(self, batch: int) -> float:
        """Samples per second."""
        ordered = sorted(self._durations)
        return batch / ordered[len(ordered) // 2] if ordered else 0.0


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Sets the learning rate of all groups."""
    for group in optimizer.param_groups:
        group["lr"] = rate
