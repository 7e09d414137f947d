"""Autocast as the observer has it, for code that asks torch about it or switches it off."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from types import ModuleType
from typing import Any
from unittest import mock

import torch

from vramplan.architecture.observed.surroundings import Surroundings


@contextmanager
def observed_autocast(files: Iterable[ModuleType], around: Surroundings) -> Iterator[None]:
    """While it lasts, `around` answers; transformers switches autocast off by these files' `maybe_autocast`."""

    def enabled(*_: Any) -> bool:
        return bool(around.observer.autocast())

    def dtype(*_: Any) -> torch.dtype:
        kind: torch.dtype = getattr(torch, around.observer.autocast() or "bfloat16")
        return kind

    @contextmanager
    def switched(*_: Any, enabled: bool = True, **__: Any) -> Iterator[None]:
        if enabled:
            yield
            return
        with around.without_autocast():
            yield

    with ExitStack() as patches:
        for file in files:
            if hasattr(file, "maybe_autocast"):
                patches.enter_context(mock.patch.object(file, "maybe_autocast", switched))
        patches.enter_context(mock.patch.object(torch, "is_autocast_enabled", enabled))
        patches.enter_context(mock.patch.object(torch, "get_autocast_dtype", dtype))
        yield
