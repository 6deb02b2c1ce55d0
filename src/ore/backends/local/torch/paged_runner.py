"""A causal language model of transformers as a `Runner`: its layers, with an attention of ours over paged memory.

All slices go through the model as one row of tokens; only attention looks at whose they are. Those with one token are
attended together, padded to the longest; parts of prompts one after the other. It refuses models whose layers remember
anything but keys and values.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import torch
from torch.nn.functional import scaled_dot_product_attention

from ore.backends.local.batching.runner import Slice
from ore.errors import StartupError

BLOCK_TOKENS: Final = 16
ATTENTION: Final = "ore_paged"
PAGED_LAYERS: Final = {"full_attention", "sliding_attention"}
PROBE: Final = (5, 3, 8, 2, 7, 1, 4, 6, 2, 9)
"""Tokens by which a model is compared with itself."""


class PagedRunner:
    """`memory` is in bytes, for keys and values of all sequences together."""

    block_tokens = BLOCK_TOKENS

    def __init__(self, model: Any, memory: int, most_tokens: int) -> None:
        from transformers import AttentionInterface

        self._model = model
        text = model.config.get_text_config()
        parameter = next(model.parameters())
        self._device = parameter.device
        _check_layers(text)
        heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
        width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        block_bytes = 2 * text.num_hidden_layers * BLOCK_TOKENS * heads * width * model.dtype.itemsize
        self.block_count = min(memory // block_bytes, -(-most_tokens // BLOCK_TOKENS))
        shape = (text.num_hidden_layers, 2, self.block_count, BLOCK_TOKENS, heads, width)
        memory_of_all = _zeros(shape, model.dtype, self._device)
        self._layers = [(layer[0], layer[1]) for layer in memory_of_all]
        self._plan = _Plan([], self._device)
        self._calls = 0
        AttentionInterface.register(ATTENTION, self._attend)
        self._check_itself(text.num_hidden_layers)

    def forward(self, slices: Sequence[Slice]) -> Any:
        """As `Runner.forward`."""
        with torch.inference_mode():
            plan = self._plan = _Plan(slices, self._device)
            output = self._model(
                input_ids=plan.tokens[None],
                position_ids=plan.positions[None],
                use_cache=False,
                logits_to_keep=plan.last if len(plan.last) else 1,
            )
            return output.logits[0, : len(plan.last)].float().cpu().numpy()

    def _attend(
        self, module: Any, query: Any, key: Any, value: Any, _mask: Any, **options: Any
    ) -> tuple[torch.Tensor, None]:
        """The attention of one layer. `query`, `key` and `value` have the shape (1, heads, tokens, width)."""
        self._calls += 1
        plan, (keys, values) = self._plan, self._layers[module.layer_idx]
        keys.view(-1, *keys.shape[2:]).index_copy_(0, plan.places, key[0].transpose(0, 1))
        values.view(-1, *values.shape[2:]).index_copy_(0, plan.places, value[0].transpose(0, 1))
        window = options.get("sliding_window")
        parts = [
            _attention(query[0, :, part.rows], keys[part.blocks], values[part.blocks], part.mask(window), part, options)
            for part in plan.parts
        ]
        return (parts[0] if len(parts) == 1 else torch.cat(parts))[None], None

    def _check_itself(self, layers: int) -> None:
        """Refuse a model that says something else with paged memory than by itself."""
        blocks, half = [0], len(PROBE) // 2
        with torch.inference_mode():
            self._model.set_attn_implementation("sdpa" if self._model._supports_sdpa else "eager")
            own = (
                self._model(input_ids=torch.tensor([PROBE], device=self._device), use_cache=False).logits[0, -1].float()
            )
            self._model.set_attn_implementation(ATTENTION)
            self._calls = 0
            self.forward([Slice(PROBE[:half], 0, blocks, wants_logits=False)])
            paged = torch.from_numpy(self.forward([Slice(PROBE[half:], half, blocks, wants_logits=True)])[0])
        own = own.cpu()
        likeness = torch.nn.functional.cosine_similarity(own - own.mean(), paged - paged.mean(), dim=0)
        if self._calls != 2 * layers or not likeness > 0.99:
            raise unpaged(type(self._model).__name__)


class _Part:
    """Slices that are attended at once: `rows` of the tokens, `blocks` with a row for each sequence."""

    def __init__(self, rows: slice, blocks: Any, past: Any, count: int) -> None:
        self.rows = rows
        self.blocks = blocks
        self.count = count
        self._past = past
        self._masks: dict[int | None, Any] = {}

    def mask(self, window: int | None) -> Any:
        """Which places each token sees: (sequences, 1, tokens, places)."""
        if window not in self._masks:
            places = torch.arange(self.blocks.shape[1] * BLOCK_TOKENS, device=self.blocks.device)
            at = self._past[:, None] + torch.arange(self.count, device=places.device)
            seen = places <= at[..., None]
            if window is not None:
                seen &= places > at[..., None] - window
            self._masks[window] = seen[:, None]
        return self._masks[window]


class _Plan:
    """One forward pass in tensors: what the tokens are, where they lie, who is attended with whom."""

    def __init__(self, slices: Sequence[Slice], device: Any) -> None:
        order = sorted(range(len(slices)), key=lambda i: len(slices[i].tokens) > 1)
        self._device = device
        counts = [len(slices[i].tokens) for i in order]
        starts = dict(zip(order, np.cumsum([0, *counts]), strict=False))
        positions = [np.arange(slices[i].past, slices[i].past + len(slices[i].tokens)) for i in order]
        places = [_places(slices[i], at) for i, at in zip(order, positions, strict=True)]
        self.tokens = self._tensor(np.concatenate([np.asarray(slices[i].tokens) for i in order]) if order else [])
        self.positions = self._tensor(np.concatenate(positions) if order else [])
        self.places = self._tensor(np.concatenate(places) if order else [])
        self.last = self._tensor(
            [starts[i] + len(part.tokens) - 1 for i, part in enumerate(slices) if part.wants_logits]
        )
        single = [slices[i] for i in order if len(slices[i].tokens) == 1]
        self.parts = [self._part(0, single)] if single else []
        self.parts += [self._part(int(starts[i]), [slices[i]]) for i in order[len(single) :]]

    def _part(self, start: int, slices: Sequence[Slice]) -> _Part:
        count = len(slices[0].tokens)
        most = -(-max(part.past + count for part in slices) // BLOCK_TOKENS)
        blocks = np.zeros((len(slices), most), np.int64)
        for row, part in zip(blocks, slices, strict=True):
            needed = -(-(part.past + count) // BLOCK_TOKENS)
            row[:needed] = part.blocks[:needed]
        past = self._tensor([part.past for part in slices])
        return _Part(slice(start, start + count * len(slices)), self._tensor(blocks), past, count)

    def _tensor(self, values: Any) -> Any:
        return torch.from_numpy(np.ascontiguousarray(values, np.int64)).to(self._device, non_blocking=True)


def _zeros(shape: tuple[int, ...], dtype: Any, device: Any) -> Any:
    """Memory without NaNs, which no mask can hide. On a CPU it is not touched, so that it costs what is used."""
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    return torch.from_numpy(np.zeros(int(np.prod(shape)) * dtype.itemsize, np.uint8)).view(dtype).view(shape)


def _places(part: Slice, positions: Any) -> Any:
    blocks = np.asarray(part.blocks, np.int64)
    return blocks[positions // BLOCK_TOKENS] * BLOCK_TOKENS + positions % BLOCK_TOKENS


def _attention(query: Any, keys: Any, values: Any, mask: Any, part: _Part, options: dict[str, Any]) -> Any:
    """`query` is (heads, sequences * tokens, width), `keys` (sequences, blocks, tokens, heads, width); gives
    (sequences * tokens, heads, width). Heads that share keys are attended as further tokens of their one head."""
    sequences, count, heads = len(keys), part.count, keys.shape[3]
    keys = keys.flatten(1, 2).transpose(1, 2)
    values = values.flatten(1, 2).transpose(1, 2)
    shared = query.shape[0] // heads
    query = query.view(heads, shared, sequences, count, -1).permute(2, 0, 1, 3, 4)
    query = query.reshape(sequences, heads, shared * count, -1)
    if shared > 1 and count > 1:
        mask = mask.repeat(1, 1, shared, 1)
    softcap, sinks = options.get("softcap"), options.get("s_aux")
    if softcap is None and sinks is None:
        out = scaled_dot_product_attention(query, keys, values, mask, scale=options.get("scaling"))
    else:
        out = _spelled_out(query, keys, values, mask, options, shared)
    out = out.view(sequences, heads, shared, count, -1).permute(0, 3, 1, 2, 4)
    return out.reshape(sequences * count, heads * shared, -1)


def _spelled_out(query: Any, keys: Any, values: Any, mask: Any, options: dict[str, Any], shared: int) -> Any:
    """Attention for models that cap their scores or let them drain into a sink."""
    softcap, sinks, scale = options.get("softcap"), options.get("s_aux"), options.get("scaling")
    scores = query @ keys.transpose(2, 3) * (query.shape[-1] ** -0.5 if scale is None else scale)
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    scores = scores.masked_fill(~mask, float("-inf")).float()
    if sinks is not None:
        sink = (
            sinks.float().view(1, keys.shape[1], shared, 1, 1).expand(len(query), -1, -1, scores.shape[2] // shared, 1)
        )
        scores = torch.cat([scores, sink.reshape(*scores.shape[:3], 1)], -1)
    weights = scores.softmax(-1)[..., : keys.shape[2]]
    return weights.to(values.dtype) @ values


def _check_layers(config: Any) -> None:
    if set(getattr(config, "layer_types", None) or ()) - PAGED_LAYERS:
        raise unpaged(config.model_type)


def unpaged(name: str) -> StartupError:
    return StartupError(
        f"{name} models keep more than keys and values of their tokens, which the PyTorch engine cannot page; "
        "use another engine, for example a GGUF conversion of the model with llama_cpp"
    )
