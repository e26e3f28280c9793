"""Running the command line in this process, and what it must not have touched."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest
import torch

from keystep.cli.main import main

PROMPT = "a small red circle moving left slowly on a dark background"


@pytest.fixture(scope="module", autouse=True)
def _one_thread_for_modules() -> Iterator[None]:
    # Fixtures of a module run before the setting that every single test gets.
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


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
