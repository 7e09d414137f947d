"""Out-of-memory messages and snapshots made by hand.

The messages are what `DeviceCachingAllocator::malloc` prints (c10/cuda/CUDACachingAllocator.cpp, torch 2.0 to 2.13);
the snapshots have the fields of `torch.cuda.memory._snapshot` (torch/cuda/memory.py, torch/cuda/_memory_viz.py 2.13):
a build of torch without CUDA makes neither.
"""

import pickle
from typing import Any

from vramplan.oom.shortage import Cause, Shortage
from vramplan.units import GIB, MIB

_ADVICE = (
    "See documentation for Memory Management  (https://pytorch.org/docs/stable/notes/cuda.html#environment-variables)"
)
V20 = (
    "CUDA out of memory. Tried to allocate 20.00 MiB (GPU 0; 14.76 GiB total capacity; 13.22 GiB already allocated;"
    " 13.75 MiB free; 13.71 GiB reserved in total by PyTorch) If reserved memory is >> allocated memory try setting"
    " max_split_size_mb to avoid fragmentation.  See documentation for Memory Management and PYTORCH_CUDA_ALLOC_CONF"
)
V20_LIMIT = V20.replace("13.75 MiB free; ", "6.00 GiB free; 13.72 GiB allowed; ")
V21 = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 1 has a total capacty of 23.64 GiB of which 1.02 GiB is free."
    " Including non-PyTorch memory, this process has 22.61 GiB memory in use. Of the allocated memory 20.57 GiB is"
    " allocated by PyTorch, and 1.46 GiB is reserved by PyTorch but unallocated. If reserved but unallocated memory is"
    f" large try setting max_split_size_mb to avoid fragmentation.  {_ADVICE}"
)
V22 = V21.replace("capacty", "capacity").replace(
    "max_split_size_mb", "PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True"
)
V29 = V22.replace("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF")
#: Two other processes, a limit of this one, and private pools.
FULL = (
    "CUDA out of memory. Tried to allocate 512.00 MiB. GPU 0 has a total capacity of 23.64 GiB of which 3.64 GiB is"
    " free. Process 4242 has 4.00 GiB memory in use. Including non-PyTorch memory, this process has 12.00 GiB memory in"
    " use. Process 77 has 4.00 GiB memory in use. 11.82 GiB allowed; Of the allocated memory 11.00 GiB is allocated by"
    " PyTorch, with 41.00 MiB allocated in private pools (e.g., CUDA Graphs), and 512.00 MiB is reserved by PyTorch but"
    f" unallocated. If reserved but unallocated memory is large try setting PYTORCH_ALLOC_CONF=... {_ADVICE}"
)
#: A T4 that fills while a model of 8B is loaded: 21.88 MiB are lacking.
FULL_T4 = (
    "CUDA out of memory. Tried to allocate 112.00 MiB. GPU 0 has a total capacity of 14.74 GiB of which 90.12 MiB is"
    " free. Process 2211 has 14.65 GiB memory in use. Of the allocated memory 14.50 GiB is allocated by PyTorch, and"
    " 20.23 MiB is reserved by PyTorch but unallocated."
)
LIB = "/opt/venv/lib/python3.11/site-packages"
TRAIN = [
    '  File "/home/me/train.py", line 88, in <module>',
    "    trainer.train()",
    f'  File "{LIB}/transformers/trainer.py", line 3735, in training_step',
    "    loss = self.compute_loss(model, inputs)",
]
IN_LOSS = [
    *TRAIN,
    f'  File "{LIB}/transformers/models/llama/modeling_llama.py", line 850, in forward',
    "    loss = self.loss_function(logits=logits, labels=labels)",
    f'  File "{LIB}/transformers/loss/loss_utils.py", line 36, in ForCausalLMLoss',
    "    logits = logits.float()",
]
IN_LOADING = [
    '  File "/home/me/train.py", line 14, in <module>',
    '    model = AutoModelForCausalLM.from_pretrained(name, device_map={"": 0}, dtype=torch.bfloat16)',
    f'  File "{LIB}/transformers/modeling_utils.py", line 833, in _load_state_dict_into_meta_model',
    "    param = param[...].to(device)",
]
IN_BACKWARD = [
    *TRAIN[:2],
    f'  File "{LIB}/transformers/trainer.py", line 3782, in training_step',
    "    self.accelerator.backward(loss, **kwargs)",
    f'  File "{LIB}/torch/autograd/graph.py", line 829, in _engine_run_backward',
    "    return Variable._execution_engine.run_backward(",
    f'  File "{LIB}/bitsandbytes/autograd/_functions.py", line 401, in backward',
    "    grad_A = torch.matmul(grad_output, F.dequantize_4bit(B, ctx.state).to(grad_output.dtype).t())",
    f'  File "{LIB}/bitsandbytes/functional.py", line 1356, in dequantize_4bit',
    "    out = torch.empty(quant_state.shape, dtype=quant_state.dtype, device=A.device)",
]


