"""torch as a fresh process has it, for one thread at a time: what runs the libraries must not depend on who asks."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from threading import RLock

#: Held by whoever replaces functions of the libraries, or sets what torch keeps once for all threads.
_ALONE = RLock()


@contextmanager
def own_torch() -> Iterator[None]:
    """Inside, no other thread is in here, and torch has its defaults; afterwards it has again what the caller set.

    The defaults are gradients, no autocast, float32 and the CPU. torch is imported only now.
    """
    import torch

    with _ALONE, ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(_without_autocast())
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        stack.callback(torch.set_default_dtype, torch.get_default_dtype())
        torch.set_default_dtype(torch.float32)
        yield


@contextmanager
def _without_autocast() -> Iterator[None]:
    """Outside of every region: `torch.autocast(enabled=False)` would be one more, and only leaving the outermost frees
    the copies that autocast keeps of weights."""
    import torch

    on = [kind for kind in ("cpu", "cuda") if torch.is_autocast_enabled(kind)]
    cached = torch.is_autocast_cache_enabled()
    depth = torch.autocast_increment_nesting()
    for _ in range(depth):
        torch.autocast_decrement_nesting()
    for kind in on:
        torch.set_autocast_enabled(kind, False)
    torch.set_autocast_cache_enabled(True)
    torch.clear_autocast_cache()
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(cached)
        for kind in on:
            torch.set_autocast_enabled(kind, True)
        for _ in range(depth - 1):
            torch.autocast_increment_nesting()
