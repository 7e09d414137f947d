"""Claims about what the libraries accept."""

from collections.abc import Sequence

from vramplan.claims.claim import Claim, Finding, Output, Verdict, all_of

_TRY = "import transformers; transformers.TrainingArguments('build', use_cpu=True, {})"


def _arguments(outputs: Sequence[Output]) -> Finding:
    printed, corrected, _ = outputs
    said = ["runs" if output["code"] == 0 else output["text"] for output in (printed, corrected)]
    arithmetic = f"as printed: {said[0]}; with `optim=`: {said[1]}"
    return Finding(all_of(said[0] == "runs"), arithmetic)


CLAIMS = (
    Claim(
        id="script-runs",
        said="the script runs as printed: TrainingArguments(..., optimizer='paged_adamw_8bit')",
        commands=(
            f'python -c "{_TRY.format("optimizer=" + chr(39) + "paged_adamw_8bit" + chr(39))}"',
            f'python -c "{_TRY.format("optim=" + chr(39) + "paged_adamw_8bit" + chr(39))}"',
            "vramplan predict llama-2-7b-guanaco",
        ),
        find=_arguments,
        verdict=Verdict.CORRECTED,
        because="the argument is called `optim`; the corrected recipe is scenarios/llama-2-7b-guanaco.yaml",
        measured="scaled down it trains in the tests (tests/training)",
    ),
)
