"""Files of samples: good ones in every format, and hostile ones."""

import gzip
import io
import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy
import pandas
import pytest

from vramplan.dataset.sources import LONGEST_LINE
from vramplan.dataset.survey import Data, survey
from vramplan.errors import UsageError

LENGTHS = [5, 7, 5, 300]
COUNTS = ((5, 2), (7, 1), (300, 1))


def counts(path: Path, **keys: Any) -> tuple[tuple[int, int], ...]:
    return survey(Data(path, **keys)).lengths.counts


def lines(*rows: object) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.txt", "5\n7\r\n\n 5 \n300"),
        ("bom.txt", "\ufeff5\n7\n5\n300\n"),
        ("floats.txt", "5.0\n7e0\n5\n300"),
        ("a.csv", "5\n7\n5\n300\n"),
        ("named.csv", "id,length\na,5\nb,7\nc,5.0\nd,300\n"),
        ("quoted.csv", 'length,text\n5,"a\nb"\n7,x\n5,y\n300,z\n'),
        ("a.tsv", "length\tid\n5\t1\n7\t2\n5\t3\n300\t4\n"),
        ("numbers.jsonl", lines(*LENGTHS)),
        ("length.jsonl", lines(*({"length": n, "text": "x"} for n in LENGTHS))),
        ("ids.jsonl", lines(*({"input_ids": [1] * n, "length": 9} for n in LENGTHS))),
        ("lists.jsonl", lines(*([3] * n for n in LENGTHS))),
        ("a.ndjson", lines(*({"num_tokens": n} for n in LENGTHS))),
    ],
)
def test_lengths_in_text(tmp_path: Path, name: str, text: str) -> None:
    file = tmp_path / name
    file.write_text(text, encoding="utf-8", newline="")
    assert counts(file) == COUNTS
    packed = tmp_path / (name + ".gz")
    packed.write_bytes(gzip.compress(text.encode()))
    assert counts(packed) == COUNTS


@pytest.mark.parametrize("dtype", ["<i8", ">i4", "<u2", "<f4", ">f8", "<i2"])
@pytest.mark.parametrize("shape", [(-1,), (1, -1), (-1, 1)])
def test_lengths_in_npy(tmp_path: Path, dtype: str, shape: tuple[int, ...]) -> None:
    numpy.save(tmp_path / "a.npy", numpy.array(LENGTHS, dtype=dtype).reshape(shape))
    assert counts(tmp_path / "a.npy") == COUNTS


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_every_version_of_npy(tmp_path: Path, version: tuple[int, int]) -> None:
    with (tmp_path / "a.npy").open("wb") as file:
        numpy.lib.format.write_array(file, numpy.array(LENGTHS), version=version)
    assert counts(tmp_path / "a.npy") == COUNTS


@pytest.mark.parametrize(
    ("frame", "field"),
    [
        ({"length": LENGTHS}, ""),
        ({"lengths": LENGTHS, "other": ["x"] * 4}, ""),
        ({"tokens": LENGTHS, "length": [1] * 4}, "tokens"),
        ({"anything": LENGTHS}, ""),
        ({"input_ids": [[1] * n for n in LENGTHS], "length": [1] * 4}, ""),
        ({"ids": [[1] * n for n in LENGTHS]}, "ids"),
    ],
)
def test_lengths_in_parquet(tmp_path: Path, frame: dict[str, object], field: str) -> None:
    pandas.DataFrame(frame).to_parquet(tmp_path / "a.parquet")
    assert counts(tmp_path / "a.parquet", field=field) == COUNTS


def test_a_field_is_read_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(lines({"n": 5, "length": 1}, {"n": [1, 2], "length": 1}))
    assert counts(tmp_path / "a.jsonl", field="n") == ((2, 1), (5, 1))


#: A line that is no sample, and words of the complaint.
BAD_LINES = [
    ("{", "not JSON"),
    ("NaN", "not JSON"),
    ('{"length": NaN}', "not JSON"),
    ("[" * 5000, "not JSON"),
    ("\xff\xfe", "not UTF-8"),
    ('{"text": null}', "'text' is null"),
    ('{"prompt": "a", "completion": null}', "'completion' is null"),
    ('[{"text": "a"}]', "an array, whose objects are no messages"),
    ("true", "True is no number"),
    ("null", "None is no number"),
    ('"seven"', "'seven' is no number"),
    ('"nan"', "nan is no number"),
    ("-3", "-3 tokens"),
    ("0", "0 tokens"),
    ("2.5", "2.5 is no number"),
    ("1e300", "more than any sample"),
    ("[]", "0 tokens"),
    ('[1, "a"]', "other things than token ids"),
    ("{}", "an empty object"),
    ('{"tokens_of_it": 3}', "'tokens_of_it'"),
    ('{"input_ids": {"a": 1}}', "no number"),
    ('{"length": [1.5]}', "no number"),
]


