"""The regression gate: new results against a baseline, within limits; and how the baseline is rewritten."""

from vramplan.check.findings import Case, Check, Finding, FindingKind, Status
from vramplan.check.gate import check
from vramplan.check.items import Item, Key, read_items
from vramplan.check.limits import DEFAULT_LIMITS, Limit, parse_limits

__all__ = [
    "DEFAULT_LIMITS",
    "Case",
    "Check",
    "Finding",
    "FindingKind",
    "Item",
    "Key",
    "Limit",
    "Status",
    "check",
    "parse_limits",
    "read_items",
]
