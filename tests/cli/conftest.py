"""Running the command line in this process, and what it must not have touched."""

from collections.abc import Callable
from typing import NamedTuple

import pytest

from keystep.cli.main import main

PROMPT = "a small red circle moving left slowly on a dark background"


class Result(NamedTuple):
    status: int
    out: str
    err: str


@pytest.fixture
def run(capsys) -> Callable[..., Result]:
    def call(*arguments: object) -> Result:
        capsys.readouterr()
        status = main([str(argument) for argument in arguments])
        return Result(status, *capsys.readouterr())

    return call


@pytest.fixture
def no_load(monkeypatch) -> None:
    """Fail the test when a model is loaded."""

    def load(*_: object, **__: object) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr("keystep.cli.pipeline.load_pipeline", load)
