import pytest
from oom_samples import FULL, V20, V20_LIMIT, V21, V22, V29

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
    assert found.cause is Cause.FRAGMENTATION  # 1.46 GiB in no tensor
    assert found.context is not None
    assert found.context.covers(Printed.read("0.58 GiB").bytes)  # 22.61 - 20.57 - 1.46
    # 23.64 - 1.02 - 22.61 = 0.01: what is printed leaves room for nothing else
    assert found.others.low == 0


def test_a_limit_of_its_own_is_the_cause() -> None:
    found = of_message(read_message([FULL]))
    # allowed 11.82 less reserved 11.50: 0.32 GiB where 0.50 were asked for, and 3.64 GiB were free on the card
    assert found.cause is Cause.LIMIT
    assert found.available == pytest.approx(0.32 * GIB, abs=0.01 * GIB)
    assert found.others.bytes == pytest.approx(8 * GIB, abs=0.02 * GIB)


def test_without_its_own_figure_context_and_others_are_one() -> None:
    found = of_message(read_message([V20]))
    assert found.context is None
    assert found.unexplained is not None
    assert found.unexplained.bytes == pytest.approx(14.76 * GIB - 13.71 * GIB - 13.75 * MIB, abs=0.02 * GIB)
    # a request of 20 MiB takes a segment of its own size; 6.25 MiB are lacking, half a GiB lies in no tensor
    assert found.lacking == pytest.approx(6.25 * MIB, abs=0.01 * MIB)
    assert found.cause is Cause.FRAGMENTATION


def test_other_processes_can_be_the_cause() -> None:
    text = FULL.replace(" 11.82 GiB allowed;", "").replace("512.00 MiB. GPU", "8.00 GiB. GPU")
    found = of_message(read_message([text]))
    assert found.cause is Cause.OTHERS  # 8.00 - 3.64 lacking, 0.50 in no tensor, 8 GiB elsewhere
    assert of_message(read_message([text.replace("Tried to allocate 8", "Tried to allocate 19")])).cause is Cause.DEMAND
