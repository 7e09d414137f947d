"""What the child of a measurement is asked and answers survives the files between them."""

from pathlib import Path

import pytest
from samples import RECORD

from vramplan.errors import CannotRun, UsageError, VramplanError
from vramplan.measure.messages import (
    Answer,
    Failed,
    Measured,
    Misasked,
    Request,
    Unable,
    read_answer,
    read_request,
    write_message,
)
from vramplan.record import Outcome

ANSWERS = (
    Measured(RECORD.to_json()),
    Misasked("unknown gpu 'h20'", "did you mean 'h200'?"),
    Unable("there is no CUDA GPU here", ""),
    Failed(Outcome.OOM, "MemoryError"),
)


def test_a_request_arrives(tmp_path: Path) -> None:
    request = Request(RECORD.scenario.to_mapping(), "/models/llama", "cuda", 3, 2**30)
    write_message(request, tmp_path / "request.json")
    assert read_request(tmp_path / "request.json") == request


@pytest.mark.parametrize("answer", ANSWERS)
def test_an_answer_arrives(answer: Answer, tmp_path: Path) -> None:
    write_message(answer, tmp_path / "answer.json")
    assert read_answer(tmp_path / "answer.json") == answer


def test_a_loss_that_is_no_number_arrives(tmp_path: Path) -> None:
    write_message(Measured({"losses": [float("inf")]}), tmp_path / "answer.json")
    assert read_answer(tmp_path / "answer.json") == Measured({"losses": [float("inf")]})


@pytest.mark.parametrize(("refusal", "kind"), [(Misasked("no", "yes"), UsageError), (Unable("no", "yes"), CannotRun)])
def test_a_refusal_is_the_error_that_the_child_met(refusal: Misasked | Unable, kind: type[VramplanError]) -> None:
    error = refusal.error()
    assert (type(error), error.message, error.hint) == (kind, "no", "yes")
