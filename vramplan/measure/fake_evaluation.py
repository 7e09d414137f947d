"""An evaluation on fake tensors: what it gathered is moved to NumPy, which has no fake arrays."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch

from vramplan.measure.tracker import Tracker


@contextmanager
def evaluating(tracker: Tracker, *, card: bool) -> Iterator[None]:
    """Inside, tensors that become arrays go to the host of a card, whose cache is emptied, or stay on a CPU."""

    def numpify(tensors: Any) -> Any:
        if isinstance(tensors, list | tuple):
            return type(tensors)(map(numpify, tensors))
        if isinstance(tensors, Mapping):
            return {key: numpify(value) for key, value in tensors.items()}
        if card:
            return None
        # transformers 5.17 trainer_pt_utils.py `nested_numpify`: NumPy has no bfloat16
        return tensors.to(torch.float32) if tensors.dtype is torch.bfloat16 else tensors

    with ExitStack() as stack:
        stack.enter_context(mock.patch("transformers.trainer_pt_utils.nested_numpify", numpify))
        if card:  # transformers 5.17 trainer.py `evaluation_loop`
            stack.enter_context(mock.patch("torch.cuda.empty_cache", tracker.empty_cache))
        yield
