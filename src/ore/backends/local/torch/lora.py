"""Adds a LoRA adapter to a model's weights, from a folder as peft writes it. Refuses kinds that are more than two
matrices for each weight."""

import json
from pathlib import Path
from typing import Any, Final

import torch

from ore.errors import StartupError

_PREFIX: Final = "base_model.model."
_UNKNOWN: Final = ("use_dora", "rank_pattern", "alpha_pattern", "modules_to_save", "lora_bias", "fan_in_fan_out")


def merge_adapter(model: Any, folder: Path) -> None:
    """Change the model's weights in place. Raises `StartupError`."""
    from safetensors.torch import load_file

    config = json.loads(_existing(folder / "adapter_config.json").read_text())
    unknown = [key for key in _UNKNOWN if config.get(key)]
    if config.get("peft_type") != "LORA" or unknown:
        what = unknown[0] if unknown else config.get("peft_type")
        raise StartupError(f"the adapter uses {what}, and only plain LoRA can be merged; merge it with peft first")
    weights = load_file(_existing(folder / "adapter_model.safetensors"))
    scale = config["lora_alpha"] / (config["r"] ** 0.5 if config.get("use_rslora") else config["r"])
    for name in [name for name in weights if ".lora_A." in name]:
        _add(model, name, weights[name], weights[name.replace(".lora_A.", ".lora_B.")], scale)
    stray = [name for name in weights if ".lora_A." not in name and ".lora_B." not in name]
    if stray:
        raise StartupError(f"the adapter has {stray[0]}, which is no LoRA weight; merge it with peft first")


def _add(model: Any, name: str, down: Any, up: Any, scale: float) -> None:
    module = name.removeprefix(_PREFIX).partition(".lora_A.")[0]
    try:
        weight = model.get_parameter(f"{module}.weight")
    except AttributeError:
        raise StartupError(f"the adapter is for another model: there is no {module} in this one") from None
    if weight.shape != (len(up), down.shape[1]):
        raise StartupError(f"the adapter is for another model: {module} has another shape in this one")
    with torch.no_grad():
        weight += (up.float() @ down.float() * scale).to(weight.device, weight.dtype)


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise StartupError(f"the adapter has no {path.name}; only adapters in safetensors are loaded")
    return path
