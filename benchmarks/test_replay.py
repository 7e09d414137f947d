"""How long the caching allocator's replay takes: `make bench`."""

from collections.abc import Callable

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from vramplan.allocator import Replay, Rules, prepare, replay
from vramplan.ledger import Component
from vramplan.predict.forecast import forecast
from vramplan.scenario import Scenario
from vramplan.timeline import Alloc, Free, Repeat


@pytest.mark.parametrize("expandable", [False, True], ids=["default", "expandable"])
@pytest.mark.parametrize("model", ["llama-2-7b", "llama-3.1-70b", "llama-3.1-405b"])
def test_a_run(
    model: str, expandable: bool, benchmark: BenchmarkFixture, traced: Callable[[Callable[[], object]], None]
) -> None:
    timeline = forecast(Scenario.load(model, seq=2048), "cuda").timeline
    rules = Rules(expandable_segments=expandable)
    benchmark.extra_info["events"] = sum(1 for _ in timeline.events())

    def play() -> Replay:
        return replay(prepare(timeline.parts, rules=rules))

    traced(play)
    assert benchmark.pedantic(play, rounds=5).oom is None


def test_rounds_that_are_not_run(benchmark: BenchmarkFixture) -> None:
    """A million rounds that change nothing more after the first."""
    body = (Alloc(1, 40 * 2**20, Component.WORKSPACE, "one"), Free(1))
    assert benchmark(replay, (Repeat(body, 10**6),)).driver_calls == 1
