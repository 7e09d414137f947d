"""Plans as text for a terminal or a pipe. Pure: a value in, a string out; verdict last."""

from collections.abc import Iterator, Sequence

from vramplan.catalog.gpus import gpu
from vramplan.plan.advice import Advice
from vramplan.plan.answer import Plan
from vramplan.plan.frontier import Row
from vramplan.plan.goals import Goal
from vramplan.plan.matrix import Matrix
from vramplan.predict.context_length import context_length
from vramplan.predict.stops import stops_of_card
from vramplan.record import Fit, Verdict
from vramplan.report.layout import Page, noted_table, table
from vramplan.report.report_words import counted
from vramplan.report.stack_words import batch_words, method_words, stack_words
from vramplan.report.verdict_text import verdict_word
from vramplan.scenario import Method, QuantType, Scenario
from vramplan.units import gib, human

#: As wide as a line may be where nothing says how wide the page is.
_PIPE = 160
_GOALS = {
    Goal.MAX_TOKENS: "most tokens per step",
    Goal.MAX_SEQ: "longest sequence",
    Goal.MAX_BATCH: "largest batch",
    Goal.MAX_RANK: "highest rank",
    Goal.MAX_MODEL: "largest model of the catalogue",
    Goal.CHEAPEST_GPU: "smallest card of the catalogue (by capacity: prices are not known)",
}


def render_plan(plan: Plan, page: Page, *, before_verdict: Sequence[str] = ()) -> str:
    """One scenario's plan; lines of others' may stand before the verdict."""
    lines = list(_header(plan, page))
    beyond = _beyond_context(plan, page)
    if plan.rows:
        lines += ["", *_frontier(plan.rows, page), *beyond]
    elif beyond:
        lines += ["", *beyond]
    if plan.best and plan.verdict:
        edge = ", tight" if plan.best_verdict and plan.best_verdict.word is Fit.TIGHT else ""
        lines += ["", *page.wrap(f"{_GOALS[plan.goal]}: {_best(plan.best, plan)}{edge}", indent="  ")]
    for i, advice in enumerate(plan.advice):
        lines += ["", *_advice(advice, plan, page, first=i == 0)]
    for text in plan.warnings:
        lines += ["", *page.wrap(f"warning: {text}", indent="  ")]
    if before_verdict:
        lines += ["", *before_verdict]
    return "\n".join([*lines, "", *page.wrap(_verdict(plan, page), indent="  ")])


def render_proposed(plan: Plan) -> str:
    """Which run is proposed, in one clause: the target's after changes, or the setting that reaches the goal."""
    scenario = plan.proposed
    assert scenario is not None
    size = f"batch {batch_words(scenario)} x {scenario.seq:,} tokens"
    if plan.advice:
        return f"{size}, as given after {counted(len(plan.advice[0].steps), 'change')}"
    return f"{size}, {_GOALS[plan.goal]}"


def _header(plan: Plan, page: Page) -> Iterator[str]:
    scenario = plan.scenario
    yield from page.wrap(f"{page.bold(scenario.model.name)}: {', '.join(_facts(scenario))}", indent="  ")
    if plan.goal is not Goal.CHEAPEST_GPU:
        where = f"{gpu(scenario.gpu).title}: " if scenario.gpu else ""
        yield from page.wrap(f"{where}{human(plan.limit.bytes(scenario))} for the process", indent="  ")


def _facts(scenario: Scenario) -> Iterator[str]:
    yield from method_words(scenario)
    if scenario.grad_accum > 1:
        yield f"{scenario.grad_accum} micro-batches per step"
    if scenario.method is not Method.INFERENCE:
        yield f"stack {stack_words(scenario)}"


def _frontier(rows: Sequence[Row], page: Page) -> list[str]:
    """Batches down; everything in GiB."""
    head = ["batch", "longest sequence", "tokens per step", "GiB allocated", "on the card", "limited by"]
    body = [
        [
            f"{row.scenario.batch}",
            f"{row.scenario.seq:,}",
            f"{row.tokens:,}",
            gib(row.allocated),
            gib(row.device),
            f"{row.binding.value} {gib(row.binding_bytes)} in {row.phase.value}",
        ]
        for row in rows
    ]
    lines = table([head, *body], left=(5,))
    if page.fits(lines):
        return lines
    narrow = [
        [*cells[:3], cells[4], row.binding.value]  # without what is allocated
        for cells, row in zip(body, rows, strict=True)
    ]
    return table([["batch", "longest", "tokens", "GiB", "limited by"], *narrow], left=(4,))


def _beyond_context(plan: Plan, page: Page) -> list[str]:
    context = context_length(plan.scenario)
    if context is None:
        return []
    rows = plan.rows or ((plan.best,) if plan.best else ())
    beyond = [str(row.scenario.batch) for row in rows if row.scenario.seq > context]
    if not beyond:
        return []
    which = f"batch {', '.join(beyond)}"
    return page.wrap(f"longer than the model's context of {context:,} tokens: {which}", indent="  ")


def _none(plan: Plan, page: Page) -> str:
    scenario = plan.scenario
    asked = f"batch {batch_words(scenario)} x {scenario.seq:,} tokens"
    return f"{page.red('does not fit')}: {_GOALS[plan.goal]}: none, at {asked}"


