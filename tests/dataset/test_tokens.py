"""Tokens counted with a tokenizer made here, against what transformers makes of the same directory."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from vramplan.dataset.survey import Data, survey
from vramplan.errors import UsageError

END = {"__type": "AddedToken", "content": "</s>", "special": True}
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] not in ['system', 'user', 'assistant'] %}"
    "{{ raise_exception('unknown role ' + message['role']) }}{% endif %}"
    "<|{{ message['role'] }}|> {{ message['content'] | trim }} {{ eos_token }} {% endfor %}"
)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer that makes a token of every letter, begins with <s>, and truncates and pads unless it is told not."""
    place = tmp_path_factory.mktemp("tokenizer")
    words = ["<unk>", "<s>", "</s>", "<|user|>", "<|assistant|>", *map(chr, range(33, 127))]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.add_special_tokens(["<s>", "</s>", "<|user|>", "<|assistant|>"])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split("", "isolated")]
    )
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer.enable_truncation(3)
    tokenizer.enable_padding(length=3)
    tokenizer.save(str(place / "tokenizer.json"))
    body = {"bos_token": "<s>", "eos_token": END, "unk_token": "<unk>", "chat_template": TEMPLATE}
    (place / "tokenizer_config.json").write_text(json.dumps(body))
    return place


def lengths(tmp_path: Path, directory: Path, *rows: object, **keys: Any) -> list[int]:
    file = tmp_path / "data.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = survey(Data(file, directory, **keys)).lengths
    return [length for length, count in found.counts for _ in range(count)]


@pytest.mark.parametrize(
    ("row", "tokens"),
    [
        ({"text": "ab c"}, 5),  # <s> a b c </s>
        ({"text": "abc</s>"}, 5),  # not ended twice
        ({"text": "ab", "length": 99}, 4),  # a length beside a text may be one of characters
        ({"text": "x" * 5000}, 5002),
        ({"prompt": "ab", "completion": "c"}, 5),
        ({"input_ids": [1, 2], "text": "abc"}, 2),
        ({"length": 7}, 7),
        ("abc", 5),
    ],
)
def test_texts(tmp_path: Path, directory: Path, row: object, tokens: int) -> None:
    assert lengths(tmp_path, directory, row) == [tokens]


def test_the_prompt_of_alpaca(tmp_path: Path, directory: Path) -> None:
    plain = (
        "Below is an instruction that describes a task. Write a response that appropriately completes the request."
        "\n\n### Instruction:\nadd\n\n### Response:5"
    )
    more = (
        "Below is an instruction that describes a task, paired with an input that provides further context. Write a "
        "response that appropriately completes the request.\n\n### Instruction:\nadd\n\n### Input:\n2 3\n\n"
        "### Response:5"
    )
    count = [len("".join(text.split())) + 2 for text in (plain, more)]
    assert lengths(tmp_path, directory, {"instruction": "add", "input": "", "output": "5"}) == count[:1]
    assert lengths(tmp_path, directory, {"instruction": "add", "input": "2 3", "output": "5"}) == count[1:]


CHAT = [{"role": "user", "content": "hello there"}, {"role": "assistant", "content": " ok "}]


@pytest.mark.parametrize(
    "row",
    [
        {"messages": CHAT},
        {"conversations": [{"from": "human", "value": "hello there"}, {"from": "gpt", "value": " ok "}]},
        {"prompt": CHAT[:1], "completion": CHAT[1:]},
        {"talk": CHAT},
    ],
    ids=["messages", "sharegpt", "prompt-completion", "field"],
)
def test_chats_are_laid_out_as_transformers_does(tmp_path: Path, directory: Path, row: dict[str, object]) -> None:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(directory)
    expected = len(tokenizer.apply_chat_template(CHAT, tokenize=True)["input_ids"])
    assert expected == 17  # <s> <|user|> hello there </s> <|assistant|> ok </s>
    field = "talk" if "talk" in row else ""
    assert lengths(tmp_path, directory, row, field=field) == [expected]


