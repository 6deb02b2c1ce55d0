"""Chat Completions: what is asked. Every body here is one that OpenAI's own types accept."""

import base64
import json
from typing import Any

import msgspec
import pytest
from chat_completions_server import check_body
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from ore.backends.base import ModelRequest, Sampling
from ore.backends.chat_completions import ChatCompletions
from ore.backends.chat_completions.items import UNREADABLE
from ore.backends.dialect import Unintelligible, packed
from ore.backends.profiles import Profile, profile_of
from ore.errors import InvalidRequest

DIALECT = ChatCompletions(lambda purpose: f"{purpose}_new")
PNG = "data:image/png;base64,iVBORw0KGgo="
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": False}
FORMAT = {"type": "json_schema", "name": "shape", "schema": SCHEMA, "strict": True}
ADD: dict[str, Any] = {"type": "function", "name": "add", "description": "Adds.", "parameters": SCHEMA, "strict": True}
SUB: dict[str, Any] = {"type": "function", "name": "sub", "parameters": None, "strict": False}
PATCH: dict[str, Any] = {
    "type": "custom",
    "name": "patch",
    "format": {"type": "grammar", "syntax": "lark", "definition": "start: /.+/"},
}
SPACE = {"type": "namespace", "name": "n", "description": "", "tools": [ADD]}
SHELL = {"type": "shell"}


def message(role: str, *parts: Any) -> dict[str, Any]:
    kind = "output_text" if role == "assistant" else "input_text"
    content = [{"type": kind, "text": part} if isinstance(part, str) else part for part in parts]
    return {"type": "message", "role": role, "content": content}


def call(call_id: str, arguments: str = '{"a": 1}', **more: Any) -> dict[str, Any]:
    return {"type": "function_call", "call_id": call_id, "name": "add", "arguments": arguments, **more}


def output(call_id: str, value: Any = "2") -> dict[str, Any]:
    return {"type": "function_call_output", "call_id": call_id, "output": value}


def thought(text: str = "hm", **more: Any) -> dict[str, Any]:
    content = [{"type": "reasoning_text", "text": text}] if text else []
    return {"type": "reasoning", "summary": [], "content": content, **more}


HI = message("user", "hi")


def body_of(*items: Any, profile: Profile | None = None, **fields: Any) -> dict[str, Any]:
    """The body for a request, which is one that OpenAI's types accept."""
    request = ModelRequest(model="m", items=items or (HI,), **fields)
    asked = DIALECT.ask(request, profile or Profile(), "here")
    body: dict[str, Any] = json.loads(msgspec.json.encode(asked.body))
    check_body(body)
    return body


def messages_of(*items: Any, profile: Profile | None = None, **fields: Any) -> list[Any]:
    messages: list[Any] = body_of(*items, profile=profile, **fields)["messages"]
    return messages


