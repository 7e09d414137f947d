"""What `--explain` says must add up, and its arithmetic must be right when someone redoes it."""

import json
import re
from math import ceil
from pathlib import Path
from typing import Any

import pytest
from samples import check_golden

from vramplan.api import Foreseen, foresee
from vramplan.cli import main
from vramplan.explain import Explanation, Line, explain
from vramplan.ledger import STATIC_COMPONENTS, Basis, Component, Phase
from vramplan.report.explain_text import render_explanation
from vramplan.report.layout import Page, visible
from vramplan.scenario import Scenario
from vramplan.scenario_file import scenario_from_mapping

SMALL = {
    "model_type": "llama",
    "hidden_size": 128,
    "intermediate_size": 320,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 512,
    "tie_word_embeddings": False,
}
SCENARIOS: dict[str, dict[str, Any]] = {
    "7b": {"model": "llama-2-7b", "gpu": "rtx3090", "batch": 4, "seq": 512},
    "biases and tied head": {"model": "qwen2.5-0.5b", "optimizer": "paged_adamw_8bit", "stack": "script"},
    "conv1d, no double": {"model": "gpt2", "quant": {"double": False}, "checkpointing": False, "seq": 512},
    "experts": {"model": "mixtral-8x7b-v0.1", "lora": {"dropout": 0.0}, "gpu": "h100-80gb"},
    "subclass of linear": {"model": "falcon-7b", "optimizer": "adafactor", "checkpointing": "reentrant"},
    "int8": {"model": "opt-1.3b", "quant": {"type": "int8"}, "optimizer": "adamw_8bit"},
    "full": {"model": "smollm2-135m", "method": "full", "optimizer": "adamw_8bit"},
    "lora": {"model": "gemma-2-2b", "method": "lora", "attention": "eager", "seq": 1024},
    "inference": {"model": "llama-3.2-1b", "method": "inference"},
    "odd blocks": {"model": SMALL, "load": "random", "quant": {"block_size": 4096, "storage": "bfloat16"}, "seq": 33},
}


def foreseen(name: str, device: Any = "cuda") -> Foreseen:
    return foresee(scenario_from_mapping(SCENARIOS[name]), device=device)


def worth(formula: str) -> int:
    """What the arithmetic comes to."""
    assert re.fullmatch(r"(?:ceil|[\d.x+\-/() ])+", formula), formula
    value = eval(formula.replace("x", "*"), {"__builtins__": {}, "ceil": ceil})
    assert value == int(value), formula
    return int(value)


@pytest.mark.parametrize("device", ["cuda", "cpu"])
@pytest.mark.parametrize("name", SCENARIOS)
def test_lines_add_up_to_the_components_of_the_peak(name: str, device: Any) -> None:
    found = foreseen(name, device)
    ledger = found.prediction.ledger
    explanations = explain(found)
    told = {e.component: e.bytes for e in ledger.of(ledger.peak_phase)}
    assert {e.component: sum(line.bytes for line in e.lines) for e in explanations} == told


@pytest.mark.parametrize("name", SCENARIOS)
def test_arithmetic_comes_to_the_bytes(name: str) -> None:
    for explanation in explain(foreseen(name)):
        for line in explanation.lines:
            if line.formula:
                assert worth(line.formula) == line.each, (explanation.component, line)


@pytest.mark.parametrize("name", SCENARIOS)
def test_whatever_stays_has_its_arithmetic(name: str) -> None:
    bare = [
        (explanation.component, line.what)
        for explanation in explain(foreseen(name))
        if explanation.component in (*STATIC_COMPONENTS, Component.WORKSPACE, Component.LOGITS)
        for line in explanation.lines
        if not line.formula
    ]
    assert not bare


def lines_of(name: str, component: Component) -> tuple[Line, ...]:
    return next(e.lines for e in explain(foreseen(name)) if e.component is component)