def log(message: str, stack: list[str], *, error: str = "torch.OutOfMemoryError", mark: str = "") -> str:
    """A log that ends in a traceback."""
    lines = ["{'loss': 1.25, 'epoch': 0.1}", "Traceback (most recent call last):", *stack, f"{error}: {message}", ""]
    return "\n".join(mark + line for line in lines)


def frame(file: str, line: int, name: str) -> dict[str, Any]:
    return {"filename": file, "line": line, "name": name}


#: The innermost frame first, as the allocator lists them.
LOADING = [
    frame(f"{LIB}/bitsandbytes/functional.py", 900, "quantize_4bit"),
    frame(f"{LIB}/transformers/modeling_utils.py", 4000, "from_pretrained"),
    frame("/home/me/train.py", 20, "<module>"),
]
ADAPTER = [
    frame(f"{LIB}/peft/tuners/lora/layer.py", 120, "update_layer"),
    frame(f"{LIB}/peft/mapping_func.py", 120, "get_peft_model"),
    frame("/home/me/train.py", 30, "<module>"),
]
LAYER = [
    frame("??", 0, "at::native::empty_cuda"),
    frame(f"{LIB}/torch/utils/checkpoint.py", 500, "forward"),
    frame(f"{LIB}/transformers/models/llama/modeling_llama.py", 320, "forward"),
    frame("/home/me/train.py", 88, "<module>"),
]
LOSS = [
    frame(f"{LIB}/transformers/loss/loss_utils.py", 36, "ForCausalLMLoss"),
    frame(f"{LIB}/transformers/models/llama/modeling_llama.py", 850, "forward"),
    frame("/home/me/train.py", 88, "<module>"),
]


def block(address: int, size: int, state: str = "inactive", frames: list[Any] | None = None, **extra: Any) -> Any:
    return {"address": address, "size": size, "requested_size": size, "state": state, "frames": frames or [], **extra}


def segment(address: int, blocks: list[Any], kind: str = "large") -> Any:
    sizes = [each["size"] for each in blocks]
    used = sum(each["size"] for each in blocks if each["state"] != "inactive")
    return {
        "device": 0,
        "address": address,
        "total_size": sum(sizes),
        "allocated_size": used,
        "active_size": used,
        "requested_size": used,
        "stream": 0,
        "segment_type": kind,
        "segment_pool_id": (0, 0),
        "is_expandable": False,
        "frames": [],
        "blocks": blocks,
    }


def event(action: str, address: int, size: int, frames: list[Any] | None = None, **extra: Any) -> Any:
    return {"action": action, "addr": address, "size": size, "stream": 0, "time_us": 1, "frames": frames or [], **extra}


#: Where segments and blocks lie.
A, B, C, D = GIB, 2 * GIB, 3 * GIB, 4 * GIB


def fragmented() -> dict[str, Any]:
    """100 + 40 MiB live in two segments of 100 and 80 MiB; 60 MiB asked for, 40 MiB in no tensor, 30 MiB free.

    The second segment was one block; then it was cut into three, of which the outer two were freed.
    """
    trace = [
        event("segment_alloc", A, 100 * MIB),
        event("alloc", A, 100 * MIB, LOADING),
        event("segment_alloc", B, 80 * MIB),
        event("alloc", B, 80 * MIB, LAYER),
        event("free_requested", B, 80 * MIB),
        event("free_completed", B, 80 * MIB),
        event("alloc", B, 20 * MIB, LAYER),
        event("alloc", B + 20 * MIB, 40 * MIB, ADAPTER),
        event("alloc", B + 60 * MIB, 20 * MIB, LAYER),
        event("free_requested", B, 20 * MIB),
        event("free_completed", B, 20 * MIB),
        event("free_requested", B + 60 * MIB, 20 * MIB),
        event("free_completed", B + 60 * MIB, 20 * MIB),
        event("oom", 0, 60 * MIB, LOSS, device_free=30 * MIB),
    ]
    segments = [
        segment(A, [block(A, 100 * MIB, "active_allocated", LOADING)]),
        segment(
            B,
            [
                block(B, 20 * MIB),
                block(B + 20 * MIB, 40 * MIB, "active_allocated", ADAPTER),
                block(B + 60 * MIB, 20 * MIB),
            ],
        ),
    ]
    return {"segments": segments, "device_traces": [trace], "allocator_settings": {"expandable_segments": False}}


def dumped(snapshot: object, protocol: int = 4) -> bytes:
    """As `_dump_snapshot` writes it."""
    return pickle.dumps(snapshot, protocol=protocol)


def cause_of(shortage: Shortage) -> Cause:
    """The cause as far as the figures of the failed request tell."""
    return shortage.cause(fragmented=shortage.scattered, needed=shortage.lacking)
