"""A check as JUnit XML, which test dashboards read. Pure: a value in, a string out."""

import re
import xml.etree.ElementTree as ET

from vramplan.check.findings import Case, Check, Status
from vramplan.report.check_words import answer, culprit, details

#: What XML 1.0 cannot hold, even escaped (section 2.2 of the recommendation, Char).
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def check_junit(check: Check) -> str:
    """One test case per scenario, engine and device: failed for a regression, in error where not comparable."""
    errors = check.count(Status.INCOMPARABLE)
    counts = {"tests": str(len(check.cases)), "failures": str(len(check.failed)), "errors": str(errors)}
    suites = ET.Element("testsuites", counts)
    suite = ET.SubElement(suites, "testsuite", {"name": "vramplan check", **counts, "skipped": "0"})
    for case in check.cases:
        _add(suite, case, check)
    ET.SubElement(suite, "system-out").text = _clean(answer(check))
    ET.indent(suites)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(suites, encoding="unicode")


def _add(suite: ET.Element, case: Case, check: Check) -> None:
    where = f"vramplan.{case.key.engine}.{case.key.device}"
    test = ET.SubElement(suite, "testcase", {"name": _clean(case.key.scenario), "classname": _clean(where)})
    text = _clean("\n".join(details(case)))
    if case in check.failed:
        ET.SubElement(test, "failure", {"type": case.status.value, "message": _clean(culprit(case))}).text = text
    elif case.status is Status.INCOMPARABLE:
        fields = ", ".join(change.what for change in case.fields)
        message = f"not comparable: {fields}"
        ET.SubElement(test, "error", {"type": case.status.value, "message": _clean(message)}).text = text
    elif text:
        ET.SubElement(test, "system-out").text = f"{case.status.value}\n{text}"


def _clean(text: str) -> str:
    return _NO_XML.sub("\N{REPLACEMENT CHARACTER}", text)
