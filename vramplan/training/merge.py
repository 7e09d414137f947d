"""Merging: base and saved adapters are loaded, merged, and the result is saved, all by the libraries themselves."""

import gc
import shutil
import tempfile
import warnings
import weakref
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vramplan.ledger import Component, Phase
from vramplan.scenario import Scenario
from vramplan.training.adapter_files import WriteAdapters, load_adapters, write_adapters
from vramplan.training.build import BY_LIBRARIES, Making, build_model
from vramplan.training.meter import Meter
from vramplan.training.names import name_adapters, name_base


class Merging:
    """A merge, from loading to the saved files. It consumes what was loaded, so that a second run loads again."""

    def __init__(
        self,
        scenario: Scenario,
        device: torch.device,
        meter: Meter,
        *,
        making: Making = BY_LIBRARIES,
        write: WriteAdapters = write_adapters,
    ) -> None:
        self.meter = meter
        self.files: tuple[int, ...] = ()
        """Bytes of each file of weights that the last run wrote."""
        self._scenario = scenario
        self._device = device
        self._making = making
        self._adapters = Path(tempfile.mkdtemp(prefix="vramplan-adapters-"))
        weakref.finalize(self, shutil.rmtree, self._adapters, ignore_errors=True)
        meter.enter(Phase.LOAD)
        write(scenario, self._adapters)
        self.model: nn.Module = nn.Module()
        self._loaded = False
        self.load()

    def load(self) -> None:
        """The base on the device, made 16-bit if the scenario says so, with the adapters attached."""
        self.release()
        self.meter.enter(Phase.LOAD)
        base = build_model(self._scenario, self._device, self.meter, making=self._making)
        if self._scenario.merge.dequantize:
            base = dequantize(base)
            name_base(base, self.meter)
        self.model = load_adapters(base, self._scenario, self._adapters)
        name_adapters(self.model, self.meter, copies=Component.UNQUANTIZED)  # they become the model's own
        self._loaded = True

    def run(self) -> Tensor:
        """Merge and save; nothing is computed. `files` has the sizes of what was written."""
        if not self._loaded:
            self.load()
        self.meter.enter(Phase.MERGE)
        self._loaded = False
        model, self.model = self.model, nn.Module()
        merged = merge(model, safe=self._scenario.merge.safe)
        del model
        self.model = merged
        name_base(merged, self.meter)
        self.meter.enter(Phase.SAVE)
        with tempfile.TemporaryDirectory(prefix="vramplan-merged-") as folder:
            save(merged, Path(folder), self._scenario)
            self.files = tuple(file.stat().st_size for file in sorted(Path(folder).glob("*.safetensors")))
        return torch.empty(0)

    def release(self) -> bool:
        """Drop the merged model. A run begins with loading, so nothing of one is held into the next."""
        self.model = nn.Module()
        gc.collect()  # peft's layers and hooks refer to each other
        return False


def saved_files(workload: object) -> dict[str, Any]:
    """What a record says of the files that a merge wrote; nothing for other workloads."""
    if not isinstance(workload, Merging):
        return {}
    return {"saved": {"files": len(workload.files), "bytes": sum(workload.files)}}


def dequantize(model: Any) -> Any:
    """The base with every quantised layer made an ordinary one again (transformers 5.17 `PreTrainedModel.dequantize`).

    It makes each matrix twice and drops one (integrations/bitsandbytes.py `dequantize_and_replace`). A packed weight
    and its layer refer to each other (bitsandbytes `Params4bit.module`): they go when Python's collector runs. Here
    it runs after the last layer, and not before.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        plain = model.dequantize()
    finally:
        if enabled:
            gc.enable()
    gc.collect()
    return plain


def merge(model: Any, *, safe: bool) -> Any:
    """The base model with the adapters in its weights (peft 0.21 `merge_and_unload`)."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Merge lora module to .*-bit linear")  # every layer says so
        warnings.filterwarnings("ignore", message="Input and output embeddings are no longer tied")
        return model.merge_and_unload(safe_merge=safe)


def save(model: Any, folder: Path, scenario: Scenario) -> None:
    """Write the merged model in safetensors files (transformers 5.17 `save_pretrained`)."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # stderr is the caller's
    try:
        model.save_pretrained(str(folder), max_shard_size=scenario.merge.max_shard_size)
    finally:
        if shown:
            logging.enable_progress_bar()
