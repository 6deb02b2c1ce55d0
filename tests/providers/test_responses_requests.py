"""The Responses dialect, pure: what a request becomes, and what errors and listings say."""

from typing import Any

import msgspec
import pytest
from msgspec import structs

from ore.backends.base import JsonObject, ModelRequest, Sampling
from ore.backends.dialect import Listed, Unintelligible, packed
from ore.backends.profiles import Profile, profile_of
from ore.backends.responses import Responses
from ore.errors import InvalidRequest
from providers.responses_server import check_body, function_call, reasoning_item, sealed, text_message

DIALECT = Responses()
GPT = profile_of("openai", "gpt-5")
GPT_4 = profile_of("openai", "gpt-4.1")
ANY = profile_of("responses", "qwen3")
USER: JsonObject = {
    "type": "message",
    "id": "msg_1",
    "status": "completed",
    "role": "user",
    "content": [{"type": "input_text", "text": "Hi"}],
}
SENT_USER = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hi"}]}
FUNCTION: JsonObject = {
    "type": "function",
    "name": "f",
    "description": None,
    "parameters": {"type": "object", "properties": {}},
    "strict": None,
}
SQL: JsonObject = {"type": "custom", "name": "sql"}
SPACE: JsonObject = {"type": "namespace", "name": "crm", "description": "d", "tools": [FUNCTION]}
WEB: JsonObject = {"type": "web_search"}
SEARCHED: JsonObject = {
    "type": "web_search_call",
    "id": "ws_1",
    "status": "completed",
    "action": {"type": "search", "query": "q"},
}


def body_of(*items: JsonObject, profile: Profile = GPT, check: bool = True, **fields: Any) -> JsonObject:
    request = ModelRequest(model=fields.pop("model", "gpt-5"), items=items or (USER,), **fields)
    body = DIALECT.ask(request, profile, "up").body
    if check:
        check_body(msgspec.json.decode(msgspec.json.encode(body)))
    return body


def own(item: JsonObject, origin: str = "up") -> JsonObject:
    """A reasoning item as it comes back out of ORE's seal."""
    state = {key: value for key, value in item.items() if key != "type"}
    return {**item, "id": "rs_ours", "encrypted_content": "ore1.x", "state": packed(origin, state)}


def test_a_request_says_only_what_was_asked() -> None:
    """Always streamed, never stored; nothing is sent that the client left open."""
    assert body_of(profile=GPT_4) == {"model": "gpt-5", "input": [SENT_USER], "stream": True, "store": False}
    assert body_of()["include"] == ["reasoning.encrypted_content"]


def test_everything_that_was_asked_is_said() -> None:
    """Each field of a request has its place, under the wire's name."""
    schema = {"type": "object", "properties": {}}
    body = body_of(
        model="gpt-4.1",
        profile=structs.replace(GPT_4, reasoning=True),
        instructions="Be brief.",
        tools=(FUNCTION, WEB),
        tool_choice="required",
        parallel_tool_calls=False,
        text_format={"type": "json_schema", "name": "n", "description": None, "schema": schema, "strict": True},
        verbosity="low",
        reasoning={"effort": "low", "summary": None},
        sampling=Sampling(temperature=0.5, top_p=0.9, presence_penalty=1, frequency_penalty=1, seed=1, stop=("x",)),
        max_output_tokens=100,
        top_logprobs=2,
        prompt_cache_key="key",
        safety_identifier="who",
        include=("web_search_call.action.sources", "reasoning.encrypted_content"),
        max_tool_calls=3,
        passed_on={"service_tier": "flex", "user": "u"},
        owner="secret",
    )
    assert body == {
        "model": "gpt-4.1",
        "input": [SENT_USER],
        "instructions": "Be brief.",
        "stream": True,
        "store": False,
        "include": ["reasoning.encrypted_content", "message.output_text.logprobs", "web_search_call.action.sources"],
        "tools": [FUNCTION, WEB],
        "tool_choice": "required",
        "parallel_tool_calls": False,
        "max_tool_calls": 3,
        "text": {"format": {"type": "json_schema", "name": "n", "schema": schema, "strict": True}, "verbosity": "low"},
        "reasoning": {"effort": "low"},
        "max_output_tokens": 100,
        "top_logprobs": 2,
        "prompt_cache_key": "key",
        "safety_identifier": "who",
        "temperature": 0.5,
        "top_p": 0.9,
        "service_tier": "flex",
        "user": "u",
    }


