"""Renders reports/ anew from what is committed in it: `make reports`. The same inputs give the same bytes.

Traced numbers in claims.md take minutes, so they are made here and left alone by the test that looks for stale pages.
"""

import json
import re
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path

from benchmarks.accuracy import REPORTS, Error, summarize
from benchmarks.nocard.render import render as render_emulated
from benchmarks.peers.render import render_peers
from vramplan.api import predict
from vramplan.claims import CLAIMS, check
from vramplan.cli import answer
from vramplan.report.claims_text import claims_markdown
from vramplan.report.html.page import render_page
from vramplan.report.report_reading import read_report

#: What the trace says to a claim, in claims.md.
TRACED = re.compile(r"<br>trace: [^|]*?(?= \|)")


def index() -> bytes:
    """Every committed record beside its prediction, as one page."""
    with chdir(REPORTS.parent):  # the page names its files from there, wherever the checkout lies
        report = read_report(
            [Path("reports", "records")],
            lambda scenario, device: predict(scenario, device=device),
            lambda scenario, budget: predict(scenario, budget=budget).verdict,
        )
    return render_page(report).encode()


def claims() -> bytes:
    """What articles say, checked, by the trace too."""
    rows = list(check(CLAIMS, lambda argv: answer(argv).text, trace=True))
    return (claims_markdown(rows) + "\n").encode()


def peers() -> tuple[bytes, bytes]:
    """The page and the plot of what the field's estimators answered."""
    text, picture = render_peers()
    return text.encode(), picture


def emulated() -> bytes:
    """What was found on emulated cards."""
    return render_emulated(json.loads((REPORTS / "emulated.json").read_text(encoding="utf-8"))).encode()


def readme() -> bytes:
    """What is where in this directory, with each report's headline."""
    records = sum(1 for _ in (REPORTS / "records").rglob("*.json"))
    lines = [
        "# Reports",
        "",
        "Rendered by `make reports` from what is committed here; a test fails when one of them is stale.",
        "",
        "| report | what it says | made by |",
        "|---|---|---|",
        f"| [index.html](index.html) | {records} measured runs beside their predictions | `vramplan report` |",
        f"| [accuracy.md](accuracy.md) | {_accuracy()} | `make accuracy` |",
        f"| [emulated.md](emulated.md) | {_emulated()} | `make emulated` |",
        f"| [peers.md](peers.md) | {_peers()} | `make peers` |",
        f"| [grid.md](grid.md) | {_grid()} | `make grid` |",
        f"| [claims.md](claims.md) | {_claims()} | `vramplan claims` |",
        "| [baseline/](baseline) | the predictions that CI holds this project's scenarios to | `vramplan check` |",
        "| [records/](records) | the records themselves, as they were measured | `vramplan measure` |",
        "| [public/](public/README.md) | measurements of others, with their sources and licences | |",
    ]
    return ("\n".join(lines) + "\n").encode()


def _accuracy() -> str:
    errors = [Error(**row) for row in json.loads((REPORTS / "accuracy.json").read_text(encoding="utf-8"))]
    found = {engine: summarize(errors, engine, "train_peak_allocated") for engine in ("analytic", "trace")}
    parts = ", ".join(f"{engine} {summary.mean:.2f} %" for engine, summary in found.items())
    return f"mean error of the allocated peak on {found['trace'].configurations} published GPU configurations: {parts}"


def _emulated() -> str:
    runs = len(json.loads((REPORTS / "emulated.json").read_text(encoding="utf-8"))["rows"])
    return f"both engines against PyTorch's own allocator and operators in {runs} runs on emulated cards"


def _peers() -> str:
    tools = json.loads((REPORTS / "peers.json").read_text(encoding="utf-8"))["answers"]
    others = sum("vramplan" not in said["tool"] for said in tools)
    return f"the same measurements, asked of {others} other estimators"


def _grid() -> str:
    known = json.loads((REPORTS / "grid.json").read_text(encoding="utf-8"))["known"]
    peak = known["errors"]["peak allocated"]
    return (
        f"the closed form against the trace in {known['scenarios']} scenarios: peak {peak['mean']:.3%} in the mean, "
        f"{peak['worst']:+.2%} at worst"
    )


def _claims() -> str:
    text = (REPORTS / "claims.md").read_text(encoding="utf-8")
    found = re.search(r"^\d+ claims: (.*);", text, re.MULTILINE)
    assert found
    return f"what articles say about QLoRA: {found[1]}"


def main() -> None:
    """Write every page that is not as it should be."""
    pages: list[tuple[str, Callable[[], bytes]]] = [
        ("index.html", index),
        ("claims.md", claims),
        ("emulated.md", emulated),
        ("peers.md", lambda: peers()[0]),
        ("peers.svg", lambda: peers()[1]),
        ("README.md", readme),
    ]
    for name, render in pages:
        path, content = REPORTS / name, render()
        if not path.exists() or path.read_bytes() != content:
            path.write_bytes(content)
            print(f"wrote {_shown(path)}")


def _shown(path: Path) -> str:
    return str(path.relative_to(REPORTS.parent))


if __name__ == "__main__":
    main()
