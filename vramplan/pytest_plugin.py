"""The pytest plugin: a `vram` fixture that measures a test's own code, predicts scenarios and holds to baselines.

    def test_step_fits(vram):
        with vram(limit="2GiB", device="cpu") as used:
            step()
        assert used.growth < 512 * 2**20

    def test_recipe_fits(vram):
        assert vram.predict("llama-3.1-8b", gpu="rtx4090", seq=2048).verdict.fits

Nothing but pytest is imported until a test uses the fixture.
"""

from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

import pytest

if TYPE_CHECKING:
    from vramplan.check import Check
    from vramplan.ledger import Ledger
    from vramplan.measure.usage import Usage
    from vramplan.measure.watch import CpuWatch, CudaWatch
    from vramplan.record import Device, Prediction, Record
    from vramplan.report.timeline_samples import Tensors
    from vramplan.scenario import Scenario

#: What a test's failure shall show besides its own words: made when it is wanted.
_TOLD = pytest.StashKey[list[Callable[[], str]]]()


@pytest.fixture
def vram(request: pytest.FixtureRequest) -> "Vram":
    """Memory in tests: `with vram(limit="2GiB"): step()`, `vram.predict(target)`, `vram.check(result, against=...)`."""
    told: list[Callable[[], str]] = []
    request.node.stash[_TOLD] = told
    return Vram(told, request.node)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failed test shows the ledger of everything that it measured and predicted."""
    report = yield
    told = item.stash.get(_TOLD, [])
    if report.failed and call.when == "call" and told:
        report.sections.append(("vram", "\n\n".join(tell() for tell in told)))
    return report


class Vram:
    """What the fixture `vram` is."""

    def __init__(self, told: list[Callable[[], str]], item: Any) -> None:
        self._told = told
        self._item = item

    def __call__(
        self, limit: int | str | None = None, *, growth: int | str | None = None, device: "Device" = "cpu"
    ) -> "Used":
        """A block whose memory is measured; the test fails when its peak is over `limit`, or grew by over `growth`.

        `limit` is on all that the device holds, models made before included; `growth` on what the block adds to that.
        Both are bytes, or text such as `2GiB`. On `cpu` every storage is counted; on `cuda` the allocator's counters
        are read, and without a GPU the test is skipped.
        """
        from vramplan.units import parse_bytes

        given = {"limit": limit, "growth": growth}
        limits = {what: parse_bytes(str(size), what) for what, size in given.items() if size is not None}
        used = Used(_watch(device), limits, lambda peak: self._item.user_properties.append(("vram_peak", peak)))
        self._told.append(used.text)
        return used

    def predict(
        self,
        target: "str | Path | Scenario",
        *,
        engine: Literal["analytic", "trace"] = "analytic",
        device: "Device" = "cuda",
        budget: int | str | None = None,
        **overrides: Any,
    ) -> "Prediction":
        """What a scenario (a file, a name, a model) will need, some of its keys changed: `batch=4, gpu="rtx4090"`."""
        from vramplan.api import predict
        from vramplan.report.layout import Page
        from vramplan.report.terminal import render_prediction
        from vramplan.scenario import Scenario

        if isinstance(target, Scenario) and overrides:
            raise TypeError("keys change a target; give the changed scenario itself")
        scenario = target if isinstance(target, Scenario) else Scenario.load(target, **overrides)
        prediction = predict(scenario, engine, device=device, budget=budget)
        self._told.append(lambda: render_prediction(prediction, Page()))
        return prediction

    def check(self, result: "Prediction | Record", *, against: str | Path, limits: str | Sequence[str] = ()) -> "Check":
        """Hold a prediction or record to a baseline, as `vramplan check` does; the test fails unless it passes.

        Of a baseline of many results only the one of the same scenario, engine and device is meant. `limits` are one
        or several such as `peak:1%`.
        """
        __tracebackhide__ = True
        from vramplan.check import DEFAULT_LIMITS, Item, check, parse_limits, read_items
        from vramplan.errors import UsageError
        from vramplan.record import Result
        from vramplan.report.check_text import render_check
        from vramplan.report.layout import Page

        if not isinstance(result, Result):
            hint = "check one at a time: vram.check(vram.predict(target), against=...)"
            raise UsageError(f"{result!r:.60} is no prediction and no record", hint=hint)
        item = Item(result, "this test")
        adds = f"`vramplan check TARGET --against {against} --update` adds it, with the keys of this test as flags"
        if not Path(against).exists():
            raise UsageError(f"{against} does not exist", hint=adds)
        scope = [known for known in read_items(Path(against)) if known.key == item.key]
        if not scope:
            raise UsageError(f"{against} has no result of {item.key}", hint=adds)
        given = parse_limits([limits] if isinstance(limits, str) else limits)
        done = check([item], scope, given or DEFAULT_LIMITS)
        if not done.passed:
            pytest.fail(render_check(done, Page()), pytrace=True)
        return done


class Used:
    """A measured block, and, once it has ended, what it took."""

    def __init__(self, watch: "CpuWatch | CudaWatch", limits: dict[str, int], note_peak: Callable[[int], None]) -> None:
        self._watch = watch
        self._limits = limits
        self._note_peak = note_peak
        self._usage: Usage | None = None

    def __enter__(self) -> Self:
        self._watch.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        __tracebackhide__ = True
        self._watch.__exit__(kind, error, trace)
        self._usage = self._watch.usage()
        self._note_peak(self.peak)
        if error is None:
            self._judge()

    def _judge(self) -> None:
        __tracebackhide__ = True
        from vramplan.units import human

        found = {"limit": (self.peak, "at the peak"), "growth": (self.growth, "more than before")}
        for what, most in self._limits.items():
            size, words = found[what]
            if size > most:
                over = f"{human(size - most)} over the {what} of {human(most)}"
                pytest.fail(f"vram: {human(size)} {words} on {self.usage.device} is {over}")

    @property
    def usage(self) -> "Usage":
        """Everything that is known of the block."""
        if self._usage is None:
            raise RuntimeError("what a block took is known when the with statement has ended")
        return self._usage

    @property
    def peak(self) -> int:
        """Bytes at the highest moment, what was held before included."""
        return self.usage.peak

    @property
    def growth(self) -> int:
        """Bytes of the peak above what was held when the block began."""
        return self.usage.growth

    @property
    def before(self) -> int:
        """Bytes held when the block began."""
        return self.usage.before

    @property
    def after(self) -> int:
        """Bytes held when the block ended."""
        return self.usage.after

    @property
    def reserved(self) -> int:
        """Bytes of the CUDA allocator's segments at their highest; 0 on cpu."""
        return self.usage.reserved

    @property
    def ledger(self) -> "Ledger":
        """Phases and components of the block; without entries on cuda."""
        return self.usage.ledger

    @property
    def tensors(self) -> "tuple[Tensors, ...]":
        """The largest tensors at the peak, named; on cuda those that were alive at the end."""
        from vramplan.report.usage_text import largest

        return largest(self.usage)

    def text(self) -> str:
        """What a failed test shows of the block."""
        from vramplan.report.usage_text import render_usage

        return render_usage(self._usage) if self._usage else "a block that never ran"


def _watch(device: str) -> "CpuWatch | CudaWatch":
    """The meter of a device; no torch fails the test, no GPU skips it."""
    __tracebackhide__ = True
    from importlib.util import find_spec

    from vramplan.api import DEVICES
    from vramplan.errors import CannotRun, unknown

    if device not in DEVICES:
        raise unknown("device", str(device), DEVICES)
    if find_spec("torch") is None:
        pytest.fail("vram: measuring needs torch, which is not installed: pip install 'vramplan[measure]'")
    from vramplan.measure.watch import CpuWatch, CudaWatch

    if device == "cpu":
        return CpuWatch()
    try:
        return CudaWatch()
    except CannotRun as error:
        pytest.skip(f"vram: {error.message}")
