"""Errors and the use of codes: worked out by hand, known from theory, or from a second way of computing them."""

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from vramplan.errors import UsageError
from vramplan.quant.errors import errors, try_formats
from vramplan.quant.formats import Format, Kind
from vramplan.quant.roundtrip import round_trip
from vramplan.quant.weights import HEAVY, NORMAL, Source, source

NF4 = Format(Kind.NF4, 64, double=False)
DOUBLE = Format(Kind.NF4, 64, double=True)
FP4 = Format(Kind.FP4, 64, double=False)
INT4 = Format(Kind.INT4, 64, double=False)
INT8 = Format(Kind.INT8, 0, double=False)


def normal(rows: int = 256) -> torch.Tensor:
    return torch.randn(rows, 256, generator=torch.Generator().manual_seed(0))


def test_weights_that_are_levels_have_no_error() -> None:
    found = errors(torch.tensor([[1.0, -1.0] * 32]), NF4)
    assert (found.squared, found.worst, found.largest, found.decibels) == (0.0, 0.0, 1.0, None)
    assert found.codes == (32, *[0] * 14, 32)


def test_one_error_by_hand() -> None:
    # 0.5 of a largest weight of 1 goes to nf4's nearest level, 0.4407098; all others are exact
    weights = torch.zeros(1, 64)
    weights[0, :2] = torch.tensor([1.0, 0.5])
    found = errors(weights, NF4)
    assert found.worst == pytest.approx(0.5 - 0.4407098, abs=1e-6)
    assert found.squared == pytest.approx(0.0592902**2, rel=1e-4)
    assert found.mean_squared == found.squared / 64
    assert found.decibels == pytest.approx(10 * math.log10(1.25 / 0.0592902**2), rel=1e-5)
    assert (found.codes[7], found.codes[12], found.codes[15]) == (62, 1, 1)


@pytest.mark.parametrize("made", [NF4, DOUBLE, FP4, INT4, INT8])
def test_sums_are_those_of_the_round_trip(made: Format) -> None:
    weights = normal(64)
    found, back = errors(weights, made), round_trip(weights, made).values
    assert found.squared == pytest.approx(float((back - weights).double().square().sum()), rel=1e-6)
    assert found.worst == pytest.approx(float((back - weights).abs().max()))
    assert sum(found.codes) == found.count == weights.numel()
    assert len(found.codes) == len(made.kind.levels)


@pytest.mark.parametrize("made", [NF4, FP4, INT4])
def test_codes_are_in_the_order_of_their_levels(made: Format) -> None:
    weights = normal(8)
    back = round_trip(weights, made).values / weights.view(-1, 64).abs().amax(dim=1).repeat_interleave(64).view(8, 256)
    levels = torch.tensor(made.kind.levels)
    nearest = (back.flatten()[:, None] - levels).abs().argmin(dim=1)
    expected = torch.bincount(nearest, minlength=len(levels)).tolist()
    found = list(errors(weights, made).codes)
    if made.kind is Kind.FP4:  # +0 and -0 are one value and two codes
        found[7:9], expected[7:9] = [found[7] + found[8]], [expected[7] + expected[8]]
    assert found == expected


def test_nf4_is_best_on_normal_weights_and_double_quantisation_adds_little() -> None:
    nf4, double, fp4, int4, int8 = try_formats(Source(NORMAL), [NF4, DOUBLE, FP4, INT4, INT8])
    assert nf4.total.squared < int4.total.squared < fp4.total.squared
    assert int8.total.squared < nf4.total.squared / 50
    assert nf4.added is None
    assert double.added is not None
    assert 0 < double.added < 0.002
    assert double.added == pytest.approx(double.total.squared / nf4.total.squared - 1)


def test_the_distributions_are_what_they_are_called() -> None:
    for name, kurtosis, tolerance in ((NORMAL, 3.0, 0.05), (HEAVY, 9.0, 3.0)):  # Student's t with 5 degrees: 9
        [(_, weights)] = Source(name).tensors()
        assert float(weights.double().square().mean()) == pytest.approx(1.0, abs=0.01)
        assert float(weights.double().pow(4).mean()) == pytest.approx(kurtosis, abs=tolerance)
    [(_, again)] = Source(HEAVY).tensors()
    [(_, other)] = Source(HEAVY, seed=1).tensors()
    assert torch.equal(weights, again)
    assert not torch.equal(weights, other)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    tensors = {
        "a.weight": normal(8).bfloat16(),
        "b.weight": normal(16)[:, :33].contiguous(),
        "norm.weight": torch.ones(64),
        "packed": torch.zeros(64, 1, dtype=torch.uint8),
        "empty": torch.zeros(0, 8),
    }
    save_file(tensors, path)
    return path


def test_every_matrix_of_a_file_is_tried(checkpoint: Path) -> None:
    [found] = try_formats(source(str(checkpoint)), [DOUBLE])
    assert [name for name, _ in found.tensors] == ["a.weight", "b.weight"]
    assert found.total.count == 8 * 256 + 16 * 33
    assert found.total.squared == sum(each.squared for _, each in found.tensors)
    assert found.total.worst == max(each.worst for _, each in found.tensors)


def test_one_tensor_of_a_file(checkpoint: Path) -> None:
    chosen = source(f"{checkpoint}:norm.weight")
    assert chosen.name == "model.safetensors:norm.weight"
    [(name, weights)] = chosen.tensors()
    assert (name, weights.shape) == ("norm.weight", (1, 64))


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        ("a.weigth", "no tensor 'a.weigth'"),
        ("packed", "holds torch.uint8 of shape"),
        ("empty", "is empty"),
    ],
)
def test_tensors_that_do_not_do(checkpoint: Path, tensor: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        list(source(f"{checkpoint}:{tensor}").tensors())


def test_files_that_do_not_do(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "cut.safetensors").write_bytes(checkpoint.read_bytes()[:100])
    (tmp_path / "nothing.safetensors").touch()
    (tmp_path / "folder.safetensors").mkdir()
    save_file({"x": torch.zeros(4, 4, dtype=torch.uint8)}, tmp_path / "packed.safetensors")
    save_file({"x": torch.full((4, 4), math.nan)}, tmp_path / "nan.safetensors")
    for name, message in (
        ("cut", "cannot read"), ("nothing", "cannot read"), ("folder", "is no file"), ("missing", "does not exist"),
        ("packed", "no matrix of fp32, fp16 or bf16"), ("nan", "not finite"), ("x" * 5000, "is no path"),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=message):
            list(source(str(tmp_path / f"{name}.safetensors")).tensors())


@pytest.mark.parametrize("word", ["", "norml", "model.bin", "a\0b", "."])
def test_words_that_name_no_weights(word: str) -> None:
    with pytest.raises(UsageError, match="unknown --weights"):
        source(word)
