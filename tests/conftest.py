"""What every test shares: Python's garbage collector has little to do.

torch, transformers and peft are a million objects that live as long as the process, and a replay makes as many that
refer to nothing but numbers. Looking through them took a fifth of the suite's time.
"""

import gc
from collections.abc import Iterator

import pytest

gc.set_threshold(20_000, 20, 20)


@pytest.fixture(autouse=True, scope="module")
def what_is_alive_is_no_garbage() -> Iterator[None]:
    """Objects that are there before a module's first test are set aside until after its last."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
