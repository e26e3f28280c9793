"""Lists of items: good lines are read, bad ones named."""

import json

import pytest

from keystep.batch import read_items

DEFAULTS = {"method": "adacache", "options": {"depth": 0.3}, "seed": 7, "steps": 30}


@pytest.fixture
def read(tmp_path):
    def call(*lines, name="list.jsonl", defaults=DEFAULTS):
        text = [
            line
            if isinstance(line, bytes)
            else (line if isinstance(line, str) else json.dumps(line)).encode()
            for line in lines
        ]
        (tmp_path / name).write_bytes(b"\n".join(text))
        return read_items(tmp_path / name, defaults)

    return call


def test_a_line_says_only_what_differs(read):
    read_ = read({"prompt": "a"}, "", {"prompt": "b", "id": "B.1", "seed": 1, "steps": None, "guidance": 2})
    a, b = read_.items[1], read_.items[3]
    assert read_.problems == {}
    assert (a.method, a.options, a.seed, a.steps, a.guidance) == ("adacache", {"depth": 0.3}, 7, 30, None)
    assert (b.id, b.seed, b.steps, b.guidance) == ("B.1", 1, None, 2.0)


def test_options_belong_to_their_method(read):
    items = read(
        {"prompt": "a", "method": "pab"},
        {"prompt": "b", "options": {"codebook": "slow"}},
        {"prompt": "c", "options": {"depth": 0.5}, "method": "adacache"},
    ).items
    assert items[1].options == {}
    assert items[2].options == {"depth": 0.3, "codebook": "slow"}
    assert items[3].options == {"depth": 0.5}


def test_default_ids_follow_the_line_and_not_its_place_or_the_defaults(read):
    one = read({"prompt": "A cat!"}, {"prompt": "A cat!", "seed": 1}).items
    two = read("", {"seed": 1, "prompt": "A cat!"}, defaults=DEFAULTS | {"steps": 3}).items
    assert one[1].id.startswith("a-cat-")
    assert one[1].id != one[2].id == two[2].id
    assert read({"prompt": "猫"}).problems == {}


def test_a_text_file_has_a_prompt_a_line(read):
    items = read("# comment", "a cat", "  ", " a dog ", name="list.txt").items
    assert {line: item.prompt for line, item in items.items()} == {2: "a cat", 4: "a dog"}
    assert items[2].seed == 7


def test_a_byte_order_mark_is_no_part_of_the_first_line(read):
    assert read(b"\xef\xbb\xbf" + b'{"prompt": "a"}').items[1].prompt == "a"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"prompt": ', ["no JSON", "character 11"]),
        (b'{"prompt": "\xff"}', ["no UTF-8"]),
        ("3", ["given 3", "an object"]),
        ({}, ["prompt", "missing"]),
        ({"prompt": ""}, ["prompt", "''", "at least 1"]),
        ({"prompt": "a", "seedz": 3}, ["'seedz'", "did you mean seed"]),
        ('{"prompt": "a", "seed": 1, "seed": 2}', ["seed", "twice"]),
        ({"prompt": "a", "steps": "3"}, ["steps", "'3'", "integer"]),
        ({"prompt": "a", "steps": 0}, ["steps", "given 0"]),
        ({"prompt": "a", "seed": -1}, ["seed", "given -1"]),
        ({"prompt": "a", "seed": True}, ["seed", "True"]),
        ('{"prompt": "a", "guidance": NaN}', ["NaN", "finite"]),
        ({"prompt": "a", "options": [1]}, ["options", "[1]"]),
        ({"prompt": "a", "id": "../a"}, ["id", "'../a'", "letters"]),
        ({"prompt": "a", "id": ".a"}, ["id", "'.a'"]),
        ({"prompt": "a", "id": "a" * 101}, ["id", "100"]),
        ({"prompt": "a", "id": 5}, ["id", "given 5"]),
        ('{"prompt": "\\ud800"}', ["surrogate"]),
    ],
)
def test_a_bad_line_is_named_and_the_rest_read(read, line, words):
    reading = read({"prompt": "first"}, line, {"prompt": "last"})
    assert list(reading.items) == [1, 3]
    assert list(reading.problems) == [2]
    for word in words:
        assert word in reading.problems[2]


def test_a_second_use_of_an_id_is_a_problem_also_in_capitals(read):
    reading = read({"prompt": "a", "id": "x"}, {"prompt": "b", "id": "X"}, {"prompt": "a"}, {"prompt": "a"})
    assert list(reading.items) == [1, 3]
    assert "line 1" in reading.problems[2]
    assert "line 3" in reading.problems[4]


def test_without_a_method_anywhere_the_line_is_a_problem(read):
    assert "method: missing" in read({"prompt": "a"}, defaults={}).problems[1]


@pytest.mark.parametrize("name", ["list.csv", "list"])
def test_other_files_are_refused(read, name):
    with pytest.raises(ValueError, match=r"\.jsonl"):
        read("a", name=name)


def test_missing_and_empty_files_are_refused(read, tmp_path):
    with pytest.raises(ValueError, match="cannot be read"):
        read_items(tmp_path / "none.txt", DEFAULTS)
    with pytest.raises(ValueError, match="a line at least"):
        read("", "# a", name="list.txt")
