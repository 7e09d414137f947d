"""Second step of the action: `vramplan check` and, where it is asked for, `vramplan predict`, told to GitHub.

Inputs are environment variables and become arguments of processes without a shell in between. Needs no package: it
runs on the job's Python, vramplan on its own.
"""

import glob
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

#: Verdicts by exit code of `vramplan check`.
VERDICTS = {0: "passed", 1: "regression", 2: "error", 3: "cannot run"}


class WrongInput(Exception):
    """An input that cannot be meant; the message names it."""


class Outcome(NamedTuple):
    """How one command ended."""

    verdict: str
    code: int
    report: str
    """Markdown."""


def main() -> int:
    """Check, then see what fits; everything is written to where GitHub looks for it. The worse exit code comes back."""
    folder = Path(os.environ["RUNNER_TEMP"], "vramplan")
    folder.mkdir(parents=True, exist_ok=True)
    report, body = folder / "check.md", folder / "check.json"
    body.unlink(missing_ok=True)
    summary = True
    try:
        summary = flag("INPUT_SUMMARY")
        targets = scenarios()
        outcomes = [check(targets, report, body), *fits(targets)]
    except WrongInput as error:
        outcomes = [Outcome("error", 2, failed(str(error)))]
    except FileNotFoundError:
        outcomes = [Outcome("cannot run", 3, failed("vramplan is not on the PATH: leave out `install: false`"))]
    worst = next((outcome for outcome in outcomes if outcome.code), outcomes[0])
    text = "\n\n".join(outcome.report.strip() for outcome in outcomes if outcome.report) + "\n"
    report.write_text(text, encoding="utf-8")
    if summary:
        append("GITHUB_STEP_SUMMARY", text)
    machine = str(body) if body.exists() else ""
    append("GITHUB_OUTPUT", f"verdict={worst.verdict}\nexit-code={worst.code}\nreport={report}\njson={machine}\n")
    return worst.code


def check(targets: list[str], report: Path, body: Path) -> Outcome:
    """Hold everything to the baseline; annotations go to the log."""
    report.unlink(missing_ok=True)
    files = [f"--write={file}" for file in (report, body)]
    options = [f"--limit={limit}" for limit in lines("INPUT_LIMITS")]
    if flag("INPUT_ALLOW_VANISHED"):
        options.append("--allow-vanished")
    options.append(f"--engine={text('INPUT_ENGINE')}")
    done = vramplan("check", *targets, f"--against={text('INPUT_BASELINE')}", "--format=github", *options, *files)
    sys.stdout.write(done.stdout)  # workflow commands, escaped by vramplan
    if report.exists():
        verdict = "not comparable" if done.returncode == 2 else VERDICTS.get(done.returncode, "error")
        return Outcome(verdict, done.returncode, f"### GPU memory against the baseline\n\n{report.read_text('utf-8')}")
    return Outcome(VERDICTS.get(done.returncode, "error"), done.returncode, failed(done.stderr))


def fits(targets: list[str]) -> Iterator[Outcome]:
    """Whether each scenario fits its card, or the one given here."""
    options = [f"--{name}={value}" for name in ("gpu", "budget") if (value := text(f"INPUT_{name.upper()}"))]
    if not options and not flag("INPUT_FITS"):
        return
    rows, code = [], 0
    for target in targets:
        if Path(target).is_dir() or target.endswith(".json"):
            continue  # results that were made before
        done = vramplan("predict", target, f"--engine={text('INPUT_ENGINE')}", "--json", *options)
        verdict, ended = judged(done)
        rows.append(f"| {cell(target)} | {cell(verdict)} |")
        if ended:
            code = max(code, ended)
            annotate(verdict, title="does not fit" if ended == 1 else "vramplan", file=target)
    if rows:
        table = "\n".join(["### Does it fit?", "", "| scenario | verdict |", "| :-- | :-- |", *rows])
        yield Outcome("does not fit" if code == 1 else VERDICTS.get(code, "error"), code, table)


