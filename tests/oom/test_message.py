import pytest
from oom_samples import FULL, V20, V20_LIMIT, V21, V22, V29, cause_of

from vramplan.errors import UsageError
from vramplan.oom.message import OtherProcess, read_message
from vramplan.oom.printed import Printed
from vramplan.oom.shortage import Cause, of_message
from vramplan.units import GIB, MIB


def test_the_wording_of_2_0() -> None:
    found = read_message([V20])
    assert (found.gpu, found.requested.bytes, found.process, found.allowed) == (0, 20 * MIB, None, None)
    assert found.free == Printed.read("13.75 MiB")
    assert found.allocated == Printed.read("13.22 GiB")
    assert found.reserved.covers(Printed.read("13.71 GiB").bytes)
    assert read_message([V20_LIMIT]).allowed == Printed.read("13.72 GiB")


@pytest.mark.parametrize("text", [V21, V22, V29, V22.replace("CUDA", "HIP", 1)])
def test_the_wordings_since_2_1(text: str) -> None:
    found = read_message([text])
    assert found.requested.bytes == 2 * GIB
    assert (found.gpu, found.others, found.private_pools) == (1, (), Printed.exact(0))
    assert found.capacity == Printed.read("23.64 GiB")
    assert found.process == Printed.read("22.61 GiB")
    assert found.unallocated == Printed.read("1.46 GiB")


def test_other_processes_limits_and_private_pools() -> None:
    found = read_message([FULL])
    four = Printed.read("4.00 GiB")
    assert found.others == (OtherProcess(4242, four), OtherProcess(77, four))
    assert found.process == Printed.read("12.00 GiB")
    assert found.allowed == Printed.read("11.82 GiB")
    assert found.private_pools == Printed.read("41.00 MiB")


def test_what_windows_does_not_tell_is_not_known() -> None:
    # nvml.h NVML_VALUE_NOT_AVAILABLE, 2^64 - 1 bytes, as PyTorch prints it
    found = read_message([V22.replace("22.61 GiB", "17179869184.00 GiB")])
    assert found.process is None
    assert found.allocated == read_message([V22]).allocated


def test_in_a_container_this_process_is_listed_by_number() -> None:
    # 22.61 GiB beside the 22.03 reserved would be twice the card: it is the same process
    found = read_message([V22.replace("Including non-PyTorch memory, this process has", "Process 21384 has")])
    assert found == read_message([V22])


def test_a_listed_process_with_room_on_the_card_is_another() -> None:
    # 23.64 - 1.02 free - 22.03 reserved leaves 0.59 GiB for others and the context
    found = read_message(
        [V22.replace("Including non-PyTorch memory, this process has 22.61", "Process 21384 has 0.25")]
    )
    assert found.process is None
    assert found.others == (OtherProcess(21384, Printed.read("0.25 GiB")),)
    shortage = of_message(found)
    assert shortage.unexplained is not None
    assert shortage.unexplained.bytes == pytest.approx(0.34 * GIB, abs=0.03 * GIB)


@pytest.mark.parametrize(
    ("text", "variable"),
    [
        (V20, "PYTORCH_CUDA_ALLOC_CONF"),
        (V21, "PYTORCH_CUDA_ALLOC_CONF"),  # it names none
        (V22, "PYTORCH_CUDA_ALLOC_CONF"),
        (V29, "PYTORCH_ALLOC_CONF"),
        (V22.replace("CUDA", "HIP"), "PYTORCH_HIP_ALLOC_CONF"),
    ],
)
def test_the_variable_is_the_one_that_the_message_names(text: str, variable: str) -> None:
    assert read_message([text]).variable == variable
    assert read_message([text[i : i + 79] for i in range(0, len(text), 79)]).variable == variable


@pytest.mark.parametrize("width", [40, 79, 120])
@pytest.mark.parametrize("text", [V20, V22])
def test_a_message_broken_by_a_terminal_is_put_together(text: str, width: int) -> None:
    lines = [text[i : i + width] for i in range(0, len(text), width)]
    assert read_message([line + "\n" for line in lines]) == read_message([text])


def test_a_message_broken_at_words_is_put_together() -> None:
    assert read_message(V22.replace(" of which", "\n    of which").split("\n")) == read_message([V22])


