"""What a caller set in torch neither reaches what runs inside nor is lost by it."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from threading import Event
from time import sleep

import pytest

from vramplan.architecture.own_torch import own_torch

torch = pytest.importorskip("torch")


@contextmanager
def default_dtype(dtype: "torch.dtype") -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def state() -> tuple[object, ...]:
    """What a step depends on; the depth of autocast's regions is told by entering one more."""
    depth = torch.autocast_increment_nesting()
    torch.autocast_decrement_nesting()
    made = torch.empty(1)
    return (
        torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu"),
        torch.is_autocast_cache_enabled(), depth, made.dtype, made.device.type,
    )  # fmt: skip


SETTINGS = {
    "no_grad": lambda: torch.no_grad(),
    "inference_mode": lambda: torch.inference_mode(),
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16, cache_enabled=False),
    "default dtype": lambda: default_dtype(torch.bfloat16),
    "default device": lambda: torch.device("meta"),
}


@pytest.mark.parametrize("setting", [*SETTINGS, "all"])
def test_inside_torch_has_its_defaults_and_outside_what_was_set(setting: str) -> None:
    fresh = state()
    assert fresh == (True, False, False, True, 1, torch.float32, "cpu")
    wanted: list[AbstractContextManager[object]] = [SETTINGS[n]() for n in SETTINGS if setting in (n, "all")]
    with ExitStack() as stack:
        for one in wanted:
            stack.enter_context(one)
        outside = state()
        assert outside != fresh
        with own_torch():
            assert state() == fresh
            with own_torch():  # as a trace reads an architecture outside the table
                assert state() == fresh
        assert state() == outside
        with pytest.raises(ZeroDivisionError), own_torch():
            raise ZeroDivisionError
        assert state() == outside
    assert state() == fresh


def test_a_second_thread_waits_until_the_first_is_outside() -> None:
    entered, started, order = Event(), Event(), list[str]()

    def first() -> None:
        with own_torch():
            entered.set()
            started.wait(10)
            sleep(0.2)  # in which the second would be inside
            order.append("first")

    def second() -> None:
        entered.wait(10)
        started.set()
        with own_torch():
            order.append("second")

    with ThreadPoolExecutor(2) as threads:
        for done in [threads.submit(first), threads.submit(second)]:
            done.result()
    assert order == ["first", "second"]