def test_a_reasoning_model_is_sent_nothing_that_it_refuses() -> None:
    """Sampling and logprobs are left out where the profile says so, and reasoning where there is none."""
    asked: JsonObject = {"sampling": Sampling(temperature=0.5, stop=("x",)), "top_logprobs": 2}
    assert not body_of(**asked).keys() & {"temperature", "top_logprobs", "stop"}
    assert "reasoning" not in body_of(profile=GPT_4, reasoning={"effort": "low"})


@pytest.mark.parametrize(("asked", "sent"), [("minimal", "low"), ("medium", "medium"), ("max", "high")])
def test_an_effort_is_said_as_the_model_knows_it(asked: str, sent: str) -> None:
    """Never as more than was asked for, unless its least is more; the rest of `reasoning` goes along."""
    profile = Profile(reasoning=True, efforts=("low", "medium", "high"))
    told = body_of(profile=profile, reasoning={"effort": asked, "summary": "auto"})["reasoning"]
    assert told == {"effort": sent, "summary": "auto"}


@pytest.mark.parametrize(("asked", "sent"), [(1, 16), (16, 16), (400, 400)])
def test_less_than_the_minimum_is_the_minimum(asked: int, sent: int) -> None:
    """OpenAI refuses bounds under 16 tokens; clients that warm a model up ask for one."""
    assert body_of(max_output_tokens=asked)["max_output_tokens"] == sent


def test_penalties_and_stops_go_where_they_are_known() -> None:
    """They are no fields of OpenAI's, and fields of others."""
    asked = Sampling(presence_penalty=0.5, frequency_penalty=0.5, seed=0, stop=("x",))
    body = body_of(profile=ANY, sampling=asked, check=False)
    assert [body[key] for key in ("presence_penalty", "frequency_penalty", "seed", "stop")] == [0.5, 0.5, 0, ["x"]]


# Items


def test_messages_and_calls_go_without_ids() -> None:
    """An upstream without a store would look them up, or refuse ours."""
    said = text_message("Hello", phase="commentary")
    said["content"][0]["logprobs"] = [{"token": "Hello"}]
    output = {"type": "function_call_output", "id": "fco_1", "status": "completed", "call_id": "c", "output": "4"}
    call = function_call("f", "{}", "c", namespace="crm")
    body = body_of(USER, said, call, output, tools=(SPACE,))
    assert body["input"] == [
        SENT_USER,
        {
            "type": "message",
            "role": "assistant",
            "phase": "commentary",
            "content": [{"type": "output_text", "text": "Hello", "annotations": []}],
        },
        {"type": "function_call", "call_id": "c", "name": "f", "namespace": "crm", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "4"},
    ]


def test_own_reasoning_goes_back_as_it_came() -> None:
    """With the upstream's id, summary and sealed content; ORE's keys stay here."""
    item = reasoning_item("rs_up", "First.", "Second.")
    body = body_of(USER, own(item), text_message("Hello"))
    assert body["input"][1] == item


@pytest.mark.parametrize(
    "item",
    [
        own(reasoning_item("rs_up"), origin="another"),
        {"type": "reasoning", "id": "rs_1", "summary": []},
        {"type": "reasoning", "id": "rs_1", "summary": [], "state": "a signature"},
        own({"type": "reasoning", "id": "rs_up", "summary": [{"type": "summary_text", "text": "s"}]}),
    ],
)
def test_other_reasoning_stays_here(item: JsonObject) -> None:
    """Another provider's, one without state, and one that only the upstream's store could complete."""
    assert len(body_of(USER, item, text_message("Hello"))["input"]) == 2


@pytest.mark.parametrize("after", [(), (USER,)])
def test_reasoning_goes_with_what_it_led_to(after: tuple[JsonObject, ...]) -> None:
    """OpenAI refuses reasoning without its following item, as an answer that was cut off leaves it."""
    assert [item["type"] for item in body_of(USER, own(reasoning_item("rs_up")), *after)["input"]] == ["message"] * (
        1 + len(after)
    )


def test_reasoning_is_kept_from_models_that_have_none() -> None:
    """The same provider's model without reasoning could not read it."""
    assert len(body_of(USER, own(reasoning_item("rs_up")), text_message("Hello"), profile=GPT_4)["input"]) == 2


