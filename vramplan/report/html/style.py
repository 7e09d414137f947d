"""The page's stylesheet."""

from vramplan.report.html.tones import NARROW_BELOW, dark, light
from vramplan.report.timeline_picture import COLORS

_TONES = f"""
:root {{ color-scheme: light dark; {light("bg fg soft grid band")};
  {light("link under over good shade round")};
  {light("square")} }}
@media (prefers-color-scheme: dark) {{ :root {{ {dark("bg fg soft grid")};
  {dark("band link under over good shade")};
  {dark("round square")} }} }}
"""

_TEXT = """
* { box-sizing: border-box }
html { scroll-padding-top: 12px; -webkit-text-size-adjust: 100% }
body { margin: 0 auto; max-width: 1200px; padding: 28px 24px 64px; background: var(--bg); color: var(--fg);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
  overflow-wrap: anywhere }
h1 { font-size: 28px; line-height: 1.2; letter-spacing: -.01em; margin: 0 0 6px }
h2 { font-size: 20px; line-height: 1.3; margin: 0 0 4px } h3 { font-size: 15px; margin: 18px 0 6px }
p { margin: 0 0 12px; max-width: 72ch } .soft, figcaption { color: var(--soft) } .lede { font-size: 17px }
a { color: var(--link); text-decoration-thickness: 1px; text-underline-offset: 2px }
:focus-visible { outline: 2px solid var(--link); outline-offset: 2px; border-radius: 3px }
.skip { position: absolute; left: -999px } .skip:focus { position: static; display: inline-block; margin-bottom: 12px }
nav { display: flex; flex-wrap: wrap; gap: 4px 18px; padding: 10px 0 0; font-size: 14px }
section { padding-top: 30px; margin-top: 30px; border-top: 1px solid var(--grid) }
section.first { border: 0; margin: 0; padding-top: 18px }
figure { margin: 14px 0 } figcaption { font-size: 13px; max-width: 80ch } svg { width: 100%; height: auto }
.num, td.n, th.n, data { font-variant-numeric: tabular-nums }
footer { margin-top: 40px; padding-top: 14px; border-top: 1px solid var(--grid); color: var(--soft); font-size: 13px }
.under { color: var(--under) } .over { color: var(--over) } .good { color: var(--good) }
"""

