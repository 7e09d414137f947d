"""`vramplan claims`: what articles say about QLoRA's memory, checked."""

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from vramplan.commands import Answer, Command
from vramplan.commands.flags import add_json, json_text, page
from vramplan.errors import CannotRun, unknown

if TYPE_CHECKING:
    from vramplan.claims import Checked

EXAMPLES = """\
  vramplan claims
  vramplan claims saving-7b 65b-48gb
  vramplan claims --trace --markdown > claims.md
  vramplan claims --check"""


def configure(parser: ArgumentParser) -> None:
    """The arguments."""
    parser.add_argument("ids", metavar="ID", nargs="*", help="only these claims (`--json` shows the ids)")
    parser.add_argument("--check", action="store_true", help="print only what changed; exit 1 when a verdict did")
    parser.add_argument("--trace", action="store_true", help="ask the trace too (needs vramplan[measure]; minutes)")
    shown = parser.add_mutually_exclusive_group()
    add_json(shown)
    shown.add_argument("--markdown", action="store_true", help="print GitHub-flavoured Markdown")


def run(args: Namespace) -> Answer:
    """Run every claim's commands; no when a verdict is not the one that was written down."""
    from vramplan.claims import CLAIMS, check
    from vramplan.cli import answer

    known = {claim.id: claim for claim in CLAIMS}
    for name in args.ids:
        if name not in known:
            raise unknown("claim", name, known)
    wanted = [known[name] for name in dict.fromkeys(args.ids)] or CLAIMS
    if args.trace and any(claim.traced for claim in wanted):
        from vramplan.measure.environment import require_libraries

        require_libraries()
    rows = list(check(wanted, lambda argv: answer(argv).text, trace=args.trace))
    if all(row.problem for row in rows):
        raise CannotRun(f"no claim could be checked: {rows[0].problem}", hint="pip install 'vramplan[measure]'")
    return Answer(_shown(rows, args), int(args.check and any(not row.holds for row in rows)))


def _shown(rows: "list[Checked]", args: Namespace) -> str:
    from vramplan.record import SCHEMA
    from vramplan.report.claims_text import claims_markdown, render_claims, summary

    if args.json:
        return json_text({"schema": SCHEMA, "kind": "claims", "claims": [row.to_json() for row in rows]})
    if args.markdown:
        return claims_markdown(rows)
    if args.check:
        changed = [row for row in rows if not row.holds]
        return f"{render_claims(changed, page())}\n\n{summary(rows)}" if changed else summary(rows)
    return render_claims(rows, page())


COMMAND = Command(
    name="claims",
    order=75,
    summary="check what articles say about QLoRA's memory, number by number",
    examples=EXAMPLES,
    configure=configure,
    run=run,
)
