import json
import sys
from dataclasses import replace
from importlib.metadata import metadata
from types import SimpleNamespace
from typing import NoReturn

import pytest

from vramplan.doctor import EXTRAS, Diagnosis, Library, diagnose
from vramplan.measure.nvml import Card
from vramplan.report.doctor_text import render_diagnosis
from vramplan.units import GIB

TORCH = Library("torch", "measure", "2.13.0+cpu", ">=2.11", accepted=True)
PANDAS = Library("pandas", "report", "", ">=2.2", accepted=False)
DIAGNOSIS = Diagnosis("0.1.0", "3.11.7", "Linux x86_64", (TORCH, PANDAS), (), "NVML Shared Library Not Found", True)

T4 = Card("Tesla T4", "GPU-1", "580.1", "13.0", "", 15 * GIB, GIB, 14 * GIB, ())


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
            "needs pip install 'vramplan[trl]': measure and predict --engine trace of the stacks trl and trl-dpo",
            "needs pip install 'vramplan[liger]': measure and predict --engine trace with Liger's kernels or loss",
            "needs pip install 'vramplan[report]': report --csv and --parquet, and the plots of --html",
            "needs pip install 'vramplan[data]': data sets of text (--data FILE --tokenizer DIR), data sets in Parquet",
            "needs a GPU: measure --device cuda",
        ]
    )


def test_a_card_is_shown_with_what_is_free() -> None:
    text = render_diagnosis(replace(DIAGNOSIS, gpus=(T4,), gpu_note=""))
    assert "gpu: Tesla T4, 14.00 GiB of 15.00 GiB free" in text
    assert "needs a GPU" not in text


def test_a_busy_card_its_driver_and_what_hides_it_are_shown() -> None:
    busy = replace(T4, compute_capability="7.5", processes=(7, 8))
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
        {"measure", "trl", "liger", "report", "data"},
    )
    assert bool(diagnosis.gpus) != bool(diagnosis.gpu_note)


def old_library(opened: list[int]) -> SimpleNamespace:
    """NVML of a driver before 510 with one card, whose processes it may not tell."""

    def refuse(*asked: object) -> NoReturn:
        raise RuntimeError(asked)

    def memory(handle: object, version: int = 1) -> SimpleNamespace:
        return SimpleNamespace(total=15 * GIB, used=GIB, free=14 * GIB) if version == 1 else refuse(version)

    return SimpleNamespace(
        NVMLError=RuntimeError,
        nvmlMemory_v2=2,
        nvmlInit=lambda: opened.append(1),
        nvmlShutdown=lambda: opened.append(-1),
        nvmlDeviceGetCount=lambda: 1,
        nvmlDeviceGetHandleByIndex=lambda i: i,
        nvmlDeviceGetName=lambda handle: b"Tesla T4",
        nvmlDeviceGetUUID=lambda handle: "GPU-1",
        nvmlDeviceGetMemoryInfo=memory,
        nvmlDeviceGetCudaComputeCapability=lambda handle: (7, 5),
        nvmlDeviceGetComputeRunningProcesses=refuse,
        nvmlSystemGetDriverVersion=lambda: b"470.1",
        nvmlSystemGetCudaDriverVersion_v2=lambda: 11040,
    )


def test_cards_are_those_of_the_meters(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[int] = []
    monkeypatch.setitem(sys.modules, "pynvml", old_library(opened))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    found = diagnose()
    assert found.to_json()["gpus"] == [
        {"name": "Tesla T4", "capacity": 15 * GIB, "free": 14 * GIB, "compute_capability": "7.5", "processes": 0}
    ]
    assert (found.gpu_note, found.driver) == ("", "470.1, CUDA up to 11.4")
    assert found.hidden == "CUDA_VISIBLE_DEVICES='-1' hides every GPU"
    assert opened == [1, -1]


def test_without_the_drivers_library_the_note_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert (diagnose().gpus, diagnose().gpu_note) == ((), "nvidia-ml-py is not installed")


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


def test_every_extra_of_the_package_but_that_of_its_tests_is_known() -> None:
    assert {*EXTRAS, "test"} == set(metadata("vramplan").get_all("Provides-Extra"))
    assert {library.extra for library in diagnose().libraries} == set(EXTRAS)
