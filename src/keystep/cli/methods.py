"""`keystep methods`: what each method does, its paper, its knobs and their defaults."""

from __future__ import annotations

import inspect
import re
import textwrap
from dataclasses import MISSING, fields
from typing import Annotated, Any

import typer

_ENTRY = re.compile(r"^(\w+(?:, \w+)*): (.*)$")


def methods(
    name: Annotated[str | None, typer.Argument(help="Show one method with all its options.")] = None,
) -> None:
    """List the methods, or explain one."""
    from keystep.cli.console import print_table
    from keystep.errors import unknown
    from keystep.methods import METHODS

    if name is None:
        rows = [(key, _first_line(entry.cls), entry.cls.citation) for key, entry in METHODS.items()]
        print_table(("method", "what it does", "paper"), rows)
        typer.echo("`keystep methods NAME` lists the options of one; --set KEY=VALUE changes them.")
        return
    if name not in METHODS:
        raise unknown("method", name, METHODS)
    _explain(name, METHODS[name].cls, METHODS[name].options)


def _explain(name: str, cls: type[Any], implied: dict[str, Any]) -> None:
    from keystep.cli.console import out_console, print_table

    out_console().print(f"{name}\n{_first_line(cls)}\n{cls.citation}", markup=False, highlight=False)
    meanings = read_attributes(cls)
    rows = [
        (field.name, repr(implied.get(field.name, _default(field))), meanings.get(field.name, ""))
        for field in fields(cls)
    ]
    print_table(("option", "default", "meaning"), rows)


def _default(field: Any) -> Any:
    return field.default_factory() if field.default is MISSING else field.default


def _first_line(cls: type[Any]) -> str:
    return (inspect.getdoc(cls) or "").split("\n")[0]


def read_attributes(cls: type[Any]) -> dict[str, str]:
    """Meanings of a class's fields, from the `Attributes:` part of its docstring."""
    _, _, text = (inspect.getdoc(cls) or "").partition("Attributes:\n")
    meanings: dict[str, str] = {}
    names: list[str] = []
    for line in textwrap.dedent(text.split("\n\n")[0]).split("\n"):
        entry = _ENTRY.match(line)
        if entry:
            names = entry[1].split(", ")
            meanings |= dict.fromkeys(names, entry[2])
        else:
            meanings |= {name: f"{meanings[name]} {line.strip()}" for name in names}
    return meanings