@pytest.mark.parametrize("text", [V22[:150], "CUDA out of memory. Tried to allocate a lot", V20[:80]])
def test_a_message_that_is_cut_off_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="cut off") as caught:
        read_message([text])
    assert "whole message" in caught.value.hint


def test_a_shortage_says_what_was_lacking() -> None:
    found = of_message(read_message([V22]))
    # a segment of 2.00 GiB, of which 1.02 GiB were free
    assert found.lacking == 2 * GIB - Printed.read("1.02 GiB").bytes
    assert cause_of(found) is Cause.DEMAND  # 1.46 GiB in no tensor are enough, but 7 % of what was reserved
    assert found.context is not None
    assert found.context.covers(Printed.read("0.58 GiB").bytes)  # 22.61 - 20.57 - 1.46
    # 23.64 - 1.02 - 22.61 = 0.01: what is printed leaves room for nothing else
    assert found.others.low == 0


def test_a_limit_of_its_own_is_the_cause() -> None:
    found = of_message(read_message([FULL]))
    # allowed 11.82 less reserved 11.50: 0.32 GiB where 0.50 were asked for, and 3.64 GiB were free on the card
    assert cause_of(found) is Cause.LIMIT
    assert found.available == pytest.approx(0.32 * GIB, abs=0.01 * GIB)
    assert found.others.bytes == pytest.approx(8 * GIB, abs=0.02 * GIB)


def test_without_its_own_figure_context_and_others_are_one() -> None:
    found = of_message(read_message([V20]))
    assert found.context is None
    assert found.unexplained is not None
    assert found.unexplained.bytes == pytest.approx(14.76 * GIB - 13.71 * GIB - 13.75 * MIB, abs=0.02 * GIB)
    # a request of 20 MiB takes a segment of its own size; 6.25 MiB are lacking, half a GiB lies in no tensor
    assert found.lacking == pytest.approx(6.25 * MIB, abs=0.01 * MIB)
    assert cause_of(found) is Cause.DEMAND  # any run has half a GiB of 13.71 in no tensor


@pytest.mark.parametrize(
    ("allocated", "unallocated", "cause"),
    [
        ("20.57 GiB", "1.46 GiB", Cause.DEMAND),
        ("17.62 GiB", "4.41 GiB", Cause.FRAGMENTATION),  # 4.41 of 22.03: a fifth
        ("21.53 GiB", "0.50 GiB", Cause.DEMAND),  # less than the 0.98 GiB that lacked
    ],
)
def test_fragmentation_is_the_cause_where_much_is_in_no_tensor(allocated: str, unallocated: str, cause: Cause) -> None:
    text = V22.replace("20.57 GiB", allocated).replace("1.46 GiB", unallocated)
    assert cause_of(of_message(read_message([text]))) is cause


def test_others_are_the_cause_where_little_is_in_no_tensor() -> None:
    """A first process of 10.20 GiB on the card, and 112 MiB of 13 GiB in no tensor, for 5 MiB that lacked."""
    text = (
        "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 1 has a total capacity of 23.69 GiB of which 14.81 MiB is"
        " free. Process 3921 has 10.20 GiB memory in use. Process 812 has 13.46 GiB memory in use. Of the allocated"
        " memory 12.90 GiB is allocated by PyTorch, and 112.00 MiB is reserved by PyTorch but unallocated."
    )
    assert cause_of(of_message(read_message([text]))) is Cause.OTHERS


def test_what_rounding_leaves_over_is_nobody() -> None:
    # 23.64 - 1.02 - 22.60 leaves 0.02 GiB, 5 MiB at the least: no process holds so little; 0.25 GiB are somebody
    found = of_message(read_message([V22.replace("22.61 GiB", "22.60 GiB")]))
    held = of_message(read_message([V22.replace("22.61 GiB", "22.37 GiB")]))
    assert found.others == Printed.exact(0)
    assert held.others.covers(GIB // 4)


def test_other_processes_can_be_the_cause() -> None:
    text = FULL.replace(" 11.82 GiB allowed;", "").replace("512.00 MiB. GPU", "8.00 GiB. GPU")
    found = of_message(read_message([text]))
    assert cause_of(found) is Cause.OTHERS  # 8.00 - 3.64 lacking, 0.50 in no tensor, 8 GiB elsewhere
    more = read_message([text.replace("Tried to allocate 8", "Tried to allocate 19")])
    assert cause_of(of_message(more)) is Cause.DEMAND