def test_the_least_that_is_asked() -> None:
    """A stream with its usage, and no field that nobody asked for."""
    assert body_of() == {
        "model": "m",
        "messages": [{"role": "user", "content": "hi"}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert DIALECT.key_headers("k") == {"Authorization": "Bearer k"}
    assert DIALECT.counting(ModelRequest(model="m", items=()), Profile(), "here") is None
    with pytest.raises(Unintelligible):
        DIALECT.counted(b"{}")


@pytest.mark.parametrize(
    "broken",
    [
        {"messages": []},
        {"messages": [{"role": "robot", "content": "hi"}]},
        {"messages": [{"role": "user", "content": [{"type": "input_text", "text": "hi"}]}]},
        {"messages": [{"role": "tool", "tool_call_id": "c1", "content": "2"}]},
        {"tools": [{"type": "function", "name": "flat"}]},
        {"stop": 5},
        {"made_up": 1},
    ],
)
def test_the_judge_of_these_tests_refuses_what_openai_refuses(broken: Any) -> None:
    with pytest.raises((AssertionError, ValidationError)):
        check_body({**body_of(), **broken})


@pytest.mark.parametrize("role", ["system", "developer"])
def test_instructions_lead_in_the_role_that_the_model_knows(role: Any) -> None:
    items = [message("developer", "B"), HI, message("system", "C")]
    assert messages_of(*items, instructions="A", profile=Profile(instructions_role=role)) == [
        {"role": role, "content": "A\n\nB"},
        {"role": "user", "content": "hi"},
        {"role": role, "content": "C"},
    ]


def test_calls_of_one_sampling_share_a_message_and_outputs_follow_at_once() -> None:
    items = [HI, message("assistant", "Let me see."), call("c1"), call("c2", "")]
    shown = messages_of(*items, message("user", "and?"), output("c2"), output("c1"), call("c3"), output("c3"))
    assert [entry["role"] for entry in shown] == ["user", "assistant", "tool", "tool", "user", "assistant", "tool"]
    assert shown[1]["content"] == "Let me see."
    assert [made["function"]["arguments"] for made in shown[1]["tool_calls"]] == ['{"a": 1}', "{}"]
    assert shown[2] == {"role": "tool", "tool_call_id": "c2", "content": "2"}


def test_text_after_calls_joins_their_message() -> None:
    shown = messages_of(HI, call("c1"), message("assistant", "Wait."), output("c1"))
    assert [entry["role"] for entry in shown] == ["user", "assistant", "tool"]
    assert shown[1]["content"] == "Wait."


def test_refusals_are_text_and_messages_without_anything_are_left_out() -> None:
    refused = message("assistant", {"type": "refusal", "refusal": "No."})
    shown = messages_of(HI, refused, message("assistant", ""), HI)
    assert [entry["content"] for entry in shown] == ["hi", "No.", "hi"]


def test_items_that_nobody_can_be_shown_are_passed_over() -> None:
    hosted = {"type": "web_search_call", "id": "ws", "status": "completed", "action": {"type": "search", "query": "q"}}
    assert len(messages_of(hosted, {"type": "made_up"}, HI)) == 1


def test_a_call_that_the_server_made_is_shown_with_its_output() -> None:
    made = {
        "type": "mcp_call",
        "id": "mcp_1",
        "name": "find",
        "arguments": "{}",
        "output": "found",
        "server_label": "s",
    }
    _, calling, result = messages_of(HI, made)
    assert calling["tool_calls"][0]["function"] == {"name": "find", "arguments": "{}"}
    assert result == {"role": "tool", "tool_call_id": "mcp_1", "content": "found"}


def test_arguments_that_are_no_object_go_back_as_one() -> None:
    """Ollama, vLLM and llama-server refuse a history with broken arguments, which would end the conversation."""
    _, calling, _ = messages_of(HI, call("c1", '{"a": '), output("c1", "no JSON"))
    assert json.loads(calling["tool_calls"][0]["function"]["arguments"]) == {UNREADABLE: '{"a": '}


def test_images_and_their_detail() -> None:
    seen = message("user", "see", {"type": "input_image", "image_url": PNG, "detail": "low"})
    auto = message("user", {"type": "input_image", "image_url": "https://example.org/a.png", "detail": "auto"})
    first, second = messages_of(seen, auto, profile=Profile(images=True))
    assert first["content"] == [
        {"type": "text", "text": "see"},
        {"type": "image_url", "image_url": {"url": PNG, "detail": "low"}},
    ]
    assert second["content"] == [{"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}]
    assert messages_of(seen)[0]["content"] == "see\n[image attached: image/png, 1 KiB; this model cannot see images]"


def test_images_of_tools_follow_their_outputs_as_a_users_message() -> None:
    shot = output("c1", [{"type": "input_text", "text": "a"}, {"type": "input_image", "image_url": PNG}])
    items = [HI, call("c1"), call("c2"), shot, output("c2")]
    shown = messages_of(*items, profile=Profile(images=True))
    assert [entry["role"] for entry in shown] == ["user", "assistant", "tool", "tool", "user"]
    assert shown[2]["content"] == "a\n[its images are in the next message]"
    assert shown[4]["content"] == [{"type": "image_url", "image_url": {"url": PNG}}]
    assert "cannot see" in messages_of(*items)[2]["content"]


def test_files() -> None:
    """Text is inlined, PDF goes to those who read it, and what nobody reads is named."""
    text = "data:text/plain;base64," + base64.b64encode("grüße".encode()).decode()
    notes = {"type": "input_file", "filename": "a.txt", "file_data": text}
    paper = {"type": "input_file", "filename": "a.pdf", "file_data": "JVBERi0="}
    afar = {"type": "input_file", "file_url": "https://example.org/b.pdf"}
    reading = messages_of(message("user", notes, paper, afar), profile=Profile(files=True))[0]["content"]
    assert reading[0]["text"] == "[file attached: a.txt]\ngrüße"
    assert reading[1] == {
        "type": "file",
        "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERi0="},
    }
    assert "https://example.org/b.pdf" in reading[2]["text"]
    assert "a.pdf, 1 KiB; this model cannot read files" in messages_of(message("user", notes, paper))[0]["content"]


@pytest.mark.parametrize(
    ("back", "called", "said"), [("never", None, None), ("calls", "hm", None), ("always", "hm", "hm")]
)
def test_reasoning_goes_back_as_the_model_wants_it(back: Any, called: str | None, said: str | None) -> None:
    profile = Profile(reasoning_back=back, reasoning_field="reasoning")
    items = [HI, thought(), call("c1"), output("c1"), thought(), message("assistant", "2")]
    shown = messages_of(*items, profile=profile)
    assert (shown[1].get("reasoning"), shown[3].get("reasoning")) == (called, said)


def test_calls_whose_reasoning_is_not_known_go_back_with_none() -> None:
    """DeepSeek and Kimi refuse calls without the field; a call may have come from another model."""
    shown = messages_of(HI, call("c1"), output("c1"), profile=Profile(reasoning_back="calls"))
    assert shown[1]["reasoning_content"] == ""


def test_what_a_provider_wants_back_goes_to_that_provider_only() -> None:
    signed = {"google": {"thought_signature": "sig"}}
    own = thought("", state=packed("here", {"call_id": "c2", "extra_content": signed}))
    items = [HI, call("c1"), own, call("c2"), output("c1"), output("c2")]
    calls = messages_of(*items)[1]["tool_calls"]
    assert [made.get("extra_content") for made in calls] == [None, signed]
    details = [{"type": "reasoning.encrypted", "data": "x"}]
    for origin, expected in (("here", details), ("elsewhere", None)):
        item = thought("hm", state=packed(origin, {"reasoning_details": details}))
        assert messages_of(HI, item, message("assistant", "2"))[1].get("reasoning_details") == expected


def test_ids_of_calls_as_mistral_has_them() -> None:
    shown = messages_of(HI, call("call_1"), call("abcDEF123"), output("call_1"), output("abcDEF123"), profile=SHORT)
    first, second = (made["id"] for made in shown[1]["tool_calls"])
    assert (len(first), second) == (9, "abcDEF123")
    assert [entry["tool_call_id"] for entry in shown[2:]] == [first, second]


SHORT = Profile(short_call_ids=True)


def test_all_kinds_of_tools_are_functions() -> None:
    """A custom tool is a function of one text, a native one that of its table, and each has a name of its own."""
    body = body_of(tools=(ADD, SUB, PATCH, SPACE, SHELL, {"type": "web_search"}))
    functions = {tool["function"]["name"]: tool["function"] for tool in body["tools"]}
    assert list(functions) == ["add", "sub", "patch", "n__add", "shell"]
    assert functions["add"] == {"name": "add", "description": "Adds.", "parameters": SCHEMA, "strict": True}
    assert "strict" not in functions["sub"]
    assert functions["patch"]["parameters"]["required"] == ["input"]
    assert "start: /.+/" in functions["patch"]["description"]
    assert "tool_choice" not in body


def test_other_calls_of_the_history_are_shown_as_those_functions() -> None:
    items = [
        HI,
        {"type": "custom_tool_call", "call_id": "c1", "name": "patch", "input": 'a "b"'},
        {"type": "custom_tool_call_output", "call_id": "c1", "output": "ok"},
        {"type": "shell_call", "call_id": "c2", "action": {"commands": ["ls"]}},
        {"type": "shell_call_output", "call_id": "c2", "output": [{"stdout": "a", "outcome": {"type": "timeout"}}]},
        call("c3", namespace="n"),
        output("c3"),
    ]
    shown = messages_of(*items, tools=(PATCH, SHELL, SPACE, ADD))
    functions = [entry["tool_calls"][0]["function"] for entry in shown if "tool_calls" in entry]
    assert [function["name"] for function in functions] == ["patch", "shell", "n__add"]
    assert json.loads(functions[0]["arguments"]) == {"input": 'a "b"'}
    assert shown[4]["content"] == "a\n[timed out]"


@pytest.mark.parametrize(
    ("choice", "names", "told"),
    [
        ("auto", ["add", "sub"], None),
        ("none", None, None),
        ("required", ["add", "sub"], "required"),
        ({"type": "function", "name": "sub"}, ["sub"], {"type": "function", "function": {"name": "sub"}}),
        ({"type": "allowed_tools", "tools": [{"type": "function", "name": "add"}]}, ["add"], None),
        ({"type": "allowed_tools", "mode": "required", "tools": [ADD, SUB]}, ["add", "sub"], "required"),
    ],
)
def test_only_tools_that_may_be_called_are_shown(choice: Any, names: Any, told: Any) -> None:
    body = body_of(tools=(ADD, SUB), tool_choice=choice)
    shown = [tool["function"]["name"] for tool in body["tools"]] if "tools" in body else None
    assert (shown, body.get("tool_choice")) == (names, told)


def test_a_choice_that_nothing_can_fulfil_is_refused() -> None:
    with pytest.raises(InvalidRequest):
        body_of(tools=({"type": "web_search"},), tool_choice="required")
    assert "tools" not in body_of(tools=(ADD,), profile=Profile(tools=False))


def test_one_call_at_a_time_is_asked_of_those_who_take_the_field() -> None:
    assert body_of(tools=(ADD,), parallel_tool_calls=False)["parallel_tool_calls"] is False
    assert "parallel_tool_calls" not in body_of(parallel_tool_calls=False)
    profile = Profile(parallel_tool_calls=False)
    assert "parallel_tool_calls" not in body_of(tools=(ADD,), parallel_tool_calls=False, profile=profile)


def test_settings_are_sent_to_models_that_take_them() -> None:
    sampling = Sampling(
        temperature=0.5, top_p=0.9, presence_penalty=1.0, frequency_penalty=-1.0, seed=7, stop=("a", "b")
    )
    asked = {"sampling": sampling, "max_output_tokens": 9, "top_logprobs": 2}
    full = body_of(**asked, profile=Profile(logprobs=True))
    told = {key: value for key, value in full.items() if key not in body_of()}
    assert told == {
        "temperature": 0.5,
        "top_p": 0.9,
        "presence_penalty": 1.0,
        "frequency_penalty": -1.0,
        "seed": 7,
        "stop": ["a", "b"],
        "max_tokens": 9,
        "logprobs": True,
        "top_logprobs": 2,
    }
    bare = Profile(sampling=False, penalties=False, seed=False, stop=False, max_tokens_field="max_completion_tokens")
    assert body_of(**asked, profile=bare) == {**body_of(), "max_completion_tokens": 9}
    assert "top_logprobs" not in body_of(top_logprobs=0, profile=Profile(logprobs=True))


@pytest.mark.parametrize(
    ("profile", "effort", "told"),
    [
        (Profile(), "high", {}),
        (Profile(effort="reasoning_effort"), "xhigh", {"reasoning_effort": "xhigh"}),
        (Profile(effort="reasoning_effort", efforts=("low", "high")), "xhigh", {"reasoning_effort": "high"}),
        (Profile(effort="reasoning_effort", efforts=("low", "high")), "medium", {"reasoning_effort": "low"}),
        (Profile(effort="reasoning_effort", efforts=("low", "high")), "none", {"reasoning_effort": "low"}),
        (
            Profile(effort="chat_template_kwargs"),
            "none",
            {"chat_template_kwargs": {"enable_thinking": False, "thinking": False}},
        ),
        (Profile(effort="reasoning_effort"), None, {}),
        (Profile(effort="reasoning_effort", thinking_switch=True), "low", {"reasoning_effort": "low"}),
        (Profile(effort="reasoning_effort", thinking_switch=True), "none", {"thinking": {"type": "disabled"}}),
        (Profile(thinking_switch=True), "high", {}),
    ],
)
def test_effort_is_said_as_the_model_understands_it(profile: Profile, effort: Any, told: Any) -> None:
    body = body_of(reasoning={"effort": effort, "summary": "auto"}, profile=profile)
    assert body == {**body_of(), **told}


def test_fields_that_openai_alone_knows_go_to_openai_alone() -> None:
    asked: dict[str, Any] = {
        "prompt_cache_key": "k",
        "safety_identifier": "s",
        "verbosity": "low",
        "passed_on": {"service_tier": "flex", "user": "u", "unheard": 1},
    }
    assert body_of(**asked) == body_of()
    told = body_of(**asked, profile=Profile(openai_fields=True, reasoning=True))
    assert told == {
        **body_of(),
        "prompt_cache_key": "k",
        "safety_identifier": "s",
        "verbosity": "low",
        "service_tier": "flex",
        "user": "u",
    }


def test_a_schema_that_the_provider_holds_the_model_to() -> None:
    told = body_of(text_format=FORMAT | {"description": None})["response_format"]
    assert told == {"type": "json_schema", "json_schema": {"name": "shape", "schema": SCHEMA, "strict": True}}
    assert body_of(text_format={"type": "json_object"})["response_format"] == {"type": "json_object"}


def test_a_schema_that_the_model_is_asked_to_keep_to() -> None:
    profile = Profile(json_schema="prompt")
    body = body_of(text_format=FORMAT, instructions="A", profile=profile)
    assert body["messages"][0]["content"].startswith("A\n\nAnswer with JSON that matches this schema: {")
    assert body["response_format"] == {"type": "json_object"}
    assert "response_format" not in body_of(text_format=FORMAT, tools=(ADD,), profile=profile)


def test_a_schema_of_a_function_that_the_model_is_made_to_call() -> None:
    profile = Profile(json_schema="tool")
    alone = body_of(text_format=FORMAT, profile=profile)
    assert alone["tools"][0]["function"]["parameters"] == SCHEMA
    assert alone["tool_choice"] == {"type": "function", "function": {"name": "shape"}}
    both = body_of(text_format=FORMAT | {"name": "add"}, tools=(ADD,), profile=profile)
    assert [tool["function"]["name"] for tool in both["tools"]] == ["add", "answer"]
    assert both["tool_choice"] == "required"
    forced = body_of(text_format=FORMAT, tools=(ADD,), tool_choice="required", profile=profile)
    assert len(forced["tools"]) == 1


def test_profiles_know_the_families() -> None:
    for kind, name in (("ollama", "llama3.2-vision:11b"), ("chat_completions", "Qwen/Qwen2.5-VL-7B-Instruct")):
        assert profile_of(kind, name).images
    qwen = profile_of("ollama", "qwen3:8b")
    assert (qwen.effort, qwen.reasoning_field, qwen.think_tags) == ("reasoning_effort", "reasoning", True)
    assert qwen.nearest_effort("max") == "high"
    assert not profile_of("ollama", "qwen3-coder:30b").reasoning
    deepseek = profile_of("chat_completions", "deepseek-reasoner")
    assert (deepseek.json_schema, deepseek.reasoning_back) == ("prompt", "always")
    o3 = profile_of("chat_completions", "openai/o3")
    assert (o3.max_tokens_field, o3.sampling, o3.instructions_role) == ("max_completion_tokens", False, "developer")
    assert profile_of("chat_completions", "mistral-large-latest").short_call_ids
    assert profile_of("chat_completions", "anything").summarised is False


ITEMS = st.sampled_from(
    [
        [HI],
        [message("user", "see", {"type": "input_image", "image_url": PNG, "detail": "high"})],
        [message("user", {"type": "input_file", "filename": "a.pdf", "file_data": "JVBERi0="})],
        [message("developer", "be brief")],
        [message("assistant", "ok")],
        [message("assistant", {"type": "refusal", "refusal": "no"})],
        [thought()],
        [thought("", state=packed("here", {"reasoning_details": [{"type": "reasoning.encrypted", "data": "x"}]}))],
        ["call"],
        ["call", "call"],
        ["call", message("assistant", "hm")],
        ["custom"],
        ["shell"],
        [{"type": "mcp_call", "id": "mcp_9", "name": "find", "arguments": "{}", "error": "down"}],
    ]
)
ANSWERS = {"call": "function_call_output", "custom": "custom_tool_call_output", "shell": "shell_call_output"}


@st.composite
def histories(draw: st.DrawFn) -> list[Any]:
    """Any order of items in which every call is answered, sooner or later."""
    items: list[Any] = [HI]
    waiting: list[Any] = []
    for group in draw(st.lists(ITEMS, max_size=8)):
        for item in group:
            made, answer = _made(item, f"c{len(items)}")
            items.append(made)
            waiting += answer
        if waiting and draw(st.booleans()):
            items += draw(st.permutations(waiting))
            waiting = []
    return [*items, *waiting]


def _made(item: Any, call_id: str) -> tuple[Any, list[Any]]:
    """An item, and what answers it."""
    if not isinstance(item, str):
        return item if item["type"] != "mcp_call" else {**item, "id": f"mcp_{call_id}"}, []
    made = {
        "call": call(call_id),
        "custom": {"type": "custom_tool_call", "call_id": call_id, "name": "patch", "input": "x"},
        "shell": {"type": "shell_call", "call_id": call_id, "action": {"commands": ["ls"]}},
    }[item]
    value: Any = [{"type": "input_image", "image_url": PNG}] if item == "call" else "ok"
    return made, [{"type": ANSWERS[item], "call_id": call_id, "output": value}]


PROFILES = st.builds(
    Profile,
    images=st.booleans(),
    files=st.booleans(),
    tools=st.booleans(),
    logprobs=st.booleans(),
    sampling=st.booleans(),
    json_schema=st.sampled_from(["native", "tool", "prompt"]),
    instructions_role=st.sampled_from(["system", "developer"]),
    effort=st.sampled_from(["none", "reasoning_effort", "chat_template_kwargs", "budget"]),
    reasoning_back=st.sampled_from(["never", "calls", "always"]),
    short_call_ids=st.booleans(),
    openai_fields=st.booleans(),
)


@given(histories(), PROFILES, st.sampled_from(["auto", "none", {"type": "function", "name": "add"}]), st.booleans())
@settings(max_examples=150, deadline=None)
def test_whatever_is_asked_the_published_schema_accepts_it(
    items: list[Any], profile: Profile, choice: Any, formatted: bool
) -> None:
    """Every item, in every order that a context may have, for every profile."""
    if not profile.tools and choice != "none":
        choice = "auto"
    body_of(
        *items,
        profile=profile,
        instructions="be kind",
        tools=(ADD, SUB, PATCH, SPACE, SHELL),
        tool_choice=choice,
        parallel_tool_calls=False,
        text_format=FORMAT if formatted else {"type": "text"},
        reasoning={"effort": "low"},
        sampling=Sampling(temperature=1.0, stop=("x",)),
        max_output_tokens=5,
        top_logprobs=1,
        verbosity="low",
        prompt_cache_key="k",
    )
