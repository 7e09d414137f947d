import io

import pytest
from oom_samples import IN_BACKWARD, IN_LOSS, LIB, TRAIN, V22, log

from vramplan.errors import UsageError
from vramplan.ledger import Component, Phase
from vramplan.oom.frames import Frame, moment, owner, purpose
from vramplan.oom.log import Recognised, Reported, read_log


def read(text: str) -> Reported | Recognised:
    return read_log(io.StringIO(text), "train.log")


def reported(text: str) -> Reported:
    found = read(text)
    assert isinstance(found, Reported)
    return found


def test_the_stack_above_the_message_is_read() -> None:
    found = reported(log(V22, IN_LOSS))
    assert [frame.function for frame in found.stack] == ["<module>", "training_step", "forward", "ForCausalLMLoss"]
    assert found.stack[0] == Frame("/home/me/train.py", 88, "<module>", "trainer.train()")
    assert (found.line, found.others) == (11, 0)
    innermost = owner(found.stack)
    assert innermost is not None
    assert innermost.place == "loss_utils.py:36 ForCausalLMLoss"


@pytest.mark.parametrize("mark", ["[rank0]: ", "[default0]:", "(train pid=77) ", "\x1b[31m"])
def test_launchers_marks_and_colours_are_taken_off(mark: str) -> None:
    assert reported(log(V22, IN_LOSS, mark=mark)).stack == reported(log(V22, IN_LOSS)).stack


def test_a_loggers_time_before_each_line_hides_no_stack() -> None:
    found = reported(log(V22, IN_LOSS, mark="2024-07-01T10:11:12.345678Z [rank0]: "))
    assert [frame.function for frame in found.stack] == ["<module>", "training_step", "forward", "ForCausalLMLoss"]


def test_ranks_are_told_apart() -> None:
    mine = log(V22, IN_BACKWARD, mark="[rank1]: ").splitlines()
    other = [f"[rank0]: {line}" for line in ("Traceback (most recent call last):", *IN_LOSS)]
    woven = "\n".join(line for pair in zip(mine, [*other, *[""] * len(mine)], strict=False) for line in pair)
    assert reported(woven).stack == reported(log(V22, IN_BACKWARD)).stack


def test_the_first_message_counts() -> None:
    later = log(V22.replace("2.00 GiB. GPU", "9.00 GiB. GPU"), IN_BACKWARD)
    found = reported(log(V22, IN_LOSS) + later + later)
    assert (str(found.message.requested), found.others) == ("2.00 GiB", 2)


def test_a_message_without_a_traceback_has_no_stack() -> None:
    assert reported(f"RuntimeError: {V22}\n").stack == ()


RICH = [
    "╭─────────── Traceback (most recent call last) ────────────╮",
    f"│ {LIB}/transformers/trainer.py:3735 in training_step      │",
    f"│ {LIB}/transformers/loss/loss_utils.py:36 in ForCausalLMLoss │",
    "╰──────────────────────────────────────────────────────────╯",
    f"OutOfMemoryError: {V22}",
]


def test_richs_traceback_is_read() -> None:
    assert moment(reported("\n".join(RICH)).stack).phase is Phase.LOSS


@pytest.mark.parametrize("text", [log(V22, IN_LOSS), log(V22, IN_LOSS, mark="[rank0]: "), "\n".join(RICH)])
def test_a_stack_whose_first_lines_are_cut_off_is_read(text: str) -> None:
    lines = text.splitlines()
    begin = next(i for i, line in enumerate(lines) if "Traceback" in line)
    cut_off = reported("\n".join(lines[begin + 1 :])).stack
    assert cut_off
    assert cut_off == reported(text).stack


def test_frames_apart_from_the_message_are_not_its_stack() -> None:
    """As torch.compile prints them in a warning."""
    assert reported("\n".join([*IN_BACKWARD, "step 10", f"RuntimeError: {V22}"])).stack == ()


def test_a_long_log_is_read_in_bounded_memory() -> None:
    """A progress bar without line ends and a stack far behind it."""
    text = "\r 10%|█         |" * 200_000 + "\n" + log(V22, IN_LOSS)
    assert reported(text).stack == reported(log(V22, IN_LOSS)).stack


