"""The one tool that the tests of the `openai` SDK offer, and a question that asks for it."""

from typing import Any

WEATHER: Any = {
    "type": "function",
    "name": "get_weather",
    "description": "Get the current weather for a city",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
    "strict": True,
}
WEATHER_QUESTION = "What's the weather like in San Francisco?"
