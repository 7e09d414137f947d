"""Inference: a prompt through the model, then tokens one by one over the real cache of keys and values."""

from typing import Any

import torch
from torch import Tensor, nn

from vramplan.ledger import Component, Phase
from vramplan.scenario import Scenario
from vramplan.training.attention import attention_backend
from vramplan.training.meter import Meter


class Generation:
    """Prefill and greedy decoding as transformers 5.17 `generate` does them: DynamicCache, logits of the last token."""

    def __init__(self, model: Any, scenario: Scenario, device: torch.device, meter: Meter) -> None:
        self.model = model.requires_grad_(False)
        self.meter = meter
        self._scenario = scenario
        self._device = device
        keep_packing(model)
        self._vocabulary = len(model.get_input_embeddings().weight)

    @torch.no_grad()
    def run(self) -> Tensor:
        """The tokens that the model continues a random prompt with, still on the device."""
        from transformers import DynamicCache

        self.meter.enter(Phase.PREFILL)
        cache = DynamicCache(config=self.model.config)
        with attention_backend(self._scenario.attention):
            token = self._forward(self._prompt(), cache)
            self.meter.enter(Phase.DECODE)
            tokens = [token]
            for _ in range(self._scenario.new_tokens - 1):
                token = self._forward(token, cache)
                tokens.append(token)
        return torch.cat(tokens, dim=-1)

    def release(self) -> bool:
        """Nothing is held from one generation into the next."""
        return False

    def _forward(self, ids: Tensor, cache: Any) -> Tensor:
        outputs = self.model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        for number, layer in enumerate(cache.layers):
            self.meter.name(layer.keys, Component.CACHE, f"layer {number} keys")
            self.meter.name(layer.values, Component.CACHE, f"layer {number} values")
        token: Tensor = outputs.logits[:, -1:].argmax(dim=-1)
        return token

    def _prompt(self) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        shape = (self._scenario.batch, self._scenario.seq)
        return torch.randint(self._vocabulary, shape, generator=generator).to(self._device)


def keep_packing(model: nn.Module) -> None:
    """Leave 4-bit weights as they were quantised, on every CPU alike.

    On a CPU with AVX512-BF16, bitsandbytes 0.50 repacks each weight in its first inference forward (nn/modules.py
    `Linear4bit.forward`): constants become bfloat16, double quantisation is undone, and a matrix whose rows are not a
    multiple of 32 fails an assertion. What a run takes would depend on the processor's model.
    """
    layers: list[Any] = [module for module in model.modules() if hasattr(module, "support_avx512bf16_for_cpu")]
    for layer in layers:
        layer.support_avx512bf16_for_cpu = False
