"""Inference: a prompt through the model, then tokens one by one over the real cache of keys and values."""

from typing import Any

import torch
from torch import Tensor

from vramplan.ledger import Component, Phase
from vramplan.scenario import Scenario
from vramplan.training.attention import attention_backend
from vramplan.training.meter import Meter
from vramplan.training.names import name_base


class Generation:
    """Prefill and greedy decoding as transformers 5.17 `generate` does them: DynamicCache, logits of the last token."""

    def __init__(self, model: Any, scenario: Scenario, device: torch.device, meter: Meter) -> None:
        self.model = model
        self.meter = meter
        self._scenario = scenario
        self._device = device
        self._vocabulary = int(model.get_input_embeddings().num_embeddings)

    @torch.no_grad()
    def run(self) -> Tensor:
        """The tokens that the model continues a random prompt with, still on the device."""
        from transformers import DynamicCache

        self.meter.enter(Phase.PREFILL)
        cache = DynamicCache(config=self.model.config)
        with attention_backend(self._scenario.attention):
            token = self._forward(self._prompt(), cache)
            # bitsandbytes repacks 4-bit weights in the first inference forward on a CPU with AVX512-BF16
            # (nn/modules.py Linear4bit.forward, `_convert_weight_packed_for_cpu`): other storages hold them now.
            name_base(self.model, self.meter)
            self.meter.enter(Phase.DECODE)
            tokens = [token]
            for _ in range(self._scenario.new_tokens - 1):
                token = self._forward(token, cache)
                tokens.append(token)
        return torch.cat(tokens, dim=-1)

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