@pytest.mark.parametrize(("line", "words"), BAD_LINES, ids=[line[:20] for line, _ in BAD_LINES])
def test_a_malformed_line_is_located_and_refused_or_skipped(tmp_path: Path, line: str, words: str) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(b'{"length": 5}\n\n' + line.encode("latin-1") + b"\n7\n")
    with pytest.raises(UsageError, match="1 of 3 lines are malformed: line 3: ") as refused:
        survey(Data(file))
    assert words in refused.value.message
    assert "--skip-bad" in refused.value.hint
    found = survey(Data(file, skip_bad=True))
    assert (found.lengths.counts, found.skipped) == (((5, 1), (7, 1)), 1)


def test_only_the_first_malformed_lines_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("1\n" + "".join(f"x{i % 7}\n" for i in range(21)))
    with pytest.raises(UsageError) as refused:
        survey(Data(tmp_path / "a.txt"))
    named = "; ".join(f"line {i + 2}: 'x{i}' is no number of tokens (and 2 more)" for i in range(5))
    assert refused.value.message == f"{tmp_path / 'a.txt'}: 21 of 22 lines are malformed: {named}; 6 more"


TEXTS = "".join(json.dumps({"text": f"{i} été"}, ensure_ascii=False) + "\n" for i in range(8))
ARRAY = [{"text": "a"}, {"text": "b"}]


@pytest.mark.parametrize(
    ("name", "body", "words", "hint"),
    [
        ("a.jsonl", TEXTS.encode("latin-1"), "line 1: not UTF-8 (and 7 more)", "iconv -f LATIN1 -t UTF-8"),
        ("a.jsonl", TEXTS.encode("utf-16"), "line 1: not UTF-8 (and 8 more)", "iconv -f UTF-16 -t UTF-8"),
        ("a.jsonl", TEXTS.encode("utf-16-le"), "line 1: not UTF-8 (and 8 more)", "iconv -f UTF-16 -t UTF-8"),
        ("a.txt", "été\n".encode("latin-1"), "no line is a sample: line 1: not UTF-8", "iconv -f LATIN1 -t UTF-8"),
        ("a.csv", "text\nété\n".encode("latin-1"), "a.csv is not UTF-8", "iconv -f LATIN1 -t UTF-8"),
        ("a.tsv", "text\nété\n".encode("utf-16"), "a.tsv is not UTF-8", "iconv -f UTF-16 -t UTF-8"),
        ("a.jsonl", json.dumps(ARRAY).encode(), "no line is a sample: line 1: an array", "jq -c '.[]' data.json"),
        ("a.jsonl", json.dumps(ARRAY, indent=1).encode(), "line 1: not JSON", "jq -c '.[]' data.json"),
        ("a.jsonl", b'{"text": null}\n' * 6, "line 1: 'text' is null (and 5 more)", "--field"),
    ],
)
def test_a_file_of_another_kind_is_told_how_to_become_one(
    tmp_path: Path, name: str, body: bytes, words: str, hint: str
) -> None:
    (tmp_path / name).write_bytes(body)
    with pytest.raises(UsageError) as refused:
        survey(Data(tmp_path / name))
    assert words in refused.value.message
    assert hint in refused.value.hint


def test_a_named_field_that_is_null_is_said_to_be(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"n": 5}\n{"n": null}\n')
    with pytest.raises(UsageError) as caught:
        survey(Data(tmp_path / "a.jsonl", field="n"))
    assert caught.value.message.endswith("1 of 2 lines are malformed: line 2: 'n' is null")


