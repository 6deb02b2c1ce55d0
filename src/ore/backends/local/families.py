"""The families of local models, a row for each: how they mark reasoning, answers and calls, and how they are known.

A model's chat template tells its family, because it must print earlier calls as the model writes them. Pure, and facts
only: a new family is a new row. It refuses to read names of models or files, which promise nothing.
"""

import re
from typing import Final

from msgspec import Struct, structs

from ore.backends.local.markup import HERMES, CallForm, Channels, Markup, Parameters

_BEFORE_NAME: Final = '{"name": "'

QWEN_CODER: Final = CallForm(
    family="qwen-coder",
    open="<tool_call>",
    before_name="\n<function=",
    before_arguments=">\n",
    after="</function>\n",
    before_raw=">\n<parameter=input>\n",
    after_raw="\n</parameter>\n</function>\n",
    close="</tool_call>",
    between="\n",
    parameters=Parameters(before_key="<parameter=", before_value=">", pad="\n", close="</parameter>"),
)
GLM: Final = CallForm(
    family="glm",
    open="<tool_call>",
    before_arguments="\n",
    before_raw="\n<arg_key>input</arg_key>\n<arg_value>",
    after_raw="</arg_value>\n",
    close="</tool_call>",
    between="\n",
    parameters=Parameters(before_key="<arg_key>", before_value="</arg_key>\n<arg_value>", close="</arg_value>"),
)
LLAMA: Final = CallForm(
    family="llama",
    open="<|python_tag|>",
    before_name=_BEFORE_NAME,
    before_arguments='", "parameters": ',
    after="}",
    before_raw='"}\n',
    whole=True,
    raw_ends=True,
)
MISTRAL_LIST: Final = CallForm(
    family="mistral-list",
    open="[TOOL_CALLS]",
    lead="[",
    before_name=_BEFORE_NAME,
    before_arguments='", "arguments": ',
    after="}",
    before_raw='"}]\n',
    close="]",
    join=", ",
    raw_ends=True,
)
GRANITE: Final = structs.replace(MISTRAL_LIST, family="granite", open="<|tool_call|>")
MISTRAL: Final = CallForm(
    family="mistral",
    open="[TOOL_CALLS]",
    before_arguments="[ARGS]",
    before_raw="[ARGS]",
    between="",
    raw_ends=True,
)
MISTRAL_IDS: Final = structs.replace(MISTRAL, family="mistral-ids", before_id="[CALL_ID]", id="[a-zA-Z0-9]{9}")
PHI: Final = structs.replace(
    HERMES, family="phi", open="<|tool_call|>", before_name=_BEFORE_NAME, after="}", close="<|/tool_call|>", between=""
)
DEEPSEEK_V31: Final = CallForm(
    family="deepseek-v3.1",
    open="<\uff5ctool\u2581calls\u2581begin\uff5c>",
    before_name="<\uff5ctool\u2581call\u2581begin\uff5c>",
    before_arguments="<\uff5ctool\u2581sep\uff5c>",
    after="<\uff5ctool\u2581call\u2581end\uff5c>",
    before_raw="<\uff5ctool\u2581sep\uff5c>",
    after_raw="<\uff5ctool\u2581call\u2581end\uff5c>",
    close="<\uff5ctool\u2581calls\u2581end\uff5c>",
    join="",
)
DEEPSEEK: Final = structs.replace(
    DEEPSEEK_V31,
    family="deepseek",
    before_name=DEEPSEEK_V31.before_name + "function<\uff5ctool\u2581sep\uff5c>",
    before_arguments="\n```json\n",
    after="\n```" + DEEPSEEK_V31.after,
    before_raw="\n```\n",
    after_raw="\n```" + DEEPSEEK_V31.after,
    join="\n",
)
KIMI: Final = CallForm(
    family="kimi",
    open="<|tool_calls_section_begin|>",
    before_name="<|tool_call_begin|>functions.",
    before_id=":",
    id="[0-9]{1,4}",
    before_arguments="<|tool_call_argument_begin|>",
    after="<|tool_call_end|>",
    before_raw="<|tool_call_argument_begin|>",
    after_raw="<|tool_call_end|>",
    close="<|tool_calls_section_end|>",
    join="",
)
GEMMA: Final = CallForm(
    family="gemma",
    open="<|tool_call>",
    before_name="call:",
    before_arguments="",
    before_raw="\n",
    after_raw="\n",
    close="<tool_call|>",
    between="",
)
FUNCTION_GEMMA: Final = structs.replace(
    GEMMA, family="function-gemma", open="<start_function_call>", close="<end_function_call>"
)
HARMONY: Final = CallForm(
    family="harmony",
    open="<|channel|>commentary to=functions.",
    before_arguments=" <|constrain|>json<|message|>",
    before_raw="<|message|>",
    close="<|call|>",
)
FORMS: Final = (
    HERMES,
    QWEN_CODER,
    GLM,
    LLAMA,
    MISTRAL_LIST,
    MISTRAL,
    MISTRAL_IDS,
    GRANITE,
    PHI,
    DEEPSEEK,
    DEEPSEEK_V31,
    KIMI,
    GEMMA,
    FUNCTION_GEMMA,
    HARMONY,
)