def test_a_template_in_its_own_file(tmp_path: Path, directory: Path) -> None:
    place = tmp_path / "other"
    place.mkdir()
    (place / "tokenizer.json").write_bytes((directory / "tokenizer.json").read_bytes())
    with pytest.raises(UsageError, match="has no chat template"):
        lengths(tmp_path, place, {"messages": CHAT})
    (place / "tokenizer_config.json").write_text('{"chat_template": [{"name": "default", "template": "abcd"}]}')
    assert lengths(tmp_path, place, {"messages": CHAT}) == [4]
    (place / "chat_template.jinja").write_text("abc")
    assert lengths(tmp_path, place, {"messages": CHAT}) == [3]
    assert lengths(tmp_path, place, {"text": "abc"}) == [4]  # no end-of-sequence token is known


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"text": 5}, "'text' is no text"),
        ({"text": "\ud800"}, "not JSON"),
        ({"messages": []}, "no list of messages"),
        ({"messages": "hello"}, "no list of messages"),
        ({"messages": ["hello"]}, "a message is no object"),
        ({"messages": [{"role": "user"}]}, "without role and content"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "the chat template refuses it: unknown role tool"),
        ({"conversations": [{"from": "robot", "value": "x"}]}, "from 'robot'"),
        ({"prompt": "a", "completion": ["b"]}, "'completion' is no text"),
        ({"prompt": "a"}, "none of the known fields"),
        ({"chosen": "a", "rejected": "b"}, "'chosen', 'rejected'"),
    ],
)
def test_malformed_texts_are_located(tmp_path: Path, directory: Path, row: object, words: str) -> None:
    with pytest.raises(UsageError, match="line 2: ") as refused:
        lengths(tmp_path, directory, {"text": "a"}, row, {"text": "b"})
    assert words in refused.value.message
    assert lengths(tmp_path, directory, {"text": "a"}, row, {"text": "bb"}, skip_bad=True) == [3, 4]


def test_texts_in_other_files(tmp_path: Path, directory: Path) -> None:
    (tmp_path / "a.txt").write_text("abc\nd e\n")
    assert survey(Data(tmp_path / "a.txt", directory)).lengths.counts == ((4, 1), (5, 1))
    (tmp_path / "a.csv").write_text("instruction,input,output\n,,x\n")
    assert survey(Data(tmp_path / "a.csv", directory)).lengths.samples == 1
    pandas.DataFrame({"text": ["abc", "d e"], "id": [1, 2]}).to_parquet(tmp_path / "a.parquet")
    assert survey(Data(tmp_path / "a.parquet", directory)).lengths.counts == ((4, 1), (5, 1))
    pandas.DataFrame({"messages": [CHAT]}).to_parquet(tmp_path / "b.parquet")
    assert survey(Data(tmp_path / "b.parquet", directory)).lengths.counts == ((17, 1),)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, "no tokenizer.json"),
        ({"tokenizer.model": "x"}, "no tokenizer.json"),
        ({"tokenizer.json": "{"}, "cannot read"),
        ({"tokenizer.json": "{}"}, "cannot read"),
    ],
)
def test_a_broken_tokenizer_is_refused(tmp_path: Path, files: dict[str, str], words: str) -> None:
    place = tmp_path / "broken"
    place.mkdir()
    for name, body in files.items():
        (place / name).write_text(body)
    with pytest.raises(UsageError, match=words):
        lengths(tmp_path, place, {"text": "a"})


@pytest.mark.parametrize("body", ["[1]", "{", "[" * 100_000])
def test_a_broken_configuration_is_refused(tmp_path: Path, directory: Path, body: str) -> None:
    (tmp_path / "tokenizer.json").write_bytes((directory / "tokenizer.json").read_bytes())
    (tmp_path / "tokenizer_config.json").write_text(body)
    with pytest.raises(UsageError, match=r"tokenizer_config\.json"):
        lengths(tmp_path, tmp_path, {"text": "a"})


def test_counting_never_loads_torch(tmp_path: Path, directory: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({"messages": CHAT}) + "\n" + json.dumps({"text": "abc"}))
    program = (
        "import sys; from pathlib import Path; from vramplan.dataset.survey import Data, survey;"
        f"found = survey(Data(Path({str(tmp_path / 'a.jsonl')!r}), Path({str(directory)!r})));"
        "assert found.lengths.counts == ((5, 1), (17, 1)), found; assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
