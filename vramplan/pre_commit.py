"""The pre-commit hook `vramplan-fits`: `vramplan predict` on each changed file, its warnings and one line of answer."""

import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from io import StringIO
from itertools import takewhile
from os.path import isfile

from vramplan.cli import main
from vramplan.report.verdict_text import NO_VERDICT


def fits(argv: Sequence[str]) -> int:
    """Predict the files that end the arguments, as pre-commit gives them; before them are flags of `predict`.

    What comes back is the worst exit code. A file that a flag names is written in one word: `--data=d.jsonl`.
    """
    files = [*takewhile(isfile, reversed(argv))][::-1]
    flags = argv[: len(argv) - len(files)]
    return max((_told(file, flags) for file in files), default=0)


def _told(file: str, flags: Sequence[str]) -> int:
    text = StringIO()
    with redirect_stdout(text):
        code = main(["predict", file, *flags])
    lines = text.getvalue().strip().splitlines()
    for line in [*(line for line in lines[:-1] if line.startswith(("warning: ", NO_VERDICT))), *lines[-1:]]:
        print(f"{file}: {line}")
    if code == 0 and any(line.startswith(NO_VERDICT) for line in lines):
        print(f"hint: add 'gpu: rtx4090' to {file}, or args: [--gpu, rtx4090] to the hook", file=sys.stderr)
        return 2  # asked whether it fits, nobody can say yes
    return code


if __name__ == "__main__":
    sys.exit(fits(sys.argv[1:]))