def test_weights_of_a_7b_by_hand() -> None:
    # 32 layers: q, k, v, o of [4096, 4096]; gate, up of [11008, 4096]; down of [4096, 11008]; half a byte each.
    square, wide = 4096 * 4096 // 2, 11008 * 4096 // 2
    assert [(x.count, x.each) for x in lines_of("7b", Component.WEIGHTS)] == [(64, wide), (128, square), (32, wide)]
    # fp32 after the preparation: embeddings and head of 32,000 rows, two norms per layer and the last one, and
    # two copies of the rotary frequencies (64 each).
    assert {(x.count, x.each) for x in lines_of("7b", Component.UNQUANTIZED)} == {
        (1, 32_000 * 4096 * 4),
        (65, 4096 * 4),
        (1, 64 * 4),
    }


def test_bits_are_worked_out() -> None:
    notes = {e.component: e.notes for e in explain(foreseen("7b"))}
    # 4 + 8/64 + 32/(64 x 256) = 4 + 0.125 + 0.001953125
    assert notes[Component.QUANT_STATE] == ("4 + 8/64 + 32/(64 x 256) = 4.127 bits per parameter, small tables apart",)


def test_the_rules_of_8_bit_optimizers_are_told() -> None:
    states = lines_of("biases and tied head", Component.OPTIMIZER)
    # rank 16 on k_proj's 128 outputs: 2,048 elements, fewer than 4,096
    small = next(line for line in states if line.formula == "128 x 16 x 4" and "state1" in line.what)
    assert small.note == "fp32: 2048 elements are fewer than 4096, not paged: 2048 elements are fewer than 100000"
    large = next(line for line in states if line.formula == "16 x 896")
    assert large.note == "8-bit, not paged: 14336 elements are fewer than 100000"


def test_what_the_optimizer_makes_has_the_type_of_what_is_trained() -> None:
    keys = {"method": "full", "dtype": "bfloat16", "batch": 1, "seq": 128, "optimizer": "adamw_torch"}
    found = foresee(scenario_from_mapping({"model": "smollm2-135m", **keys}))
    assert found.prediction.ledger.peak_phase is Phase.STEP
    workspace = next(e.lines for e in explain(found) if e.component is Component.WORKSPACE)
    assert {line.note for line in workspace if "square root" in line.what} == {"bfloat16"}


def test_why_a_weight_is_not_quantised_is_what_inspect_says() -> None:
    notes = {line.what: line.note.partition("; ")[2] for line in lines_of("experts", Component.UNQUANTIZED)}
    assert notes["mlp.gate: weight"] == "a bare parameter of the router, no nn.Linear"
    assert notes["mlp.experts: down_proj"] == "8 experts in one parameter, no nn.Linear"
    assert notes["model.rotary_emb: inv_freq"] == "a buffer"
    assert lines_of("lora", Component.UNQUANTIZED)[0].note == "bfloat16"


def test_the_trace_is_told_tensor_by_tensor() -> None:
    mapping = {"model": SMALL, "load": "random", "batch": 4, "seq": 512, "lora": {"rank": 4}}
    found = foresee(scenario_from_mapping(mapping), "trace")
    ledger = found.prediction.ledger
    explanations = explain(found)
    told = {e.component: e.bytes for e in ledger.of(ledger.peak_phase)}
    assert {e.component: sum(line.bytes for line in e.lines) for e in explanations} == told
    arithmetic = [x for e in explanations if e.component is Component.LOGITS for x in e.lines]
    assert arithmetic
    assert all(worth(line.formula) == line.each for line in arithmetic)