def _best(row: Row, plan: Plan) -> str:
    scenario = row.scenario
    what = [f"batch {batch_words(scenario)} x {scenario.seq:,} tokens"]
    if scenario.grad_accum > 1:
        what.append(f"{scenario.grad_accum} micro-batches")
    if scenario.method.adapts:
        what.append(f"rank {scenario.lora.rank}")
    where = f" on {scenario.gpu}" if scenario.gpu else ""
    held = f"{human(row.device)} of {human(plan.limit.bytes(scenario))}{where}"
    return f"{scenario.model.name}, {', '.join(what)}, {held}"


def _advice(advice: Advice, plan: Plan, page: Page, *, first: bool) -> Iterator[str]:
    """The changes with saving, new total and cost."""
    given = "to be safe" if plan.verdict and plan.verdict.fits else "to make it fit"
    yield f"{given}, {advice.kept}:" if first else f"or in fewer changes, {advice.kept}:"
    head = ["", "saves GiB", "GiB then", "change", "cost"]
    rows = [
        [f"{i}.", gib(step.saves), gib(step.total), step.label, step.change.cost]
        for i, step in enumerate(advice.steps, 1)
    ]
    yield from noted_table([head, *rows], page, left=(3, 4))


def _verdict(plan: Plan, page: Page) -> str:
    """The last line: whether the target as given fits, else what does."""
    if plan.verdict is None:
        goal = _GOALS[plan.goal]
        if plan.best is None or plan.best_verdict is None:
            return _none(plan, page)
        return f"{verdict_word(plan.best_verdict, page)}: {goal}: {_best(plan.best, plan)}"
    scenario = plan.scenario
    given = f"batch {batch_words(scenario)} x {scenario.seq:,} as given"
    text = f"{verdict_word(plan.verdict, page)}: {given} takes {_of(plan.verdict)}"
    if plan.verdict.word is Fit.FITS:
        return text
    if plan.advice:
        count = len(plan.advice[0].steps)
        after = f"{_of(plan.advice[0].verdict)} after {counted(count, 'change')}"
        return f"{text}; {verdict_word(plan.advice[0].verdict, page)}: {after}"
    if plan.verdict.fits:
        return f"{text}; no list of changes makes it safe"
    other = "" if plan.limit.budget is not None else "; --goal cheapest-gpu looks for a card that does"
    return f"{text}; no list of changes makes it fit{other}"


def _of(verdict: Verdict) -> str:
    return f"{human(verdict.needed)} of {human(verdict.budget)}"


def render_matrix(matrix: Matrix, page: Page) -> str:
    """Models down, cards across, or the other way round where cards are many: the longest sequence length that fits."""
    batches = sorted({scenario.batch for scenario in matrix.scenarios})
    lengths = ", ".join(f"{seq:,}" for seq in matrix.seqs)
    at = f"at batch {', '.join(map(str, batches))}"
    lines = page.wrap(f"longest sequence that fits, of {lengths}, {at}", indent="  ")
    lines += _matrix_table(matrix, page)
    lines += _stopped(matrix, page)
    count = sum(cell.fits for cells in matrix.cells for cell in cells)
    total = len(matrix.cards) * len(matrix.scenarios)
    return "\n".join([*lines, "", f"{count} of {total} pairs of model and card fit"])


def _stopped(matrix: Matrix, page: Page) -> list[str]:
    """Why the answer of some cards is no whatever fits them, told of the first."""
    stopped = [cell.scenario for cells in matrix.cells for cell in cells if any(stops_of_card(cell.scenario))]
    if not stopped:
        return []
    others = len({scenario.gpu for scenario in stopped}) - 1
    more = f" (and so on {others} more card{'s' * (others > 1)})" if others else ""
    return ["", *page.wrap(f"warning: {next(stops_of_card(stopped[0]))}{more}", indent="  ")]


def _matrix_table(matrix: Matrix, page: Page) -> Iterator[str]:
    """Cards across in one table where they have room, else cards down, else in several tables."""
    names = [_name(scenario) for scenario in matrix.scenarios]
    if len({*names}) < len(names):  # they differ in something else, which their own names tell
        names = [scenario.name for scenario in matrix.scenarios]
    cells = [[f"{cell.scenario.seq:,}" if cell.fits else page.red("no") for cell in row] for row in matrix.cells]
    width = _columns(matrix, names, page)
    cards_down = table([["", *names], *([card, *column] for card, *column in zip(matrix.cards, *cells, strict=True))])
    if width < len(matrix.cards) and page.fits(cards_down):
        yield from ("", *cards_down)
        return
    for start in range(0, len(matrix.cards), width):
        chosen = slice(start, start + width)
        rows = [[name, *row[chosen]] for name, row in zip(names, cells, strict=True)]
        yield from ("", *table([["", *matrix.cards[chosen]], *rows]))


def _columns(matrix: Matrix, names: Sequence[str], page: Page) -> int:
    """How many cards stand side by side."""
    widest = max(*(len(card) for card in matrix.cards), len("32,768")) + 2
    room = ((page.width or _PIPE) - max(map(len, names))) // widest
    return max(room, 1)


def _name(scenario: Scenario) -> str:
    quant = f" {scenario.quant.type.value}" if scenario.quant.type is not QuantType.NONE else ""
    return f"{scenario.model.name} {scenario.method.value}{quant}"
