"""The paged path of transformers' models says what the models say by themselves."""

from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from transformers import MambaConfig, MambaForCausalLM

from backends.torch_tiny import model
from ore.backends.local.batching.runner import Slice
from ore.backends.local.torch.paged_runner import PagedRunner
from ore.errors import StartupError

FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen2": {},
    "qwen3": {},
    "mistral": {"sliding_window": 7},
    "gemma2": {"sliding_window": 5, "query_pre_attn_scalar": 16},
    "gemma3_text": {"sliding_window": 5, "query_pre_attn_scalar": 16},
    "gpt_oss": {"sliding_window": 6, "num_local_experts": 2, "num_experts_per_tok": 1},
}


def own_logits(made: Any, tokens: list[int]) -> "torch.Tensor":
    with torch.inference_mode():
        return made(input_ids=torch.tensor([tokens]), use_cache=False).logits[0]


@pytest.fixture(autouse=True)
def _few_threads() -> None:
    torch.set_num_threads(1)


@pytest.mark.parametrize("kind", FAMILIES)
def test_equals_the_models_own_forward(kind: str) -> None:
    """Prompts in parts, decoding beside them, blocks in disorder, windows, caps and sinks."""
    made = model(kind, **FAMILIES[kind])
    first, second = [(i * 37) % 300 for i in range(45)], [(i * 53) % 300 for i in range(23)]
    expected = own_logits(made, first), own_logits(made, second)
    runner = PagedRunner(made, 64 * 2**20, 320)
    table, other = [7, 3, 11], [2, 9]
    runner.forward([Slice(first[:20], 0, table, wants_logits=False), Slice(second[:20], 0, other, wants_logits=False)])
    rows = runner.forward(
        [Slice(first[20:43], 20, table, wants_logits=True), Slice(second[20:21], 20, other, wants_logits=True)]
    )
    near(rows[0], expected[0][42])
    near(rows[1], expected[1][20])
    for step in (0, 1):
        rows = runner.forward(
            [
                Slice(second[21 + step : 22 + step], 21 + step, other, wants_logits=True),
                Slice(first[43 + step : 44 + step], 43 + step, table, wants_logits=True),
            ]
        )
        near(rows[0], expected[1][21 + step])
        near(rows[1], expected[0][43 + step])


def near(row: Any, expected: "torch.Tensor") -> None:
    assert torch.allclose(torch.from_numpy(row), expected, atol=2e-4, rtol=1e-3)


def test_models_that_cannot_be_paged_are_refused_by_name() -> None:
    """Those with a state of their own."""
    made = MambaForCausalLM(MambaConfig(vocab_size=40, hidden_size=16, num_hidden_layers=2, state_size=4))
    with pytest.raises(StartupError, match=r"(?i)mamba"):
        PagedRunner(made, 2**20, 320)