def test_a_line_that_is_too_long_is_passed_over(tmp_path: Path) -> None:
    with (tmp_path / "a.jsonl").open("wb") as file:
        file.write(b"5\n[" + b"1," * (LONGEST_LINE // 2) + b"1]\n7\n")
    with pytest.raises(UsageError, match="line 2: longer than 16 MiB"):
        survey(Data(tmp_path / "a.jsonl"))
    assert counts(tmp_path / "a.jsonl", skip_bad=True) == ((5, 1), (7, 1))


def npy(header: str, body: bytes = b"") -> bytes:
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + body


#: Files that are wrong as a whole, and words of the complaint.
BAD_FILES: list[tuple[str, bytes, str]] = [
    ("empty.jsonl", b"", "holds no samples"),
    ("blank.txt", b"\n \n\n", "holds no samples"),
    ("empty.csv", b"", "holds no samples"),
    ("head.csv", b"length\n", "holds no samples"),
    ("nothing.jsonl", b'{"a": 1}\n{"b": 2}\n', "none of the first 2 lines is a sample"),
    ("text.jsonl", b'{"text": "hello"}\n', "there is no tokenizer"),
    ("chat.jsonl", b'{"messages": [{"role": "user", "content": "x"}]}\n', "there is no tokenizer"),
    ("a.json", b"[1]", "not read a line at a time"),
    ("a.arrow", b"x", "cannot tell what kind of file"),
    ("noending", b"5", "cannot tell what kind of file"),
    ("short.csv", b"length,id\n5\n", "1 cells, and the first line names 2"),
    ("latin.csv", b"length,name\n5,\xff\n", "not UTF-8"),
    ("latin.txt", b"\xff\xfe\n", "not UTF-8"),
    ("a.txt.gz", b"5\n", "not a whole gzip file"),
    ("half.txt.gz", gzip.compress(b"5\n" * 1000)[:30], "not a whole gzip file"),
    ("a.npy", b"", "not a .npy file"),
    ("text.npy", b"5\n7\n", "not a .npy file"),
    ("header.npy", npy("{'descr': __import__('os').system('x')}"), "not a .npy file"),
    ("shape.npy", npy("{'descr': '<i8', 'fortran_order': False, 'shape': (-1,)}"), "not a .npy file"),
    ("keys.npy", npy("{'descr': '<i8'}"), "not a .npy file"),
    ("object.npy", npy("{'descr': '|O', 'fortran_order': False, 'shape': (3,)}", b"cos\nsystem"), "type '|O'"),
    ("table.npy", npy("{'descr': '<i8', 'fortran_order': False, 'shape': (2, 3)}", b"\0" * 48), r"shape (2, 3)"),
    ("half.npy", npy("{'descr': '<i8', 'fortran_order': False, 'shape': (3,)}", b"\1" * 15), "ends early"),
    ("nan.npy", npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1,)}", b"\xff" * 8), "nan is no number"),
    ("huge.npy", npy("{'descr': '<i8', 'fortran_order': False, 'shape': (10000000000000,)}"), "ends early"),
    ("a.parquet", b"PAR1", "not a Parquet file"),
    ("empty.parquet", b"", "not a Parquet file"),
]


@pytest.mark.parametrize(("name", "body", "words"), BAD_FILES, ids=[name for name, *_ in BAD_FILES])
def test_a_file_that_is_wrong_is_refused(tmp_path: Path, name: str, body: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(body)
    with pytest.raises(UsageError) as refused:
        survey(Data(tmp_path / name))
    assert words in refused.value.message
    assert refused.value.hint


def test_an_array_of_objects_is_never_unpickled(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "sprung",))

    trap = numpy.empty(1, dtype=object)
    trap[0] = Trap()
    numpy.save(tmp_path / "a.npy", trap, allow_pickle=True)
    with pytest.raises(UsageError, match="not numbers"):
        survey(Data(tmp_path / "a.npy"))
    assert not (tmp_path / "sprung").exists()


def test_nulls_of_a_table_are_malformed_rows(tmp_path: Path) -> None:
    pandas.DataFrame({"length": [5.0, None, 7.0]}).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(UsageError, match="line 2"):
        survey(Data(tmp_path / "a.parquet"))


def test_a_table_without_a_known_column_names_its_columns(tmp_path: Path) -> None:
    pandas.DataFrame({"a": [1], "b": [2]}).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(UsageError, match="a, b"):
        survey(Data(tmp_path / "a.parquet"))
    with pytest.raises(UsageError, match="no column 'c'"):
        survey(Data(tmp_path / "a.parquet", field="c"))


def test_a_large_file_is_never_in_memory(tmp_path: Path) -> None:
    file, told = tmp_path / "a.jsonl", []
    row = json.dumps({"input_ids": list(range(30))}) + "\n"
    with file.open("w") as out:
        for i in range(200_000):
            out.write(row if i % 2 else f'{{"length": {i % 1000 + 1}}}\n')
    assert file.stat().st_size > 12 * 2**20
    tracemalloc.start()
    found = survey(Data(file), news=lambda share, samples: told.append((share, samples)))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.lengths.samples == 200_000
    assert peak < 2**20
    assert [samples for _, samples in told] == list(range(4096, 200_000, 4096))
    assert 0 < told[0][0] < 0.1 < 0.9 < told[-1][0] <= 1


def test_a_wrong_file_is_given_up_early(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n' * 5000)
    with pytest.raises(UsageError, match="none of the first 1,000 lines"):
        survey(Data(tmp_path / "a.jsonl", skip_bad=True))


def test_parquet_is_read_in_pieces(tmp_path: Path) -> None:
    body = io.BytesIO()
    pandas.DataFrame({"input_ids": [[1] * (n % 7 + 1) for n in range(10_000)]}).to_parquet(body)
    (tmp_path / "a.parquet").write_bytes(body.getvalue())
    assert survey(Data(tmp_path / "a.parquet")).lengths.tokens == sum(n % 7 + 1 for n in range(10_000))
