"""The wire vocabulary: Open Responses 2026-04-24 and the OpenAI Responses API around it.

File names are the specification's. `UNSET` means that a key is absent, `None` that it is present and null (wire
contract, 4.2). What clients send is kept as plain JSON objects, checked at the door and never rebuilt, so that unknown
fields and unknown item types survive as they came; structs describe what ORE itself says.
"""

OPEN_RESPONSES_RELEASE = "2026-04-24"
