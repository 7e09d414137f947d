"""`vramplan inspect` from the command line."""

import json

import pytest

from vramplan.cli import main


def answer(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    code = main(["inspect", *argv])
    out, err = capsys.readouterr()
    return code, out, err


def test_json_holds_every_section(capsys: pytest.CaptureFixture[str]) -> None:
    argv = ("llama-2-7b", "--gpu", "rtx3090", "--rank", "64", "--optimizer", "paged_adamw_8bit", "--json")
    code, out, _ = answer(capsys, *argv)
    body = json.loads(out)
    assert code == 0
    assert body["kind"] == "inspection"
    assert sum(role["parameters"] for role in body["weights"] if role["kind"] != "buffer") == 6_738_415_616
    assert {choice["rank"] for choice in body["choices"]} == {64}
    assert all(choice["verdict"]["word"] == "fits" for choice in body["choices"])
    # every tensor of rank 64 on a 7B has at least 64 x 4096 elements: 2 bytes of 8-bit states for each parameter
    assert body["paging"]["managed"] == body["full_card"]["managed"] == 2 * 159_907_840
    assert body["full_card"]["fits"]
    assert body["device_map_auto"]["whole"]


def test_ranks(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = answer(capsys, "gpt2", "--ranks", "4,4, 2", "--json")
    assert list(dict.fromkeys(choice["rank"] for choice in json.loads(out)["choices"])) == [4, 2]
    _, out, _ = answer(capsys, "gpt2", "--json")
    assert list(dict.fromkeys(choice["rank"] for choice in json.loads(out)["choices"])) == [8, 16, 32, 64]


def test_host_memory_sends_the_rest_to_the_disk(capsys: pytest.CaptureFixture[str]) -> None:
    argv = ("llama-2-7b", "--budget", "2GiB", "--host-memory", "1GiB")
    code, out, _ = answer(capsys, *argv)
    assert code == 0
    assert "go to the disk" in out


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("llama-2-7",), "unknown target 'llama-2-7'"),
        (("gpt2", "--ranks", "0"), "--ranks: '0' is not a count"),
        (("gpt2", "--ranks", "8,,x"), "--ranks: '' is not a count"),
        (("gpt2", "--targets", "q_porj"), "unknown target module 'q_porj'"),
        (("gpt2", "--reserve", "1GiB"), "no card is named"),
        (("gpt2", "--gpu", "t4", "--reserve", "64GiB"), "leaves nothing of t4"),
        (("gpt2", "--gpu", "t5"), "t5"),
        (("stacks",), "inspect needs one scenario"),
        (("gpt2", "--host-memory", "1GB"), "--host-memory: '1GB' is ambiguous"),
    ],
)
def test_bad_input_is_refused_in_one_line(
    argv: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = answer(capsys, *argv)
    assert (code, out) == (2, "")
    assert message in err
    assert "Traceback" not in err
