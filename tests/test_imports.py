"""Imports only go down the floors, and the closed form never touches torch."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "vramplan"

#: Each floor may import itself and the floors below it (earlier in the list).
FLOORS = [
    {"errors", "files", "spelling", "element_types", "torch_release", "allocator_settings"},
    {"units"},
    {"ledger", "architecture", "catalog", "optimizers", "stacks"},
    {"scenario"},
    {
        *("scenario_schema", "scenario_check", "model_source", "yaml_file", "checkpoint_quant"),
        *("scenario_quant", "scenario_resolve", "scenario_file"),
    },
    {"timeline", "allocator", "record"},
    {"attention", "attention_tiles"},
    {"predict", "training"},
    {"measure"},
    {
        "api",
        "check",
        "compare",
        "error_table",
        "history",
        "importers",
        "targets",
        "doctor",
        "plan",
        "explain",
        "dataset",
        "oom",
        "live_model",
        "integrations",
        "inventory",
        "quant",
        "claims",
    },
    {"report"},
    {"__init__", "cli", "commands", "__main__", "pre_commit", "pytest_plugin"},
]
HEIGHT = {name: height for height, names in enumerate(FLOORS) for name in names}
FILES = sorted(PACKAGE.rglob("*.py"))


def module_imports(file: Path) -> set[str]:
    """Top-level names below vramplan that a file imports while it is imported (not inside functions)."""
    found = set()
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("vramplan."):
            found.add(node.module.split(".")[1])
        elif isinstance(node, ast.ImportFrom) and node.module == "vramplan":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("vramplan.")}
    return found


@pytest.mark.parametrize("file", FILES, ids=[str(f.relative_to(PACKAGE)) for f in FILES])
def test_imports_go_down(file: Path) -> None:
    own = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
    assert own in HEIGHT, f"{own} has no floor: add it to FLOORS"
    upward = {name for name in module_imports(file) if HEIGHT[name] > HEIGHT[own]}
    assert not upward


def test_the_table_of_floors_names_every_module() -> None:
    text = (PACKAGE.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
    table = text[text.index("| floor |") : text.index("### Where to find the formula")]
    named = set(re.findall(r"`(\w+)/?`", table))
    assert set(HEIGHT) - named == {"__init__", "__main__"}


@pytest.mark.parametrize(("one", "other"), [("predict", "training"), ("training", "predict"), ("predict", "measure")])
def test_the_closed_form_and_the_training_code_are_strangers(one: str, other: str) -> None:
    for file in (PACKAGE / one).rglob("*.py"):
        assert f"vramplan.{other}" not in file.read_text(), file


def test_the_command_line_and_a_prediction_never_load_torch() -> None:
    program = (
        "import sys, vramplan.cli; code = vramplan.cli.main(['predict', 'llama-2-7b', '--json']);"
        "heavy = {'torch', 'transformers', 'numpy', 'pandas', 'bitsandbytes', 'peft'} & set(sys.modules);"
        "assert not heavy, heavy; sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
