"""An inspected model as text: its weights, what adapters cost, what is paged, where loading puts it."""

from collections.abc import Iterator, Sequence

from vramplan.inventory.choices import Choice
from vramplan.inventory.inspection import Inspection
from vramplan.inventory.weights import Role
from vramplan.predict.paging import FullCard, Paging, TensorStates, paging_sentences
from vramplan.predict.placement import away, because, consequence
from vramplan.predict.quantization import quantized_parameters
from vramplan.report.layout import Page, amount, fitting_table, table_unit
from vramplan.report.verdict_text import verdict_word
from vramplan.scenario import Scenario
from vramplan.units import human

_INDENT = "  "


def render_inspection(found: Inspection, page: Page) -> str:
    """Every section that the scenario has, an empty line between them."""
    sections = [_head(found.scenario, page), _weights(found, page)]
    if found.choices:
        sections.append(_choices(found.choices, page))
    if found.paging.tensors:
        sections.append(_paging(found.paging, found.full_card, page))
    if found.placement is not None:
        sections.append(_placement(found, page))
    return "\n\n".join("\n".join(section) for section in sections)


def _head(scenario: Scenario, page: Page) -> list[str]:
    architecture = scenario.architecture
    quantized, total = quantized_parameters(architecture, scenario.quant), architecture.numel
    layers = len(architecture.layers)
    text = (
        f"{page.bold(scenario.model.name)} ({architecture.family}): {total:,} parameters in {layers} layers; "
        f"{scenario.method.value}, {scenario.dtype.value}"
    )
    if quantized:
        double = " with double quantisation" if scenario.quant.double and scenario.quant.type.four_bit else ""
        text += f", {quantized:,} ({quantized / total:.1%}) quantised to {scenario.quant.type.value}{double}"
    return page.wrap(text, indent=_INDENT)


def _weights(found: Inspection, page: Page) -> list[str]:
    roles = found.inventory.roles
    unit, factor = table_unit(max(role.bytes for role in roles))
    rows = [["weights", "shape", "count", "parameters", "stored", unit, "adapters"]]
    for role in roles:
        alone = role in found.inventory.matrices
        shape = " x ".join(map(str, role.shape)) if alone else ""
        cells = [
            role.name if alone else f"{role.tensors} {role.name}",
            shape,
            str(role.count) if shape else "",
            f"{role.parameters:,}",
        ]
        size = f"{role.bytes / factor:.2f}" if role.bytes * 200 >= factor else "<0.01"
        rows.append([*cells, role.stored, size, _trained(role)])
    lines = fitting_table(rows, page, left=("weights", "stored"), less_important=("adapters", "count", "parameters"))
    return [*lines, *_reasons(roles, page)]


def _reasons(roles: Sequence[Role], page: Page) -> Iterator[str]:
    """Under `quantised` and `not quantised` each reason once, with the names that it holds for."""
    for quantized, title in ((True, "quantised"), (False, "not quantised")):
        names: dict[str, list[str]] = {}
        for role in roles:
            if role.quantized is quantized and role.why:
                names.setdefault(role.why, []).append(role.name)
        if names:
            yield f"{title}:"
        for reason, whose in names.items():
            yield from _indented(f"{', '.join(dict.fromkeys(whose))}: {reason}", page)


def _choices(choices: Sequence[Choice], page: Page) -> list[str]:
    unit, factor = table_unit(max(choice.peak for choice in choices))
    judged = any(choice.verdict for choice in choices)
    paged = any(choice.managed for choice in choices)
    head = ["targets", "rank", "trained", "adapters MiB", "gradients", "optimizer"]
    rows = [[*head, *(["managed"] if paged else []), f"peak {unit}", *(["verdict"] if judged else [])]]
    for choice in choices:
        sizes = [choice.adapters, choice.gradients, choice.optimizer, *([choice.managed] if paged else [])]
        row = [choice.name, str(choice.rank), f"{choice.parameters:,}", *(amount(size, 2**20) for size in sizes)]
        word = [verdict_word(choice.verdict, page)] if choice.verdict is not None else []
        rows.append([*row, f"{choice.peak / factor:.2f}", *word])
    # `optimizer` is what stays on the card: beside a part in managed memory it says nothing alone
    dispensable = ("gradients", "optimizer", "managed", "adapters MiB")
    lines = fitting_table(rows, page, left=("targets", "verdict"), less_important=dispensable)
    named = dict.fromkeys((choice.name, choice.targets) for choice in choices if choice.name not in choice.targets)
    meanings = (text for name, targets in named for text in _indented(f"{name}: {', '.join(targets)}", page))
    return [*lines, *meanings]


