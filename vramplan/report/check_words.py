"""The sentences of a check, the same in every format."""

from collections.abc import Iterator

from vramplan.check.findings import Case, Check, FindingKind, Status
from vramplan.check.gate import growth
from vramplan.check.items import printable
from vramplan.check.update import Action, Update
from vramplan.compare import Row
from vramplan.report.report_words import counted


def answer(check: Check) -> str:
    """The verdict in one line: how many of how many, then the worst case with its culprit and what changed."""
    if check.worst:
        return f"{summary(check)}: {check.worst.key}: {culprit(check.worst)}"
    if not check.passed:
        return f"{summary(check)}; the scenarios changed (--update accepts them as the baseline)"
    return summary(check)


def summary(check: Check) -> str:
    """The verdict and its numbers, without any name: what has no other side to be held to is counted by itself."""
    apart = {Status.NEW, *([Status.VANISHED] if check.vanished_allowed else [])}
    total = counted(sum(case.status not in apart for case in check.cases), "result")
    others = "".join(f", {check.count(s)} {s.value}" for s in Status if s in apart and check.count(s))
    if check.failed:
        return f"regression: {len(check.failed)} of {total}{others}"
    if not check.passed:
        return f"not comparable: {check.count(Status.INCOMPARABLE)} of {total}{others}"
    return f"ok: {total} within the limits{others}"


def culprit(case: Case) -> str:
    """What is to blame in one clause: the finding's component and phase, and the versions that changed."""
    if not case.findings:
        return "vanished: in the baseline, not among the new results (--allow-vanished accepts that)"
    rows = [finding.culprit for finding in case.findings if finding.culprit]
    row = max(rows, key=lambda row: abs(row.pair.difference), default=None)
    told = [printable(finding.text) for finding in case.findings if finding.kind is FindingKind.OUTCOME]
    told += [moved(row)] if row else []
    return "; ".join([*(told or [printable(case.findings[0].text)]), changed(case)])


def changed(case: Case) -> str:
    """The versions and keys that changed: `peft 0.21.2 -> 0.22.0`; or that none did."""
    return printable(", ".join(map(str, case.changes))) or "no version changed"


def moved(row: Row) -> str:
    """`activations in backward +100.00 MiB, +9.77%`."""
    return f"{row.component.value} in {row.phase.value} {growth(row.pair)}"


def details(case: Case) -> Iterator[str]:
    """Why the case has its status, one line each."""
    for finding in case.findings:
        behind = f"; most: {moved(finding.culprit)}" if finding.culprit and finding.pair != finding.culprit.pair else ""
        yield printable(finding.text) + behind
    if case.fields:
        yield f"different: {printable('; '.join(map(str, case.fields)))}"
    if case.status is Status.VANISHED:
        yield "in the baseline, not among the new results"
    if case.status is Status.NEW:
        yield f"not in the baseline{': ' if case.outcome else ''}{case.outcome}"
    elif case.outcome and not case.findings:
        yield f"outcome {case.outcome}"
    if case.most and case.status in (Status.IMPROVED, Status.MOVED, Status.INCOMPARABLE):
        yield f"moved most: {moved(case.most)}"
    if case.changes:
        yield f"changed: {changed(case)}"
    elif case.findings:
        yield "changed: no version, no key of the model's configuration"


def update_lines(update: Update) -> Iterator[str]:
    """What the rewrite of the baseline did, one line per result that is not as it was; the count last."""
    for action, case in update.actions:
        if action is Action.UNCHANGED:
            continue
        facts = [printable("; ".join(map(str, (*case.fields, *case.changes))))]
        if case.most and action is Action.REPLACED:
            facts.append(moved(case.most))
        if action is Action.KEPT:
            facts = ["not among the new results; --allow-vanished removes it"]
        told = "; ".join(fact for fact in facts if fact)
        yield f"{action.value}: {case.key}{': ' if told else ''}{told}"
    counts = {action: sum(done is action for done, _ in update.actions) for action in Action}
    told = ", ".join(f"{count} {action.value}" for action, count in counts.items() if count)
    yield f"baseline {update.path}: {told or 'nothing to do'}"
