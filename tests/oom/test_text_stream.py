import codecs
import io

import pytest

from vramplan.oom.text_stream import MARK, text_stream

TEXT = "{'loss': 1.25}\r\n 29%|██▊ |\r 30%|███ |\r\n\n  File \"C:\\x.py\"\n"
LINES = ["{'loss': 1.25}\r\n", " 29%|██▊ |\r 30%|███ |\r\n", "\n", '  File "C:\\x.py"\n']


def lines(data: bytes) -> list[str]:
    file = io.BytesIO(data)
    return list(text_stream(file.read(MARK), file))


@pytest.mark.parametrize(
    ("mark", "encoding"),
    [
        (b"", "utf-8"),
        (codecs.BOM_UTF8, "utf-8"),
        (codecs.BOM_UTF16_LE, "utf-16-le"),
        (codecs.BOM_UTF16_BE, "utf-16-be"),
    ],
)
def test_a_byte_order_mark_tells_how_the_text_is_written(mark: bytes, encoding: str) -> None:
    assert lines(mark + TEXT.encode(encoding)) == LINES


@pytest.mark.parametrize(
    ("data", "found"), [(b"", []), (b"x", ["x"]), (b"x\n", ["x\n"]), (b"\n", ["\n"]), (codecs.BOM_UTF16_LE, [])]
)
def test_what_is_no_longer_than_a_mark_is_read(data: bytes, found: list[str]) -> None:
    assert lines(data) == found


def test_what_is_no_text_is_replaced() -> None:
    assert lines(b"\x00\xff\nend\n") == ["\x00\ufffd\n", "end\n"]


def test_a_line_is_read_in_pieces_where_it_is_long() -> None:
    file = io.BytesIO(codecs.BOM_UTF16_LE + ("é" * 5 + "\n").encode("utf-16-le"))
    stream = text_stream(file.read(MARK), file)
    assert [stream.readline(4) for _ in range(3)] == ["éééé", "é\n", ""]
