from vramplan.errors import CannotRun, UsageError, nearest, unknown


def test_nearest_finds_the_typo_and_stays_silent_otherwise() -> None:
    assert nearest("q_porj", ["k_proj", "q_proj"]) == "did you mean 'q_proj'? "
    assert nearest("zebra", ["k_proj", "q_proj"]) == ""


def test_an_unknown_word_names_itself_its_place_and_what_is_allowed() -> None:
    error = unknown("attention", "spda", ["sdpa", "eager"], where="run.yaml")
    assert error.message == "unknown attention 'spda' in run.yaml"
    assert error.hint == "did you mean 'sdpa'? allowed: sdpa, eager"


def test_exit_codes() -> None:
    assert UsageError("x").exit_code == 2
    assert CannotRun("x").exit_code == 3
