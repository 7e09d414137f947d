"""A report as the public JSON object, `kind: report`; errors and slowdowns are fractions."""

from typing import TYPE_CHECKING, Any

from vramplan.compare import Pair
from vramplan.error_table import miss_json
from vramplan.ledger import Component
from vramplan.record import SCHEMA
from vramplan.report.report_case import Case, Miss, family, stack_name
from vramplan.report.report_claims import Claimed, article_claims
from vramplan.report.report_pairs import DoublePair, OptimizerPair, Steps, Times
from vramplan.report.report_peaks import PeakGroup
from vramplan.report.report_verdicts import FitCheck, false_fits

if TYPE_CHECKING:
    from vramplan.report.report_facts import Report


def report_json(report: "Report") -> dict[str, Any]:
    """The whole object; a study that has nothing to show is an empty array."""
    return {
        "schema": SCHEMA,
        "kind": "report",
        "results": [_case(case) for case in report.cases],
        "errors": [_miss(miss) for miss in report.misses],
        "groups": [
            {"by": group.by, "name": group.name, "records": len(group.errors), **group.summary.to_json()}
            for group in report.groups
        ],
        "double_quantisation": [_double(pair) for pair in report.doubles],
        "double_quantisation_claims": [_claim(claim) for claim in article_claims(report.doubles)],
        "paged_optimizers": [_optimizer(pair) for pair in report.optimizers],
        "peaks": [_peaks(group) for group in report.peaks],
        "verdicts": [_fit(check) for check in report.fits],
        "false_fits": [check.case.item.source for check in false_fits(report.fits)],
        "skipped": list(report.skipped),
    }


def _case(case: Case) -> dict[str, Any]:
    result = case.result
    return {
        "source": case.item.source,
        "scenario": result.scenario.name,
        "kind": "measurement" if case.measured else "prediction",
        "engine": result.engine,
        "device": result.device,
        "family": family(case),
        "stack": stack_name(case),
        "outcome": case.outcome,
        "peak": case.peak or None,
        "predicted": case.comparison.a.ledger.peak if case.comparison else None,
        "problem": case.problem,
    }


def _miss(miss: Miss) -> dict[str, Any]:
    return {
        "engine": miss.engine,
        "source": miss.case.item.source,
        "scenario": miss.case.result.scenario.name,
        "allocated": miss_json(miss.comparison.peak),
        "static_equal": miss.static_equal,
        **({"reserved": miss_json(miss.reserved)} if miss.reserved else {}),
    }


def _double(pair: DoublePair) -> dict[str, Any]:
    return {
        "single": pair.single.item.source,
        "double": pair.double.item.source,
        "engine": pair.double.result.engine,
        "device": pair.double.result.device,
        "bits_per_parameter": dict(zip(("single", "double"), pair.bits, strict=True)),
        "quant_state": _saving(pair.quant_state),
        "peak": _saving(pair.peak),
        **({"predicted_peak": _saving(pair.predicted)} if pair.predicted else {}),
        **({"step_ms": _times(pair.times, "single", "double")} if pair.times else {}),
    }


def _claim(claim: Claimed) -> dict[str, Any]:
    return {
        "said": claim.said,
        "found": claim.found,
        "verdict": claim.verdict.value,
        "results": [pair.double.item.source for pair in claim.pairs],
    }


def _optimizer(pair: OptimizerPair) -> dict[str, Any]:
    return {
        "plain": pair.plain.item.source,
        "paged": pair.paged.item.source,
        "optimizers": {"plain": pair.plain.result.scenario.optimizer, "paged": pair.paged.result.scenario.optimizer},
        "engine": pair.paged.result.engine,
        "device": pair.paged.result.device,
        "states_in_allocator": _sizes(pair.states, "plain", "paged"),
        "managed": pair.managed,
        "peak": _sizes(pair.peak, "plain", "paged"),
        **({} if pair.predicted is None else {"predicted_managed": pair.predicted}),
        **({"outside_allocator": _sizes(pair.outside, "plain", "paged")} if pair.outside else {}),
        **({"step_ms": _times(pair.times, "plain", "paged")} if pair.times else {}),
    }


def _saving(both: Pair) -> dict[str, int]:
    return _sizes(both, "single", "double") | {"saved": -both.difference}


def _sizes(both: Pair, reference: str, other: str) -> dict[str, int]:
    return {reference: both.reference, other: both.other}


def _times(times: Times, reference: str, other: str) -> dict[str, Any]:
    return {
        reference: _steps(times.reference),
        other: _steps(times.other),
        "slower": round(times.slower, 6),
        "beyond_spread": times.beyond_spread,
    }


def _steps(steps: Steps) -> dict[str, float]:
    return {"median": steps.median, "fastest": steps.fastest, "slowest": steps.slowest}


def _peaks(group: PeakGroup) -> dict[str, Any]:
    shares = {part: group.share(part) for part in Component if part is not Component.CONTEXT}
    return {
        "vocabulary": group.vocab,
        "seq": group.seq,
        "batches": list(group.batches),
        "results": [case.item.source for case in group.cases],
        "phases": {phase.value: count for phase, count in group.phases},
        "largest": {part.value: count for part, count in group.largest},
        "share": {part.value: [round(side, 6) for side in both] for part, both in shares.items() if both[1]},
    }


def _fit(check: FitCheck) -> dict[str, Any]:
    return {
        "source": check.case.item.source,
        "scenario": check.case.name,
        "memory_limit": check.limit,
        "budget": check.verdict.budget,
        "predicted": check.verdict.word.value,
        "margin": check.verdict.margin,
        "outcome": check.case.outcome,
        "judgement": check.judgement.value,
    }
