"""What can be done about an out-of-memory error, as text: outside the run, and by changing its scenario."""

from collections.abc import Iterator

from vramplan.oom.against_scenario import Against
from vramplan.oom.answer import Explanation
from vramplan.oom.remedies import Judgement, Remedy
from vramplan.oom.savings import Saving
from vramplan.plan.advice import Advice
from vramplan.report.layout import Page, noted_table, table_unit
from vramplan.units import human


def remedies_lines(found: Explanation, page: Page) -> list[str]:
    """What leaves the run as it is; nothing without a remedy."""
    remedies = found.remedies
    if not remedies:
        return []
    unit, factor = table_unit(max(remedy.saves for remedy in remedies))
    head = ["enough", f"saves up to {unit}", "what", "how"]
    rows = [[_judged(r, found.needed), f"{r.saves / factor:.2f}", r.what, r.how] for r in remedies]
    whole = found.shortage is not None and found.needed > found.shortage.lacking
    at = " for the run that the scenario describes, more than for the request" if whole else ""
    title = f"without changing the run ({human(found.needed)} are lacking{at}):"
    return [*page.wrap(title, indent="  "), *noted_table([head, *rows], page, left=(0, 2, 3))]


def changes_lines(against: Against, page: Page) -> list[str]:
    """Single changes to the scenario, those that save less than the table shows left out."""
    if not against.savings:
        return []
    unit, factor = table_unit(max(saving.saves for saving in against.savings))
    shown = [saving for saving in against.savings if saving.enough or f"{saving.saves / factor:.2f}" != "0.00"]
    head = ["enough", f"saves {unit} of tensors", "change", "cost"]
    rows = [[_judged(s, against.needed), f"{s.saves / factor:.2f}", s.label, s.cost] for s in shown]
    lines = noted_table([head, *rows], page, left=(0, 2, 3))
    ran = against.ran
    longer = f" with {ran.seq:,} tokens a sample" if ran.seq != against.scenario.seq else ""
    where = " in loading" if against.loading else ""
    title = f"single changes to the scenario{longer} ({human(against.needed)} are to be saved{where}):"
    if any(_replayed_no(saving, against.needed) for saving in shown):
        lines += page.wrap("by replay: the tensors would have room, but not in the segments that the allocator keeps")
    return [*page.wrap(title, indent="  "), *lines]


def advice_blocks(against: Against, page: Page) -> Iterator[list[str]]:
    """The lists of changes, a block for each."""
    told = {saving.name for saving in against.savings}
    for i, advice in enumerate(against.advice):
        what = "loading" if against.loading else "it"
        begin = f"the shortest list after which {what} should fit" if i == 0 else "or in fewer changes"
        title = f"{begin}, {advice.kept}; {human(advice.steps[-1].total)} on the card then, cached memory included:"
        yield [*page.wrap(title, indent="  "), *_steps(advice, told, page)]


def _steps(advice: Advice, told: set[str], page: Page) -> list[str]:
    """The changes of a list, with the cost of those whose cost is not `told` above."""
    unit, factor = table_unit(max(abs(step.saves) for step in advice.steps))
    costs = ["" if step.change.name in told else step.change.cost for step in advice.steps]
    rows = [
        [f"{n}.", f"{step.saves / factor:.2f}", step.label, cost]
        for n, (step, cost) in enumerate(zip(advice.steps, costs, strict=True), 1)
    ]
    head = ["", f"saves {unit} on the card", "change", "cost" if any(costs) else ""]
    return noted_table([head, *rows], page, left=(2, 3))


def _judged(way: Remedy | Saving, needed: int) -> str:
    """Whether it is enough; where it is not although it saves what is needed, what says so."""
    return "no, by replay" if _replayed_no(way, needed) else way.judgement.value


def _replayed_no(way: Remedy | Saving, needed: int) -> bool:
    """Whether it is not enough although it saves what is needed."""
    return way.judgement is Judgement.NO and way.saves >= needed
