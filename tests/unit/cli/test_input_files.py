"""Files of processed ids: good lines are read, bad lines are refused with their number."""

import pytest

from gapless.cli.input_files import BadLines, LineInvalid, read_rows


def read(text: str, *, format_: str = "auto", skip: bool = False) -> list[dict[str, object]]:
    return list(read_rows(text.splitlines(keepends=True), format_, BadLines(skip=skip)))


def keys(text: str) -> list[object]:
    return [row["key"] for row in read(text)]


@pytest.mark.parametrize(
    "text",
    [
        "evt_1\nevt_2\n",
        "id\nevt_1\nevt_2\n",
        "Amount,Event ID\n12,evt_1\n7,evt_2\n",
        'key,note\nevt_1,"a, b"\nevt_2,\n',
        '{"id": "evt_1"}\n\n{"key": "evt_2", "more": [1]}\n',
        "  evt_1  \r\n\r\nevt_2",
    ],
)
def test_ids_are_found_in_every_kind_of_file(text: str) -> None:
    assert keys(text) == ["evt_1", "evt_2"]


def test_an_empty_file_is_told() -> None:
    with pytest.raises(LineInvalid, match="the file is empty"):
        read("")
    assert read("id,type\n") == []


def test_types_and_times_are_read_where_given() -> None:
    assert read("id,type,created\nevt_1,invoice.paid,1767225600\nevt_2,,2026-01-01T01:00:00+01:00\n") == [
        {"key": "evt_1", "type": "invoice.paid", "occurred_at": "2026-01-01T00:00:00+00:00"},
        {"key": "evt_2", "occurred_at": "2026-01-01T01:00:00+01:00"},
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"id": "evt_1"}\n{"type": "x"}\n', "line 2: it names no event"),
        ('{"id": 7}\n', "line 1: it names no event"),
        ('{"id": "evt_1"}\n[1]\n', "line 2: it is list; wanted an object with an id"),
        ('{"id": "evt_1"}\n{"id"\n', "line 2: "),
        ('{"id": "evt_1"}\n{"id": "evt_2", "x": ' + "[" * 5_000 + "]" * 5_000 + "}\n", "line 2: it is nested too deep"),
        ("id,type\nevt_1,x\n,y\n", "line 3: it names no event"),
        ("id,created\nevt_1,soon\n", "line 2: 'soon' is no time"),
        ("id,created\nevt_1,99999999999999999999\n", "line 2: '99999999999999999999' is no time"),
    ],
)
def test_a_bad_line_is_refused_with_number_and_next_step(text: str, message: str) -> None:
    with pytest.raises(LineInvalid) as caught:
        read(text)
    assert message in caught.value.message
    assert "--skip-bad" in caught.value.message


def test_bad_lines_are_skipped_and_counted_on_request(capsys: pytest.CaptureFixture[str]) -> None:
    bad = BadLines(skip=True)
    lines = ["id,type\n", *["evt_1,x\n", ",y\n"] * 5]
    assert [row["key"] for row in read_rows(lines, "csv", bad)] == ["evt_1"] * 5
    assert bad.count == 5
    assert capsys.readouterr().err.count("skipped line") == 3