_PARTS = """
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px; margin: 0; padding: 0 }
.tile { background: var(--band); border: 1px solid var(--grid); border-radius: 10px; padding: 12px 14px }
.tile dt { color: var(--soft); font-size: 13px } .tile dd { margin: 2px 0 0 } .tile .big { font-size: 25px;
  line-height: 1.25; font-weight: 650; letter-spacing: -.01em; font-variant-numeric: tabular-nums; display: block }
.tile small { color: var(--soft); font-size: 13px }
table { border-collapse: collapse; width: 100%; font-size: 14px; margin: 10px 0 }
caption { text-align: left; color: var(--soft); font-size: 13px; padding-bottom: 4px }
th, td { text-align: left; vertical-align: baseline; padding: 5px 10px 5px 0; border-bottom: 1px solid var(--grid) }
th { font-weight: 600 } thead th { color: var(--soft); font-weight: 500; font-size: 13px; vertical-align: bottom }
.n { text-align: right } td.n, th.n { padding-right: 0; padding-left: 10px; white-space: nowrap }
td small, th small { color: var(--soft); font-size: 12.5px; font-weight: 400; display: block }
td.n small { white-space: nowrap } tr.sum th, tr.sum td { font-weight: 650 }
.legend { display: flex; flex-wrap: wrap; gap: 4px 16px; list-style: none; margin: 10px 0 16px; padding: 0;
  font-size: 13px } .legend i { display: inline-block; width: 12px; height: 12px; border-radius: 2px;
  margin-right: 6px; vertical-align: -1px }
.bars { list-style: none; margin: 0; padding: 0; display: grid; gap: 14px 36px;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 480px), 1fr)) }
.bars p { margin: 0 0 3px; font-size: 14px }
.row { display: grid; grid-template-columns: 68px 1fr 84px; gap: 8px; align-items: center; font-size: 12.5px;
  color: var(--soft); margin-top: 3px } .row data { text-align: right; color: var(--fg) }
.bar { display: flex; height: 15px; background: var(--band); border-radius: 3px; overflow: hidden }
.bar i { flex: none; box-shadow: inset -1px 0 var(--bg) }
details { border: 1px solid var(--grid); border-radius: 8px; margin: 8px 0; background: var(--bg) }
summary { cursor: pointer; padding: 9px 12px } summary:hover { background: var(--band) } summary b { font-weight: 600 }
summary .soft { font-size: 13px } .body { padding: 0 14px 12px; border-top: 1px solid var(--grid) }
.facts { display: grid; grid-template-columns: minmax(96px, max-content) 1fr; gap: 2px 14px; margin: 0;
  font-size: 13.5px } .facts dt { color: var(--soft) } .facts dd { margin: 0 }
.two { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 320px), 1fr)); gap: 0 32px }
.n + td:not(.n), .n + th:not(.n) { padding-left: 20px }
.study th.n, .study td.n small { white-space: normal } .study th:first-child { min-width: 136px }
.study td:not(.n) { overflow-wrap: normal }
.ledger { table-layout: fixed } .ledger th:first-child { width: 25% }
.groups { max-width: 720px } .groups th, .groups td { padding-top: 3px; padding-bottom: 3px } .groups .soft {
  font-weight: 400; font-size: 13px }
pre { font: 12.5px/1.45 ui-monospace, "SF Mono", Menlo, Consolas, monospace; background: var(--band);
  padding: 10px 12px; border-radius: 6px; white-space: pre-wrap; margin: 0 }
.warn { border-left: 3px solid var(--under); padding: 2px 0 2px 10px; margin: 10px 0; font-size: 14px }
.narrow { display: none } .plot text { fill: var(--fg) }
.plot * { stroke-linejoin: round; stroke-linecap: butt }
.vp { border-radius: 8px }
"""

_WHERE_NARROW = f"\n@media (max-width: {NARROW_BELOW}px) {{"
_NARROW = """
  body { padding: 18px 14px 48px } h1 { font-size: 23px } .lede { font-size: 16px } .wide { display: none }
  .narrow { display: block } .tiles { grid-template-columns: 1fr 1fr } .tile .big { font-size: 21px }
  .row { grid-template-columns: 70px 1fr 72px; gap: 6px }
  .groups td.n, .groups th.n { padding-left: 6px } .ledger { font-size: 11.5px; letter-spacing: -.01em }
  .ledger td.n, .ledger th.n { padding-left: 4px } .ledger th { padding-right: 2px } .ledger small { font-size: 10.5px }
  .cards thead { position: absolute; left: -9999px } .cards, .cards tbody, .cards caption { display: block }
  .cards tr { display: grid; grid-template-columns: 1fr 1fr; gap: 2px 12px; padding: 9px 0;
    border-bottom: 1px solid var(--grid) } .cards td, .cards th { border: 0; padding: 0; text-align: left !important;
    white-space: normal !important } .cards tr > :first-child { grid-column: 1 / -1 }
  .n + td:not(.n) { padding-left: 0 } .study td:not(.n) { overflow-wrap: anywhere }
  .cards td:empty { display: none } .cards td::before { color: var(--soft); font-size: 12.5px; margin-right: 6px }
}
@media print { details > .body { display: block } nav, .skip { display: none } }
"""


def stylesheet(*tables: tuple[str, tuple[str, ...]]) -> str:
    """The whole stylesheet; each table, given by class and column names, has its columns named in its narrow cards."""
    colors = "".join(f".{name.value} {{ background: {color} }}\n" for name, color in COLORS.items())
    return _TONES + _TEXT + _PARTS + colors + _WHERE_NARROW + _NARROW + "".join(_named(*table) for table in tables)


def _named(name: str, columns: tuple[str, ...]) -> str:
    rules = (f'.{name} td:nth-child({i})::before {{ content: "{text}" }}' for i, text in enumerate(columns, 1) if text)
    return f"@media (max-width: {NARROW_BELOW}px) {{ " + " ".join(rules) + " }\n"