OTHERS = [
    ("RuntimeError: NVML_SUCCESS == r INTERNAL ASSERT FAILED at CUDACachingAllocator.cpp:838", "nvml-assert", True),
    ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", "cublas-alloc", True),
    ("RuntimeError: cuDNN error: CUDNN_STATUS_ALLOC_FAILED", "library-alloc", True),
    ("Error out of memory at line 380 in file /src/csrc/pythonInterface.cpp", "bitsandbytes-alloc", True),
    ("Allocation on device 0 would exceed allowed memory. (out of memory)", "async-allocator", True),
    ("torch.distributed.DistBackendError: NCCL error ... Cuda failure 2 'out of memory'", "nccl-alloc", True),
    ("RuntimeError: CUDA error: out of memory", "driver-out-of-memory", True),
    ("torch.AcceleratorError: CUDA error: out of memory", "driver-out-of-memory", True),
    ("CUDA error (/fa/hopper/flash_fwd_launch_template.h:180): out of memory", "driver-out-of-memory", True),
    ("RuntimeError: Triton Error [CUDA]: out of memory", "driver-out-of-memory", True),
    ("RuntimeError: MPS backend out of memory (MPS allocated: 17.50 GB).", "other-device", True),
    ("[enforce fail at alloc_cpu.cpp:114] . DefaultCPUAllocator: can't allocate memory", "host-memory", False),
    ("  exitcode  : -9 (pid: 4242)", "killed", False),
    ("[1234.5] Out of memory: Killed process 4242 (python) total-vm:99999kB", "killed", False),
    ("slurmstepd: error: Detected 1 oom_kill event in StepId=12.batch.", "killed", False),
    ("Killed", "killed", False),
    ("MemoryError", "killed", False),
]


@pytest.mark.parametrize(("line", "name", "on_gpu"), OTHERS, ids=[name for _, name, _ in OTHERS])
def test_other_failures_are_named(line: str, name: str, on_gpu: bool) -> None:
    found = read(f"epoch 1\n{line}\n")
    assert isinstance(found, Recognised)
    assert (found.known.name, found.known.on_gpu, found.line) == (name, on_gpu, 2)


def test_pytorchs_message_goes_before_another_failure() -> None:
    assert reported("Killed\n" + log(V22, IN_LOSS)).line == 12


@pytest.mark.parametrize(
    "text", ["", "all is well\n", "MemoryErrors are discussed in Killed.md\n", "\x00\ufffd" * 70_000]
)
def test_a_log_without_a_failure_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="no out-of-memory error") as caught:
        read(text)
    assert "looked for" in caught.value.hint


#: `file function code`, the outermost frame first.
STACKS = [
    (["transformers/modeling_utils.py from_pretrained", "t.py caching_allocator_warmup"], "load", "workspace"),
    (["transformers/modeling_utils.py from_pretrained", "bitsandbytes/functional.py quantize_4bit"], "load", "weights"),
    (["transformers/modeling_utils.py _load_state_dict_into_meta_model"], "load", "weights"),
    (["peft/utils/other.py prepare_model_for_kbit_training param.data.to(fp32)"], "load", "unquantized"),
    (["trainer.py training_step", "integrations/sdpa_attention.py sdpa_attention_forward"], "forward", "activations"),
    (["peft/tuners/lora/bnb.py forward", "bitsandbytes/functional.py dequantize_4bit"], "forward", "workspace"),
    (["peft/tuners/lora/bnb.py forward", "bitsandbytes/autograd/_functions.py matmul_4bit"], "forward", "activations"),
    (
        ["modeling_llama.py forward logits = self.lm_head(hidden)", "torch/nn/modules/linear.py forward"],
        "loss",
        "logits",
    ),
    (["torch/nn/functional.py cross_entropy"], "loss", "logits"),
    (["accelerate/utils/operations.py convert_to_fp32"], "loss", "logits"),
    (["torch/_tensor.py backward", "torch/autograd/graph.py _engine_run_backward"], "backward", ""),
    (["accelerate/optimizer.py step", "bitsandbytes/optim/optimizer.py init_state"], "step", "optimizer"),
    (["torch/nn/utils/clip_grad.py clip_grad_norm_"], "step", "workspace"),
    (["peft/tuners/lora/model.py merge_and_unload"], "merge", "workspace"),
    (["transformers/trainer.py evaluation_loop", "torch/nn/functional.py cross_entropy"], "evaluation", "logits"),
    (
        ["transformers/trainer.py evaluation_loop", "transformers/trainer_pt_utils.py torch_pad_and_concatenate"],
        "evaluation",
        "logits",
    ),
    (["unsloth/kernels/cross_entropy_loss.py forward"], "loss", "logits"),
    (["torch/nn/modules/module.py to", "torch/nn/modules/module.py convert"], "load", "weights"),
    ([], "", ""),
]


@pytest.mark.parametrize(("lines", "phase", "component"), STACKS)
def test_a_stack_tells_the_phase_and_the_purpose(lines: list[str], phase: str, component: str) -> None:
    parts = [line.split(" ", 2) for line in lines]
    stack = [Frame(f"{LIB}/{file}", 1, function, "".join(code)) for file, function, *code in parts]
    assert moment(stack).phase == (Phase(phase) if phase else None)
    assert purpose(stack).component == (Component(component) if component else None)


def test_the_phase_is_the_outermost_that_matters() -> None:
    """Recomputing a checkpointed layer runs forward code within backward."""
    assert moment(reported(log(V22, IN_BACKWARD)).stack).phase is Phase.BACKWARD
    assert moment(reported(log(V22, TRAIN)).stack).phase is Phase.FORWARD