def _paging(found: Paging, full: FullCard | None, page: Page) -> list[str]:
    if not found.paged_optimizer:
        text = f"optimizer {found.optimizer}: {human(found.on_card)} of states, all on the card; it pages nothing"
        return page.wrap(text, indent=_INDENT)
    lines = [f"optimizer {found.optimizer}:"]
    for sentence in paging_sentences(found):
        lines += _indented(sentence, page)
    unit, factor = table_unit(max(max(t.managed, t.on_card) for t in found.tensors))
    rows = [["tensor", "shape", "count", "elements", "states", f"{unit} managed", "on card"]]
    rows += [_states_row(tensor, factor) for tensor in found.tensors]
    lines += fitting_table(rows, page, left=("tensor", "states"), less_important=("count", "shape", "states"))
    return lines + (_full_card(full, page) if full is not None else [])


def _states_row(tensor: TensorStates, factor: int) -> list[str]:
    shape = " x ".join(map(str, tensor.shape))
    bits = "8-bit" if tensor.eight_bit else "fp32"
    words = f"{bits}, {'paged' if tensor.paged else 'never paged'}"
    cells = [tensor.label, shape, str(tensor.count), f"{tensor.numel:,}", words]
    return [*cells, amount(tensor.managed, factor), amount(tensor.on_card, factor)]


def _full_card(full: FullCard, page: Page) -> list[str]:
    unit, factor = table_unit(full.budget)
    rows = [["", f"{unit} that cannot move", "states on card", "states moved out", "missing"]]
    for phase in full.phases:
        sizes = (phase.fixed, phase.stays, phase.evicted, phase.missing)
        rows.append([phase.phase.value, *(amount(size, factor) for size in sizes)])
    title = f"when {human(full.budget)} is what the process may hold:"
    lines = ["", title, *fitting_table(rows, page, left=("",), less_important=("states on card",))]
    return lines + [line for text in _pressure_words(full) for line in page.wrap(text, indent=_INDENT)]


def _pressure_words(full: FullCard) -> Iterator[str]:
    worst = full.worst
    share = full.managed / (full.managed + worst.fixed)
    yield (
        f"at most {human(full.managed)} of the {human(full.managed + worst.fixed)} needed can leave the card "
        f"({share:.1%}): weights, adapters, gradients, activations and logits never do"
    )
    if worst.missing:
        yield (
            f"paging cannot prevent this out-of-memory error: with every paged state in main memory "
            f"{human(worst.missing)} is still missing"
        )
    elif worst.evicted:
        yield (
            f"it runs only because states move: {human(worst.evicted)} is in main memory from the first step on, "
            f"and each optimizer step brings in {human(full.moved_per_step)} and sends out as much"
        )
    else:
        yield "there is room for all of it: nothing moves, and the optimizer works as fast as one that is not paged"
    yield "simulated; `vramplan measure` refuses to oversubscribe managed memory, which can hang a card"


def _placement(found: Inspection, page: Page) -> list[str]:
    place, scenario = found.placement, found.scenario
    assert place is not None
    if place.whole:
        text = (
            f'device_map="auto": whole on the card, {human(sum(place.bytes.values()))} as transformers counts, within '
            f"the {human(place.limit)} that it uses of {human(place.free)} free"
        )
        return page.wrap(text, indent=_INDENT)
    text = f'device_map="auto": not whole on the card: {away(place, scenario)}, {because(place, scenario)}'
    return [*page.wrap(text, indent=_INDENT), *_indented(consequence(place, scenario), page)]


def _trained(role: Role) -> str:
    return "whole" if role.whole else "yes" if role.adapted else "-"


def _indented(text: str, page: Page) -> list[str]:
    """`text` below something else."""
    return page.indented(text, _INDENT, hanging=_INDENT)
