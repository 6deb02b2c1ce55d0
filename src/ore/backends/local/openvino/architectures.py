"""Which models OpenVINO is given, by the names in their files. Imports nothing heavy, so that it can be asked first."""

from typing import Final

GGUF: Final = {"llama": True, "qwen2": False, "qwen3": False}
"""By `general.architecture`, whether the rows of queries and keys are in llama.cpp's order for rotary positions."""

SAFETENSORS: Final = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")
"""By `architectures` of `config.json`."""

GRAPH: Final = "openvino_model.xml"
"""The file that makes a folder one of OpenVINO's own format."""
