"""What a request says to a classical model, as rows: JSON, texts and CSV. No model is needed."""

import base64
from typing import Any

import pytest

from ore.backends.base import ModelRequest
from ore.backends.classical.predictor import Feature, Predictor
from ore.backends.classical.rows import LONG, read_rows
from ore.errors import InvalidRequest

pytestmark = pytest.mark.anyio

FEATURES = (Feature("age"), Feature("city", "string"), Feature("rank", "integer", nullable=False))
TABLE = Predictor(kind="regression", predict=lambda rows: [{} for _ in rows], version="v", features=FEATURES)
TEXT = Predictor(kind="classification", predict=lambda rows: [{} for _ in rows], version="v")


def message(*parts: Any, role: str = "user") -> dict[str, Any]:
    content = [{"type": "input_text", "text": part} if isinstance(part, str) else part for part in parts]
    return {"type": "message", "role": role, "content": content}


def csv(text: str, **more: Any) -> dict[str, Any]:
    data = base64.b64encode(text.encode()).decode()
    return {"type": "input_file", "filename": "rows.csv", "file_data": f"data:text/csv;base64,{data}", **more}


async def read(*parts: Any, predictor: Predictor = TABLE, most: int = 1000) -> Any:
    request = ModelRequest(model="m", items=(message("old"), message(*parts), message("yes", role="assistant")))
    return await read_rows(request, predictor, most)


async def refused(*parts: Any, predictor: Predictor = TABLE, most: int = 1000) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        await read(*parts, predictor=predictor, most=most)
    assert caught.value.param == "input"
    return caught.value


async def test_an_object_is_a_row_and_a_list_is_a_batch() -> None:
    """Names may come in any order; lists have the order of the features."""
    one = await read('{"rank": 1, "city": "Ulm", "age": 3.5}')
    assert (one.rows, one.many) == ([(3.5, "Ulm", 1)], False)
    several = await read('[{"rank": 1, "city": null, "age": null}, [4, "Bern", 2]]')
    assert (several.rows, several.many) == ([(None, None, 1), (4, "Bern", 2)], True)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Hello", "is not JSON"),
        ("[]", "no rows"),
        ("3", "The row is an integer"),
        ('{"age": 1, "town": "Ulm"}', "lacks 'city', 'rank' and has 'town', which this model does not know"),
        ('[[1, "a", 2], [1]]', "Row 2 has 1 values instead of 3"),
    ],
)
async def test_a_wrong_shape_is_told_what_is_expected(text: str, said: str) -> None:
    fault = await refused(text)
    assert said in fault.message
    assert "age (number), city (string), rank (integer)" in fault.message


@pytest.mark.parametrize(
    ("age", "city", "rank", "said"),
    [
        ('"1"', '"a"', "1", "'age' of type a string, and this model needs a finite number or null"),
        ("true", '"a"', "1", "'age' of type a boolean"),
        ("1" + "0" * 400, '"a"', "1", "'age'"),
        ("1", "2", "1", "'city' of type an integer"),
        ("1", '"a"', "1.5", "'rank' of type a number, and this model needs an integer there"),
        ("1", '"a"', "null", "'rank' of type null"),
        ("1", '"a"', "9223372036854775808", "'rank'"),
        ("[1]", '"a"', "1", "'age' of type an array"),
    ],
)
async def test_a_wrong_type_is_named(age: str, city: str, rank: str, said: str) -> None:
    assert said in (await refused(f'[{{"age": {age}, "city": {city}, "rank": {rank}}}]')).message


async def test_a_text_is_a_text_and_an_array_of_strings_a_batch() -> None:
    """Brackets alone make no batch."""
    assert (await read("Hello", "there", predictor=TEXT)).rows == ["Hello\nthere"]
    assert (await read(' ["a", "b"]', predictor=TEXT)).rows == ["a", "b"]
    for text in ("[sic] he said", "[1, 2]"):
        one = await read(text, predictor=TEXT)
        assert (one.rows, one.many) == ([text], False)


async def test_csv_is_a_batch() -> None:
    """Columns in any order, quoted cells, blank lines, empty cells as missing values; text beside it is not read."""
    rows = await read("Rate these", csv('\ufeffcity,rank, age \n"Ulm, Donau",1,3.5\n\n,2,\n'))
    assert (rows.rows, rows.many) == ([(3.5, "Ulm, Donau", 1), (None, None, 2)], True)
    assert (await read(csv("text,id\nhello,1\n"), predictor=TEXT)).rows == ["hello"]
    assert (await read(csv("review\nhello\n"), predictor=TEXT)).rows == ["hello"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("age,city\n1,a\n", "The file lacks 'rank'"),
        ("age,city,rank,extra\n1,a,1,1\n", "The file has 'extra'"),
        ("age,city,rank,rank\n1,a,1,1\n", "two columns of one name"),
        ("age,city,rank\n1,a\n", "Line 2 of the file has 2 cells instead of 3"),
        ("age,city,rank\nx,a,1\n", "Row 1 of the file has 'age' of type a string"),
        ("age,city,rank\n1_000,a,1\n", "'age' of type a string"),
        ("age,city,rank\ninf,a,1\n", "'age'"),
        ("age,city,rank\n", "no rows"),
        ("", "lacks"),
        ('age,city,rank\n"1', "neither CSV"),
    ],
)
async def test_a_wrong_csv_is_refused(text: str, said: str) -> None:
    assert said in (await refused(csv(text))).message


async def test_rows_are_bounded() -> None:
    """In JSON and in files; long input is read beside the event loop, with the same outcome."""
    assert "at a time" in (await refused("[" + ",".join(["[1,null,1]"] * 11) + "]", most=10)).message
    assert "more than 10 rows" in (await refused(csv("age,city,rank\n" + "1,,1\n" * 11), most=10)).message
    text = "[" + ",".join(["[1,null,1]"] * (LONG // 8)) + "]"
    assert len((await read(text, most=LONG)).rows) == LONG // 8


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ({"type": "input_image", "image_url": "data:image/png;base64,aaaa"}, "no parts of type 'input_image'"),
        ({"type": "input_file", "file_id": "file_1"}, "Send 'file_data'"),
        (csv("", file_data="data:text/csv,a"), "without base64"),
        (csv("", file_data="data:text/csv;base64,ä"), "not base64"),
        (csv("", file_data="//79"), "neither CSV"),
    ],
)
async def test_other_parts_are_refused(part: dict[str, Any], said: str) -> None:
    assert said in (await refused(part)).message


async def test_one_file_at_a_time() -> None:
    assert "one file at a time" in (await refused(csv("a\n1\n"), csv("a\n1\n"))).message


async def test_base64_alone_is_a_file_too() -> None:
    part = csv("", file_data=base64.b64encode(b"age,city,rank\n1,a,1\n").decode())
    assert (await read(part)).rows == [(1.0, "a", 1)]


async def test_a_request_without_a_user_has_no_rows() -> None:
    with pytest.raises(InvalidRequest):
        await read_rows(ModelRequest(model="m", items=(message("x", role="system"),)), TABLE, 10)