HARMONY_CHANNELS: Final = Channels(
    starts=("<|start|>", "<|channel|>"),
    header_end="<|message|>",
    ends=("<|end|>", "<|return|>", "<|call|>"),
    recipient=r"\bto=functions\.([\w.-]+)",
    thought="analysis",
    commentary="commentary",
    comment_open="<|channel|>commentary<|message|>",
    comment_close="<|end|>",
    answer_open="<|channel|>final<|message|>",
    answer_close="<|return|>",
    again="<|start|>assistant",
)


class _Sign(Struct, frozen=True):
    """All of `words` stand in the templates of the family."""

    form: CallForm
    words: tuple[str, ...]


_SIGNS: Final = (
    _Sign(HARMONY, ("<|channel|>", "<|message|>")),
    _Sign(MISTRAL_IDS, ("[TOOL_CALLS]", "[CALL_ID]")),
    _Sign(MISTRAL, ("[TOOL_CALLS]", "[ARGS]")),
    _Sign(MISTRAL_LIST, ("[TOOL_CALLS]",)),
    _Sign(DEEPSEEK, (DEEPSEEK.open, "```json")),
    _Sign(DEEPSEEK_V31, (DEEPSEEK.open,)),
    _Sign(KIMI, (KIMI.open,)),
    _Sign(KIMI, ("<|im_middle|>", "tool_declare")),
    _Sign(QWEN_CODER, ("<tool_call>", "<function=")),
    _Sign(GLM, ("<tool_call>", "<arg_key>")),
    _Sign(GEMMA, ("<|tool_call>",)),
    _Sign(FUNCTION_GEMMA, ("<start_function_call>",)),
    _Sign(PHI, ("<|tool_call|>", "<|/tool_call|>")),
    _Sign(GRANITE, ("<|tool_call|>",)),
    _Sign(HERMES, ("<tool_call>",)),
    _Sign(LLAMA, ("<|python_tag|>",)),
    _Sign(LLAMA, ("<|start_header_id|>", '"parameters": ')),
)
"""From the most to the least particular: the first whose words all stand in the template is taken."""

_THOUGHTS: Final = (
    ("[THINK]", "[/THINK]"),
    ("<|channel>thought", "<channel|>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<seed:think>", "</seed:think>"),
    ("<think>", "</think>"),
)
_WRAPPERS: Final = ("<response>", "</response>", "<|START_RESPONSE|>", "<|END_RESPONSE|>")
_ANALYSIS: Final = "<|channel|>analysis<|message|>"


def call_form(template: str) -> CallForm:
    """How the model of a chat template writes calls. Without a sign it is shown the Hermes form by ourselves."""
    return next((sign.form for sign in _SIGNS if all(word in template for word in sign.words)), HERMES)


def family_of(template: str) -> Markup:
    """What a chat template tells about its model's markup. Which markers are tokens only the vocabulary knows."""
    form = call_form(template)
    if form is HARMONY:
        return Markup(call=form, think_open=_ANALYSIS, think_close="<|end|>", thinks=True, channels=HARMONY_CHANNELS)
    wrappers = tuple(marker for marker in _WRAPPERS if marker in template)
    for opened, closed in _THOUGHTS:
        if opened in template or closed in template:
            return Markup(call=form, think_open=opened, think_close=closed, thinks=True, wrappers=wrappers)
    return Markup(call=form, wrappers=wrappers)


def in_prompt(markup: Markup, prompt: str) -> Markup:
    """Templates may open the think block themselves, or close it to say: do not think."""
    end = prompt[-200:].rstrip()
    if end.endswith(markup.think_open):
        return structs.replace(markup, thinks=True, thinking=True)
    if end.endswith(markup.think_close):
        return structs.replace(markup, thinks=False)
    return markup


def calls_by_nine(template: str) -> bool:
    """Whether a template takes only call ids of nine letters and digits."""
    return re.search(r"length\s*(?:!=|<|==)\s*9\b", template) is not None
