from vramplan.integrations.trend import STEPS, Reading, Trend
from vramplan.units import GIB, MIB


def run(trend: Trend, allocated: list[int], *, peak: int = 0) -> list[tuple[int, str]]:
    """Steps with these bytes held after them; what was said, with its step."""
    return [
        (step, line)
        for step, held in enumerate(allocated, 1)
        for line in trend.add(step, Reading(held, peak or held, peak or held), 0)
    ]


def test_a_steady_run_is_quiet() -> None:
    assert run(Trend(8 * GIB), [GIB] * 50) == []


def test_growth_that_falls_back_is_no_trend() -> None:
    sawtooth = [GIB + (i % STEPS) * 64 * MIB for i in range(100)]
    assert run(Trend(2 * GIB), sawtooth) == []


def test_growth_in_every_step_is_told_with_the_step_where_it_ends() -> None:
    growing = [GIB + i * 64 * MIB for i in range(STEPS + 1)]
    ((step, line),) = run(Trend(2 * GIB), growing)
    # 1 GiB + 8 x 64 MiB are held: 512 MiB are left, 8 steps of 64 MiB
    assert step == STEPS + 1
    assert "64.00 MiB a step" in line
    assert f"out of memory around step {STEPS + 1 + 8}, 8 from now" in line


def test_growth_is_told_again_when_half_of_the_way_is_gone() -> None:
    growing = [GIB + i * MIB for i in range(1000)]
    told = run(Trend(2 * GIB), growing)
    # 1,024 steps of 1 MiB; told first after step 9 with 1,016 left, then at half of what was left, and so on
    assert [step for step, _ in told][:3] == [9, 9 + 508, 9 + 508 + 254]
    assert len(told) < 12


def test_a_few_bytes_a_step_are_no_trend() -> None:
    assert run(Trend(GIB), [MIB + i * 512 for i in range(100)]) == []


def batches(trend: Trend, *pairs: tuple[int, int]) -> list[str]:
    """Steps whose largest micro-batch had these tokens and left this peak."""
    readings = [(tokens, Reading(GIB, peak, peak)) for tokens, peak in pairs]
    return [line for step, (tokens, reading) in enumerate(readings, 2) for line in trend.add(step, reading, tokens)]


def test_longer_batches_are_extrapolated() -> None:
    # 1 MiB a token: 1,000 tokens took 2,000 MiB, 2,000 take 3,000, and 8,000 would take 9,000 of 8,192 MiB
    (line,) = batches(Trend(8 * GIB, longest=8000), (1000, 2000 * MIB), (500, 2000 * MIB), (2000, 3000 * MIB))
    assert "step 4 had the largest micro-batch so far (2,000 tokens)" in line
    assert "1.00 MiB a token the longest one (8,000 tokens) would take 8.79 GiB of 8.00 GiB" in line
    assert "from about 7,192 tokens on" in line  # 2,000 + 8,192 - 3,000


def test_longer_batches_that_will_fit_are_not_mentioned() -> None:
    assert batches(Trend(16 * GIB, longest=8000), (1000, 2000 * MIB), (2000, 3000 * MIB)) == []
    assert batches(Trend(4 * GIB, longest=2000), (1000, 2000 * MIB), (2000, 3000 * MIB)) == []  # it has come and fitted
    assert batches(Trend(4 * GIB), (1000, 2000 * MIB), (2000, 3000 * MIB)) == []  # nobody knows what may come


def test_longer_batches_are_told_again_when_they_are_a_tenth_longer() -> None:
    pairs = [(1000 + i, (2000 + i) * MIB) for i in range(0, 1000, 10)]
    told = batches(Trend(8 * GIB, longest=8000), *pairs)
    assert 2 <= len(told) <= 8  # 1,010, then every tenth more: 1.1^7 is about 2