def judged(done: "subprocess.CompletedProcess[str]") -> tuple[str, int]:
    """What `predict --json` found, in a line, and the exit code that this comes to."""
    if not done.stdout.strip():
        return (done.stderr.strip() or "no answer").splitlines()[0], done.returncode
    body = json.loads(done.stdout)
    predictions = body if isinstance(body, list) else [body]
    verdicts = [prediction["verdict"] for prediction in predictions if "verdict" in prediction]
    without = len(predictions) - len(verdicts)
    if without and not done.returncode:  # asked whether it fits, nobody can say yes
        share = f" on {without} of {len(predictions)}" if verdicts else ""
        return f"no verdict{share}: name a card in the scenario, or the action's inputs gpu or budget", 2
    if len(predictions) > 1:
        return f"{sum(verdict['fits'] for verdict in verdicts)} of {len(predictions)} fit", done.returncode
    needed, budget, margin = (f"{abs(verdicts[0][key]) / 2**30:.2f} GiB" for key in ("needed", "budget", "margin"))
    left = "to spare" if verdicts[0]["fits"] else "too much"
    return f"{verdicts[0]['word']}: {needed} of {budget}, {margin} {left}", done.returncode


def vramplan(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """One command; what it says on stderr is shown such that the runner reads no workflow command in it."""
    done = subprocess.run(["vramplan", *arguments], capture_output=True, text=True, encoding="utf-8", check=False)
    for line in done.stderr.splitlines():
        print(f"| {line.replace('##[', '## [')}")
    return done


def scenarios() -> list[str]:
    """The targets: each line as it is, or the files that it matches. A line that looks like an option is refused."""
    found: list[str] = []
    for line in lines("INPUT_SCENARIOS"):
        if line.startswith("-"):
            raise WrongInput(f"scenarios: {line!r} is an option, not a scenario")
        if glob.has_magic(line):
            matches = sorted(glob.glob(line, recursive=True))  # noqa: PTH207 (an absolute pattern is fine)
            if not matches:
                raise WrongInput(f"scenarios: {line!r} matches no file")
            found += [match for match in matches if not match.startswith("-")]
        else:
            found.append(line)
    if not found:
        raise WrongInput("scenarios: nothing is named")
    return list(dict.fromkeys(found))


def failed(talk: str) -> str:
    """The report of a command that has no answer: its error, in the log's annotations too."""
    annotate(talk.strip() or "no answer")
    quoted = "\n".join(f"    {line}" for line in talk.strip().splitlines())
    return f"### GPU memory against the baseline\n\n\N{CROSS MARK} nothing was compared\n\n{quoted}"


def annotate(message: str, *, title: str = "vramplan", file: str = "") -> None:
    """An error that GitHub shows beside the run (escapes of actions/toolkit, packages/core/src/command.ts)."""
    properties = [f"title={_property(title)}", *([f"file={_property(file)}"] if Path(file).is_file() else [])]
    print(f"::error {','.join(properties)}::{_data(message)}")


def _data(text: str) -> str:
    text = text.replace("##[", "## [")  # older commands are looked for in the middle of lines too
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def cell(text: str) -> str:
    """`text` in a cell of a Markdown table, without markup."""
    safe = text.replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|").replace("`", "\\`")
    return " ".join(safe.replace("*", "\\*").replace("_", "\\_").replace("[", "\\[").replace("@", "&#64;").split())


def lines(name: str) -> list[str]:
    """The lines of an input that are not empty."""
    return [line.strip() for line in os.environ[name].splitlines() if line.strip()]


def text(name: str) -> str:
    """An input of one line."""
    found = lines(name)
    if len(found) > 1:
        raise WrongInput(f"{name.removeprefix('INPUT_').lower()}: one line is wanted, not {len(found)}")
    return "".join(found)


def flag(name: str) -> bool:
    """An input that is `true` or `false`."""
    word = text(name).lower()
    if word not in ("true", "false"):
        raise WrongInput(f"{name.removeprefix('INPUT_').lower()}: {word!r} is neither true nor false")
    return word == "true"


def append(name: str, content: str) -> None:
    """Add to one of the files that GitHub names in the environment."""
    with Path(os.environ[name]).open("a", encoding="utf-8") as file:
        file.write(content)


if __name__ == "__main__":
    sys.exit(main())
