"""The kernel that scaled-dot-product attention is held to, where the scenario names one."""

from collections.abc import Iterator
from contextlib import contextmanager

_BACKENDS = {"flash": "FLASH_ATTENTION", "efficient": "EFFICIENT_ATTENTION", "cudnn": "CUDNN_ATTENTION", "math": "MATH"}


@contextmanager
def attention_backend(attention: str) -> Iterator[None]:
    """Hold sdpa to the backend after the colon (`sdpa:flash`); plain `sdpa` lets torch choose."""
    name = attention.partition(":")[2]
    if not name:
        yield
        return
    from torch.nn.attention import SDPBackend, sdpa_kernel

    with sdpa_kernel(getattr(SDPBackend, _BACKENDS[name])):
        yield
