"""What a scenario's prediction says of an out-of-memory error, as text."""

from collections.abc import Iterator, Sequence

from vramplan.ledger import Phase
from vramplan.oom.against_scenario import Against, Candidate
from vramplan.oom.loading import OtherLoading
from vramplan.oom.shortage import Shortage
from vramplan.report.layout import Page
from vramplan.report.stack_words import batch_words
from vramplan.scenario import QuantType, Scenario
from vramplan.units import human


def prediction_lines(against: Against, shortage: Shortage, page: Page) -> Iterator[str]:
    """What the scenario holds, whether it is expected to fit, and which of its allocations failed."""
    scenario = against.scenario
    name = f"{scenario.name}, batch {batch_words(scenario)} x {scenario.seq:,} tokens"
    yield from page.wrap(
        f"{page.bold('prediction')} of {name}: {human(against.predicted)} allocated at the highest moment of"
        f" {against.predicted_phase.value}; it was {human(against.observed)} with the failed request",
        indent="  ",
    )
    if against.whole_logits:
        yield from page.wrap(
            f"the error's stack is in transformers' loss of all logits at once: stack.loss: {scenario.stack.loss} was"
            " not in effect; what is said here is of stack.loss: torch",
            indent="  ",
        )
    if not scenario.gpu:
        yield from page.wrap("it names no card: kernels of an A100 are assumed; --gpu says which one ran", indent="  ")
    yield from page.wrap(_expected(against, human(shortage.room)), indent="  ")
    if against.other_loading is None:
        yield from page.wrap(_request(against), indent="  ")
        return
    for line in _other_loading(against, against.other_loading):
        yield from page.wrap(line, indent="  ")


def _other_loading(against: Against, other: OtherLoading) -> Iterator[str]:
    """That the model was not loaded as the scenario says, and how it may have been."""
    takes = f"loading as the scenario says takes {human(other.expected)} at the most, and {human(against.observed)}"
    if other.likely is None:
        yield (
            f"{takes} were held: the model was not loaded so, or other tensors were on the card, such as an earlier"
            " model's in the same notebook"
        )
        return
    yield f"{takes} were held: the model was not loaded so"
    width, size = f"{other.likely.bits} bits, not quantised", human(other.likely.bytes)
    yield f"in {width}, its weights take {size}: {_remedy(against.scenario)}"


def _request(against: Against) -> str:
    """Which of the scenario's allocations the failed request was."""
    here = [found for found in against.candidates if found.phase is against.predicted_phase]
    if here:
        return f"allocations of that size in the scenario: {_candidates(here)}"
    if against.tokens is not None:
        t = against.tokens
        return (
            f"as {t.dtype} logits the request is about {t.seen:,} tokens, and the scenario has {t.planned:,}: the batch"
            " was larger than planned"
        )
    if against.candidates:
        return f"allocations of that size in other phases of the scenario: {_candidates(against.candidates)}"
    return (
        "no allocation of the scenario has that size, in any phase: it may not be the run in the log, or the batch or"
        " the recipe was another one"
    )


def _expected(against: Against, room: str) -> str:
    """Whether the scenario is expected to fit what the allocator could have, or where it fails."""
    failure, begin = against.fails_at, f"in the {room} that the allocator could have, "
    if failure is None:
        beyond = (
            "; what was held beyond it is something else: longer samples, other tensors on the card, or memory left"
            " over from before"
        )
        return f"{begin}the scenario is expected to fit{'' if against.loading else beyond}"
    later = against.loading and failure.phase is not Phase.LOAD
    where = f"load, and to fail later, in {failure.phase.value}" if later else f"fail in {failure.phase.value}"
    return (
        f"{begin}it is expected to {where}, asking {human(failure.requested)} for {failure.label}"
        f" ({failure.component.value}){_EXPANDABLE[against.fits_expandable]}"
    )


_EXPANDABLE = {
    None: "",
    True: "; with expandable segments it goes through",
    False: "; with expandable segments too, it does not go through",
}


def _candidates(candidates: Sequence[Candidate]) -> str:
    shown = [
        f"{found.label} ({found.component.value}, {found.phase.value}{f', {found.times} times' * (found.times > 1)})"
        for found in candidates[:4]
    ]
    more = f", and {len(candidates) - 4} more" if len(candidates) > 4 else ""
    return f"{'; '.join(shown)}{more}"


def loaded_otherwise(scenario: Scenario, other: OtherLoading) -> str:
    """The conclusion where the model was not loaded as the scenario says."""
    words = "the model was not loaded as the scenario says"
    if other.likely is None:
        return f"{words}, or other tensors were on the card"
    return f"{words}, but in {other.likely.bits} bits, it seems; {_remedy(scenario)}"


def _remedy(scenario: Scenario) -> str:
    """What has a model loaded as the scenario says."""
    if scenario.quant.type is QuantType.NONE:
        return f"give from_pretrained dtype={scenario.dtype.value} (torch_dtype in older transformers)"
    width = "4bit" if scenario.quant.type.four_bit else "8bit"
    return f"give from_pretrained a quantization_config, BitsAndBytesConfig(load_in_{width}=True)"
