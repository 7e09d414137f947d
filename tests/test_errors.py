import traceback

import pytest

from vramplan.errors import CannotRun, UsageError, first_line, nearest, require_installed, unknown


def test_nearest_finds_the_typo_and_stays_silent_otherwise() -> None:
    assert nearest("q_porj", ["k_proj", "q_proj"]) == "did you mean 'q_proj'? "
    assert nearest("zebra", ["k_proj", "q_proj"]) == ""


@pytest.mark.parametrize(
    ("word", "known", "meant"),
    [
        ("gpu", ["cuda", "cpu"], "cuda"),
        ("FP16", ["float32", "float16", "bfloat16"], "float16"),
        ("fa2", ["sdpa", "eager", "flash_attention_2"], "flash_attention_2"),
        ("adam", ["ademamix", "adamw_torch"], "adamw_torch"),
        ("r", ["rank", "targets"], "rank"),
        ("gpu", ["gpus", "models"], "gpus"),  # another list, where it is a slip
    ],
)
def test_what_people_say_is_nearer_than_what_looks_alike(word: str, known: list[str], meant: str) -> None:
    assert nearest(word, known) == f"did you mean '{meant}'? "


def test_an_unknown_word_names_itself_its_place_and_what_is_allowed() -> None:
    error = unknown("attention", "spda", ["sdpa", "eager"], where="run.yaml")
    assert error.message == "unknown attention 'spda' in run.yaml"
    assert error.hint == "did you mean 'sdpa'? allowed: sdpa, eager"


def test_the_first_line_of_an_exception_is_its_kind_when_it_says_nothing() -> None:
    assert first_line(ValueError("\n a value \nwith more\n")) == "a value "
    assert first_line(ValueError("")) == first_line(ValueError("\n")) == "ValueError"


def test_a_traceback_shows_the_hint() -> None:
    hinted, bare = UsageError("no such card", hint="name another"), UsageError("no such card")
    assert traceback.format_exception_only(hinted)[-1] == "hint: name another\n"
    assert traceback.format_exception_only(bare)[-1].endswith("no such card\n")


def test_exit_codes() -> None:
    assert UsageError("x").exit_code == 2
    assert CannotRun("x").exit_code == 3


def test_missing_libraries_are_named_with_the_way_to_get_them() -> None:
    require_installed("reading", ["msgspec", "yaml"], hint="")
    with pytest.raises(CannotRun) as raised:
        require_installed("reading", ["msgspec", "no_such_library"], hint="pip install it")
    assert raised.value.message == "reading needs no_such_library, which is not installed"
    assert raised.value.hint == "pip install it"
    with pytest.raises(CannotRun, match="needs no_such_a, no_such_b, which are not installed"):
        require_installed("reading", ["no_such_a", "no_such_b"], hint="")
