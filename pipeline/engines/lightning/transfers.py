"""Numbers on their way to a device and back. A GPU reaches memory that stays in its place ten times faster."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def sent(numbers: Tensor, device: torch.device) -> Tensor:
    """On the device; to a GPU without waiting until it has finished what it was told before."""
    if device.type != "cuda":
        return numbers.to(device)
    return numbers.pin_memory().to(device, non_blocking=True)


def fetched(numbers: Tensor) -> np.ndarray:
    """As NumPy holds them, which has no bfloat16. On a CPU the same memory."""
    numbers = numbers.detach()
    numbers = numbers.float() if numbers.dtype == torch.bfloat16 else numbers
    if numbers.device.type != "cuda":
        return numbers.cpu().numpy()
    return torch.empty(numbers.shape, dtype=numbers.dtype, pin_memory=True).copy_(numbers).numpy()
