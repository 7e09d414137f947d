"""The pre-commit hook `vramplan-fits`: `vramplan predict` on each changed file, one line of answer per file."""

import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

from vramplan.cli import main


def fits(argv: Sequence[str]) -> int:
    """Predict every file among the arguments, the others being flags of `predict`; the worst exit code."""
    files = [word for word in argv if Path(word).is_file()]
    flags = [word for word in argv if word not in files]
    return max((_told(file, flags) for file in files), default=0)


def _told(file: str, flags: Sequence[str]) -> int:
    text = StringIO()
    with redirect_stdout(text):
        code = main(["predict", file, *flags])
    lines = text.getvalue().strip().splitlines()
    if lines:
        print(f"{file}: {lines[-1]}")
    return code


if __name__ == "__main__":
    sys.exit(fits(sys.argv[1:]))
