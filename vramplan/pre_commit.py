"""The pre-commit hook `vramplan-fits`: `vramplan predict` on each changed file, its warnings and its verdict."""

import sys
from collections.abc import Sequence
from functools import partial
from itertools import takewhile
from os.path import isfile

from vramplan.cli import answer, exit_code
from vramplan.report.summary_text import in_short


def fits(argv: Sequence[str]) -> int:
    """Predict the files that end the arguments, as pre-commit gives them; before them are flags of `predict`.

    What comes back is the worst exit code. A file that a flag names is written in one word: `--data=d.jsonl`.
    """
    files = [*takewhile(isfile, reversed(argv))][::-1]
    flags = argv[: len(argv) - len(files)]
    return max((exit_code(partial(_told, file, flags)) for file in files), default=0)


def _told(file: str, flags: Sequence[str]) -> int:
    told = answer(["predict", file, *flags])
    for line in in_short(told.predictions):
        print(f"{file}: {line}")
    if told.code == 0 and any(prediction.unjudged for prediction in told.predictions):
        print(f"hint: add 'gpu: rtx4090' to {file}, or args: [--gpu, rtx4090] to the hook", file=sys.stderr)
        return 2  # asked whether it fits, nobody can say yes
    return told.code


if __name__ == "__main__":
    sys.exit(fits(sys.argv[1:]))
