from dataclasses import dataclass, fields

from keystep.cli.methods import read_attributes
from keystep.methods import METHODS, MoReg
from keystep.models.registry import SPECS


def test_every_method_is_listed_with_its_paper(run):
    result = run("methods")
    assert result.status == 0
    for name, entry in METHODS.items():
        assert name in result.out
        assert entry.cls.citation in result.out


def test_a_method_shows_every_option_with_default_and_meaning(run):
    for name, entry in METHODS.items():
        result = run("methods", name)
        assert result.status == 0
        meanings = read_attributes(entry.cls)
        for option in (field.name for field in fields(entry.cls)):
            assert meanings[option], f"{entry.cls.__name__}.{option} is not explained"
            assert option in result.out


def test_options_that_a_name_implies_are_its_defaults(run):
    def row(name):
        return next(
            line for line in run("methods", name).out.splitlines() if "moreg " in line and "│" in line
        )

    assert "False" in row("adacache").split("│")[2]
    assert "True" in row("adacache+moreg").split("│")[2]


def test_options_in_options_are_explained_too(run):
    result = run("methods", "adacache")
    assert "--set 'moreg={" in result.out
    for field in fields(MoReg):
        assert read_attributes(MoReg)[field.name]
        assert field.name in result.out


def test_every_model_is_listed(run):
    result = run("models")
    assert result.status == 0
    for name, spec in SPECS.items():
        assert name in result.out
        assert spec.transformer in result.out


def test_meanings_come_from_the_docstring():
    @dataclass
    class Knobs:
        """Does things.

        Attributes:
            a: first: with a colon
                and a second line.
            b, c: both.

        Raises:
            ValueError: never.
        """

    assert read_attributes(Knobs) == {
        "a": "first: with a colon and a second line.",
        "b": "both.",
        "c": "both.",
    }
