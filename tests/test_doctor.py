import json
from dataclasses import replace

import pytest

from vramplan.doctor import Diagnosis, Gpu, Library, diagnose, render_diagnosis
from vramplan.units import GIB

TORCH = Library("torch", "measure", "2.13.0+cpu", ">=2.11", accepted=True)
PANDAS = Library("pandas", "report", "", ">=2.2", accepted=False)
DIAGNOSIS = Diagnosis("0.1.0", "3.11.7", "Linux x86_64", (TORCH, PANDAS), (), "NVML Shared Library Not Found", True)


def test_an_extra_is_ready_when_all_of_it_is_accepted() -> None:
    assert DIAGNOSIS.ready("measure")
    assert not DIAGNOSIS.ready("report")
    old = replace(TORCH, name="peft", accepted=False)
    assert not replace(DIAGNOSIS, libraries=(TORCH, old)).ready("measure")
    assert not replace(DIAGNOSIS, libraries=()).ready("measure")


def test_the_text_ends_with_what_works_and_what_is_missing() -> None:
    assert render_diagnosis(DIAGNOSIS) == "\n".join(
        [
            "vramplan 0.1.0, Python 3.11.7, Linux x86_64",
            "",
            "library  installed   wanted  extra",
            "torch    2.13.0+cpu  >=2.11  measure",
            "pandas   -           >=2.2   report",
            "",
            "gpu: none (NVML Shared Library Not Found)",
            "hub: offline (HF_HUB_OFFLINE)",
            "",
            "works: predict, plan, inspect, quant, compare, check, explain-oom, list",
            "works: measure, predict --engine trace, quant --weights",
            "needs pip install 'vramplan[trl]': measure and predict --engine trace of the stack trl",
            "needs pip install 'vramplan[report]': report --csv and --parquet, and the plots of --html",
            "needs pip install 'vramplan[data]': data sets of text (--data FILE --tokenizer DIR), data sets in Parquet",
            "needs a GPU: measure --device cuda",
        ]
    )


def test_a_card_is_shown_with_what_is_free() -> None:
    text = render_diagnosis(replace(DIAGNOSIS, gpus=(Gpu("Tesla T4", 15 * GIB, 14 * GIB),), gpu_note=""))
    assert "gpu: Tesla T4, 14.00 GiB of 15.00 GiB free" in text
    assert "needs a GPU" not in text


def test_a_busy_card_its_driver_and_what_hides_it_are_shown() -> None:
    busy = Gpu("Tesla T4", 15 * GIB, 14 * GIB, "7.5", 2)
    found = replace(DIAGNOSIS, gpus=(busy,), gpu_note="", driver="580.1, CUDA up to 13.0", hidden="all hidden")
    lines = render_diagnosis(found).splitlines()
    assert lines[6:9] == [
        "gpu: Tesla T4, 14.00 GiB of 15.00 GiB free, compute capability 7.5, busy: 2 compute processes",
        "driver: 580.1, CUDA up to 13.0",
        "hidden: all hidden",
    ]
    assert lines[-1] == "needs a visible GPU: measure --device cuda"


def test_this_machine_can_be_diagnosed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    diagnosis = diagnose()
    body = json.loads(json.dumps(diagnosis.to_json()))
    assert (body["kind"], body["offline"], set(body["ready"])) == (
        "diagnosis",
        True,
        {"measure", "trl", "report", "data"},
    )
    assert bool(diagnosis.gpus) != bool(diagnosis.gpu_note)


@pytest.mark.parametrize(
    ("wanted", "installed", "accepted"),
    [
        (">=5.17,<6", "5.17.0", True),
        (">=5.17,<6", "5.16.9", False),
        (">=5.17,<6", "6.0.0", False),
        (">=2.11", "2.11.0+cu128", True),
        (">=2.11", "2.9.1", False),
        ("", "1", True),
    ],
)
def test_versions_are_compared_as_numbers(wanted: str, installed: str, accepted: bool) -> None:
    from vramplan.doctor import accepts

    assert accepts(wanted, installed) is accepted