EXPLAINED = (
    Explanation(
        Component.QUANT_STATE,
        Phase.BACKWARD,
        33_685_504,
        Basis.EXACT,
        (
            Line("k_proj, q_proj: absmax", 128, 262_144, "4096 x 4096 / 64", "uint8, one for every 64 weights"),
            Line("k_proj, q_proj: code map", 128, 1024, "256 x 4", "fp32, the 256 values of the 8-bit code"),
        ),
        ("4 + 8/64 + 32/(64 x 256) = 4.127 bits per parameter, small tables apart",),
    ),
    Explanation(
        Component.ACTIVATIONS,
        Phase.BACKWARD,
        1_073_741_828,
        Basis.MODELLED,
        (
            Line("layer output", 32, 33_554_432, "4 x 512 x 4096 x 4", "float32"),
            Line("a tensor of which only the size is known", 2, 2, ""),
        ),
    ),
    Explanation(
        Component.CONTEXT,
        Phase.BACKWARD,
        147_849_216,
        Basis.CALIBRATED,
        (Line("t4", 1, 147_849_216, "", "recorded on Tesla T4, CUDA 12.8"),),
    ),
)


@pytest.mark.parametrize("width", [0, 100, 50])
def test_rendered_whole(width: int) -> None:
    text = render_explanation(EXPLAINED, Page(width))
    check_golden(f"explain-{width or 'pipe'}.txt", text)
    assert not width or all(visible(line) <= width for line in text.splitlines())


def answer(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    code = main(["predict", *argv])
    out, err = capsys.readouterr()
    return code, out, err


def test_one_component_or_all(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = answer(capsys, "llama-2-7b", "--gpu", "rtx3090", "--explain", "weights")
    assert code == 0
    assert out.startswith("weights = 3,238,002,688 B")
    assert "quant-state = " not in out
    assert out.splitlines()[-1].startswith("fits: ")
    _, out, _ = answer(capsys, "llama-2-7b", "--json", "--explain")
    body = json.loads(out)
    phase = [entry for entry in body["entries"] if entry["phase"] == body["peak"]["phase"]]
    assert [(e["component"], e["bytes"]) for e in body["explain"]] == [(e["component"], e["bytes"]) for e in phase]
    assert all(sum(x["bytes"] for x in e["lines"]) == e["bytes"] for e in body["explain"])


def test_a_component_that_holds_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = answer(capsys, "llama-2-7b", "--explain", "cache")
    assert code == 0
    assert out.startswith("cache holds nothing at the peak (backward)\n")
    _, out, _ = answer(capsys, "llama-2-7b", "--json", "--explain", "cache")
    assert json.loads(out)["explain"] == []


def test_wrong_words_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = answer(capsys, "llama-2-7b", "--explain", "weigths")
    assert (code, out) == (2, "")
    assert "did you mean 'weights'?" in err
    code, _, err = answer(capsys, "--explain", "llama-2-7b")
    assert code == 2
    assert "a target goes before --explain" in err


def test_a_matrix_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "two.yaml"
    file.write_text("model: llama-2-7b\nmatrix: {seq: [512, 1024]}\n")
    for option in (["--explain"], ["--timeline", str(tmp_path / "x.svg")]):
        code, _, err = answer(capsys, str(file), *option)
        assert code == 2
        assert f"{option[0]} needs one scenario" in err
    assert not (tmp_path / "x.svg").exists()


@pytest.mark.parametrize("suffix", [".html", ".svg"])
def test_the_run_is_drawn(suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / f"run{suffix}"
    code, out, err = answer(capsys, "llama-2-7b", "--gpu", "rtx3090", "--timeline", str(file))
    assert code == 0
    assert err == f"wrote {file}\n"
    peak = Scenario.load("llama-2-7b", gpu="rtx3090")
    phase = foresee(peak).prediction.ledger.peak_phase
    text = file.read_text()
    assert "<svg" in text
    assert f"in {phase}" in text
    assert out.splitlines()[-1].startswith("fits: ")


def test_a_picture_that_cannot_be_written_is_refused_before_the_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "directory.svg").mkdir()
    for name in ("run.png", "run", "nowhere/run.svg", "directory.svg"):
        # the target does not exist: whoever looked for it first would say so
        code, out, err = answer(capsys, "no-such-model", "--timeline", str(tmp_path / name))
        assert (code, out) == (2, "")
        assert err.startswith("error: --timeline: cannot write ")