def test_hosted_items_keep_their_ids() -> None:
    """They mean something to the upstream that made them, and to answers that name them."""
    asked = {"type": "mcp_approval_request", "id": "mcpr_1", "server_label": "s", "name": "n", "arguments": "{}"}
    answer = {"type": "mcp_approval_response", "id": "item_9", "approval_request_id": "mcpr_1", "approve": True}
    body = body_of(SEARCHED, asked, answer)
    assert body["input"] == [SEARCHED, asked, {key: value for key, value in answer.items() if key != "id"}]


def test_what_an_upstream_cannot_know_is_left_out() -> None:
    """Hosted items of somebody else: without an id of the upstream's, or of tools that it does not have."""
    assert body_of({**SEARCHED, "id": "item_1"})["input"] == []
    assert body_of(SEARCHED, {"type": "novel", "id": "x"}, profile=ANY, check=False)["input"] == []
    assert body_of({"type": "novel", "id": "x"}, check=False)["input"] == [{"type": "novel", "id": "x"}]


def test_tools_in_items_are_not_sent_twice() -> None:
    """An upstream that knows such items finds them there; another is shown them with the rest."""
    added = {"type": "additional_tools", "id": "item_1", "role": "developer", "tools": [FUNCTION]}
    body = body_of(USER, added, tools=(FUNCTION,), tool_choice="auto")
    assert body["input"][1] == {key: value for key, value in added.items() if key != "id"}
    assert "tools" not in body
    plain = body_of(USER, added, tools=(FUNCTION,), profile=ANY, check=False)
    assert len(plain["input"]) == len(plain["tools"]) == 1


def test_functions_stand_for_every_call() -> None:
    """An upstream that knows functions only is shown custom, namespaced and native calls as such."""
    items = (
        text_message("So"),
        {"type": "custom_tool_call", "id": "ctc_1", "call_id": "a", "name": "sql", "input": "SELECT 1"},
        {"type": "custom_tool_call_output", "id": "x", "call_id": "a", "output": "1"},
        function_call("f", "{}", "b", namespace="crm"),
        {"type": "function_call_output", "id": "y", "call_id": "b", "output": "2"},
        {"type": "shell_call", "id": "sh_1", "call_id": "c", "action": {"commands": ["ls"]}, "status": "completed"},
        {"type": "shell_call_output", "id": "z", "call_id": "c", "output": [{"stdout": "a\n", "stderr": ""}]},
    )
    body = body_of(*items, profile=ANY, tools=(SQL, SPACE, {"type": "shell"}))
    shell = '{"commands":["ls"],"timeout_ms":null,"max_output_length":null}'
    assert body["input"] == [
        {"type": "message", "role": "assistant", "content": "So"},
        {"type": "function_call", "call_id": "a", "name": "sql", "arguments": '{"input":"SELECT 1"}'},
        {"type": "function_call_output", "call_id": "a", "output": "1"},
        {"type": "function_call", "call_id": "b", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "b", "output": "2"},
        {"type": "function_call", "call_id": "c", "name": "shell", "arguments": shell},
        {"type": "function_call_output", "call_id": "c", "output": "a"},
    ]
    assert [tool["type"] for tool in body["tools"]] == ["function"] * 3


# Tools


def test_a_grammar_is_told_where_it_cannot_be_enforced() -> None:
    """A Lark grammar has no place in a schema."""
    form = {"type": "grammar", "syntax": "lark", "definition": 'start: "x"'}
    (tool,) = body_of(tools=({**SQL, "description": "Runs SQL.", "format": form},), profile=ANY)["tools"]
    assert tool["description"] == 'Runs SQL.\nThe input must match this Lark grammar:\nstart: "x"'
    assert list(tool["parameters"]["properties"]) == ["input"]


def test_tools_of_known_types_pass_as_they_are() -> None:
    """Others are skipped; who was warned of them is told elsewhere."""
    tools = (FUNCTION, SQL, SPACE, WEB, {"type": "ore:clock"})
    assert body_of(tools=tools)["tools"] == [FUNCTION, SQL, SPACE, WEB]
    assert "tools" not in body_of(tools=(WEB,), profile=ANY)


@pytest.mark.parametrize(
    ("choice", "names", "sent"),
    [
        ("auto", ["f", "g"], None),
        ("required", ["f", "g"], "required"),
        ("none", None, None),
        ({"type": "function", "name": "g"}, ["f", "g"], {"type": "function", "name": "g"}),
        ({"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "g"}]}, ["g"], None),
        (
            {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "g"}]},
            ["g"],
            "required",
        ),
    ],
)
def test_choices_for_who_knows_functions_only(choice: Any, names: list[str] | None, sent: Any) -> None:
    """Only the allowed ones are shown, for not every upstream knows `allowed_tools`; a named one is named."""
    body = body_of(tools=(FUNCTION, {**FUNCTION, "name": "g"}), tool_choice=choice, profile=ANY)
    assert ([tool["name"] for tool in body["tools"]] if "tools" in body else None) == names
    assert body.get("tool_choice") == sent


