"""Loss scaling for float16."""

import torch
from torch import Tensor


class Scaling:
    """torch's GradScaler, or nothing where the run does not autocast to float16 (accelerate 1.15 uses it only then).

    `step` reads one number back from the device (whether a gradient overflowed): the only such read of a step.
    """

    def __init__(self, device: torch.device, *, enabled: bool) -> None:
        self._scaler = torch.amp.GradScaler(device.type) if enabled else None

    def scale(self, loss: Tensor) -> Tensor:
        """The loss to call backward on."""
        return loss if self._scaler is None else self._scaler.scale(loss)

    def unscale(self, optimizer: torch.optim.Optimizer) -> None:
        """Divide the gradients by the scale, before they are clipped."""
        if self._scaler is not None:
            self._scaler.unscale_(optimizer)

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """Step unless a gradient overflowed, then adjust the scale."""
        if self._scaler is None:
            optimizer.step()
        else:
            self._scaler.step(optimizer)
            self._scaler.update()
