"""What people see: the table above a prediction, the `import` object, the table on stderr for other commands."""

import json
from pathlib import Path

import pytest
from samples import check_golden

from vramplan.cli import main
from vramplan.importers.vocabulary import VOCABULARIES
from vramplan.importers.vocabulary.base import Vocabulary
from vramplan.predict.changes import CHANGES
from vramplan.report.import_text import render_import
from vramplan.report.layout import Page
from vramplan.scenario_file import scenario_from_mapping
from vramplan.targets import resolve

EXAMPLES = Path(__file__).parent / "examples"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the file that the tests read."""
    (tmp_path / "run.yaml").write_text((EXAMPLES / "trl" / "warned.yaml").read_text())
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("width", "name"), [(0, "import-pipe.txt"), (80, "import-80.txt"), (50, "import-50.txt")])
def test_the_table(here: Path, width: int, name: str) -> None:
    origin = resolve("run.yaml").origin
    assert origin is not None
    text = render_import(origin, Page(width), warnings=True)
    assert not width or all(len(line) <= width for line in text.splitlines())
    check_golden(name, text)


def test_predict_shows_the_table_above_and_the_warnings(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "run.yaml", "--gpu", "rtx4090"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("run.yaml: read as TRL (trl 1.16.0)\n")
    assert "warning: unknown key 'max_lenght: 512' of TRL" in out
    assert out.rstrip().splitlines()[-1].startswith("fits:")
    assert not err


@pytest.mark.parametrize("command", ["predict", "plan"])
def test_what_fits_without_what_the_prediction_has_too_much_is_tight(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """torchtune's optimizer_in_bwd: 1,235,814,400 gradients of 2 B, 2.30 GiB of the predicted 9.19, do not pile up;
    and its chunked loss saves 128,256 x 6 B for each of 4 x 512 tokens, 1.47 GiB.
    """
    file = str(EXAMPLES / "torchtune" / "full.yaml")
    words = []
    for budget in ("5GiB", "6GiB", "10GiB"):
        main([command, file, "--budget", budget, "--seq", "512"])
        last = capsys.readouterr().out.rstrip().splitlines()[-1]
        words.append(last.partition(":")[0])
    assert words == ["does not fit", "tight", "fits"]


@pytest.mark.parametrize("command", ["predict", "plan"])
def test_what_the_trainer_cannot_do_is_not_advised(
    tmp_path: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """torchtune 0.6.1 has no Liger; the scenario of its file, in a script of one's own, may have it."""
    file = str(EXAMPLES / "torchtune" / "full.yaml")
    main([command, file, "--gpu", "rtx4090"])
    assert "liger" not in capsys.readouterr().out
    (tmp_path / "own.yaml").write_text(json.dumps(resolve(file).single("test").to_mapping()))
    main([command, str(tmp_path / "own.yaml"), "--gpu", "rtx4090"])
    assert "liger" in capsys.readouterr().out


@pytest.mark.parametrize("vocabulary", VOCABULARIES.values(), ids=VOCABULARIES)
def test_what_a_format_lacks_are_changes_that_there_are(vocabulary: Vocabulary) -> None:
    assert vocabulary.lacks <= {change.name for change in CHANGES}


def test_modules_trained_whole_are_in_the_verdict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Qwen2.5-0.5B's table has 151,936 x 896 numbers, and so has the copy that peft gives the tied head."""
    file = tmp_path / "run.yaml"
    keys = "model_name_or_path: Qwen/Qwen2.5-0.5B\nuse_peft: true\nload_in_4bit: true\ndtype: bfloat16\n"
    keys += "optim: adamw_torch\nmax_length: 256\n"
    file.write_text(keys)
    assert main(["predict", str(file), "--json"]) == 0
    device = json.loads(capsys.readouterr().out)["peak"]["device"]
    file.write_text(keys + "lora_modules_to_save: [embed_tokens, lm_head]\n")
    more = 2 * 151_936 * 896 * (2 + 2 + 2 * 2)  # copy, gradient, two states, all bfloat16
    assert main(["predict", str(file), "--budget", str(device + more - 2**20)]) == 1
    out = capsys.readouterr().out
    assert "embed_tokens+lm_head whole" in out
    assert out.rstrip().splitlines()[-1].startswith("does not fit: ")


def test_json_carries_the_import(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "run.yaml", "--seq", "256", "--optimizer", "sgd", "--json"]) == 0
    body = json.loads(capsys.readouterr().out)
    assert list(body["import"]) == ["format", "library", "read", "assumed", "ignored", "warnings"]
    assert {"key": "lora_r"} not in body["import"]["read"]
    assert body["import"]["warnings"] == body["warnings"][: len(body["import"]["warnings"])]
    # What was typed settles what the file left open: neither max_length nor lomo is warned about.
    assert not any("max_length: null" in text or "lomo" in text for text in body["warnings"])
    assert {
        "key": "optim",
        "value": "lomo",
        "ours": "optimizer",
        "becomes": "sgd",
        "note": "replaced by what was typed",
    } in (body["import"]["read"])
    assert (body["scenario"]["seq"], body["scenario"]["optimizer"]) == (256, "sgd")
    assert scenario_from_mapping(body["scenario"]).lora.rank == 16


def test_other_commands_tell_on_stderr_and_write_scenarios(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "run.yaml", "--gpu", "rtx4090", "--goal", "max-seq", "--write", "fits.yaml", "--json"]) == 0
    out, err = capsys.readouterr()
    assert "best" in json.loads(out)
    assert err.startswith("run.yaml: read as TRL")
    assert "warning: max_length: null" in err
    again = resolve("fits.yaml")
    assert again.origin is None
    assert again.scenarios[0].lora.targets == ("q_proj", "v_proj")


def test_compare_takes_an_adapter(capsys: pytest.CaptureFixture[str]) -> None:
    adapter = str(EXAMPLES / "peft" / "names" / "adapter_config.json")
    assert main(["compare", adapter, str(EXAMPLES / "peft" / "names"), "--json"]) == 0
    assert capsys.readouterr().err.count("read as peft adapter") == 2


def test_the_model_can_be_typed_in_place_of_the_files(here: Path) -> None:
    (here / "run.yaml").write_text("base_model: somebody/unknown\nsequence_len: 64\n")
    target = resolve("run.yaml", {"model": "smollm2-135m"})
    assert target.scenarios[0].model.name == "smollm2-135m"
    assert target.origin is not None
    assert target.origin.read[0].note == "replaced by what was typed"