def test_a_choice_passes_as_it_is() -> None:
    """`allowed_tools` lose what the upstream is not sent."""
    choice = {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "f"}, {"type": "ore:x"}]}
    body = body_of(tools=(FUNCTION, {"type": "ore:x"}), tool_choice=choice)
    assert body["tool_choice"] == {**choice, "tools": [{"type": "function", "name": "f"}]}


def test_a_choice_that_nothing_satisfies_is_refused() -> None:
    """As for any model that knows functions only."""
    with pytest.raises(InvalidRequest):
        body_of(tools=(WEB,), tool_choice={"type": "web_search"}, profile=ANY)


# Counting, errors, models


def test_counting_asks_for_the_same_request() -> None:
    """Its fields are those of section 14; an unknown upstream is not asked."""
    request = ModelRequest(model="gpt-5", items=(USER,), instructions="Be brief.", max_output_tokens=100)
    path, body = DIALECT.counting(request, GPT, "up") or ("", {})
    assert path == "responses/input_tokens"
    assert body == {"model": "gpt-5", "input": [SENT_USER], "instructions": "Be brief."}
    check_body(body, counting=True)
    assert DIALECT.counting(request, ANY, "up") is None
    assert DIALECT.counted(b'{"object":"response.input_tokens","input_tokens":12}') == 12
    with pytest.raises(Unintelligible):
        DIALECT.counted(b'{"detail":"?"}')


def test_listings_tell_what_they_know() -> None:
    """OpenAI tells nothing, vLLM and OpenRouter the context, another ORE everything that is to be known."""
    capabilities = {"context_window": 8192, "tools": True, "tool_types": ["function", "shell"], "reasoning": True}
    listing = {
        "data": [
            {"id": "gpt-5", "object": "model", "created": 1.0, "owned_by": "openai"},
            {"id": "qwen", "max_model_len": 32768},
            {"id": "a/b", "context_length": 65536, "owned_by": None},
            {"id": "ore-tiny", "capabilities": {**capabilities, "json_schema": True}},
            {"id": "odd", "capabilities": ["completion"], "max_model_len": "?"},
            {"name": "no id"},
        ]
    }
    ore = {"tool_types": ("function", "shell"), "context_window": 8192, "tools": True, "reasoning": True}
    silent = {"logprobs": False, "images": False, "files": False, "counts_tokens": True}
    assert DIALECT.models(msgspec.json.encode(listing)) == [
        Listed(id="gpt-5", created=1, owned_by="openai"),
        Listed(id="qwen", facts={"context_window": 32768}),
        Listed(id="a/b", facts={"context_window": 65536}),
        Listed(id="ore-tiny", facts=ore | silent),
        Listed(id="odd"),
    ]
    for name, fact in (ore | silent).items():
        assert structs.replace(ANY, **{name: fact})
    with pytest.raises(Unintelligible):
        DIALECT.models(b'{"detail":"?"}')


@pytest.mark.parametrize(
    ("model", "context", "reasoning", "sampling"),
    [
        ("gpt-5.1-codex", 400_000, True, False),
        ("gpt-5-chat-latest", 128_000, False, True),
        ("gpt-6.1-sol", None, True, False),
        ("o3-mini", 200_000, True, False),
        ("o1-mini", None, True, False),
        ("codex-mini-latest", 200_000, True, False),
        ("gpt-4.1-nano", 1_047_576, False, True),
        ("gpt-4o-mini", 128_000, False, True),
        ("ft:gpt-9", None, False, True),
    ],
)
def test_families_of_openai(model: str, context: int | None, reasoning: bool, sampling: bool) -> None:
    """What is known of a family holds for its snapshots; what is not known is not claimed."""
    profile = profile_of("openai", model)
    assert (profile.context_window, profile.reasoning, profile.sampling) == (context, reasoning, sampling)
    assert profile.tool_types is not None


def test_the_seal_of_the_test_server_is_its_own() -> None:
    """What the server checks is what it gave."""
    assert reasoning_item("rs_1")["encrypted_content"] == sealed("rs_1") != sealed("rs_2")
