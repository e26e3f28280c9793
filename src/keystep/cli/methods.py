"""`keystep methods`: what each method does, its paper, its knobs and their defaults."""

from __future__ import annotations

import inspect
import re
import textwrap
from dataclasses import MISSING, fields, is_dataclass
from typing import Annotated, Any, get_args, get_type_hints

import typer

_ENTRY = re.compile(r"^(\w+(?:, \w+)*): (.*)$")
HEADINGS = ("option", "default", "meaning")


def methods(
    name: Annotated[str | None, typer.Argument(help="Show one method with all its options.")] = None,
) -> None:
    """List the methods, or explain one."""
    from keystep.cli.console import print_table
    from keystep.methods.cfg import CFG
    from keystep.methods.registry import METHODS, unknown_method

    if name is None:
        rows = [
            (key, describe(entry.cls, entry.options), entry.cls.citation)
            for key, entry in METHODS.items()
            if not key.endswith(CFG)
        ]
        print_table(("method", "what it does", "paper"), rows)
        typer.echo(f"With CFG-Cache beside them: {', '.join(key for key in METHODS if key.endswith(CFG))}.")
        typer.echo("`keystep methods NAME` lists the options of one; --set KEY=VALUE changes them.")
        return
    if name not in METHODS:
        raise unknown_method(name)
    _explain(name, METHODS[name].cls, METHODS[name].options)


def _explain(name: str, cls: type[Any], implied: dict[str, Any]) -> None:
    from keystep.cli.console import out_console, print_table

    text = f"{name}\n{describe(cls, implied)}\n{cls.citation}"
    out_console().print(text, markup=False, highlight=False)
    print_table(HEADINGS, list_options(cls, implied))
    for option, group in find_groups(cls).items():
        print_table(HEADINGS, list_options(group, {}), title=f"--set '{option}={{\"OPTION\": VALUE, ...}}'")


def describe(cls: type[Any], implied: dict[str, Any]) -> str:
    """First line of a method's docstring, and the options that its name implies."""
    first = (inspect.getdoc(cls) or "").split("\n")[0]
    options = ", ".join(f"{key}={value}" for key, value in implied.items())
    return f"{first} With {options}." if options else first


def list_options(cls: type[Any], implied: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Name, default and meaning of every field; an implied value stands in for the default."""
    meanings = read_attributes(cls)
    return [
        (field.name, repr(implied.get(field.name, _default(field))), meanings.get(field.name, ""))
        for field in fields(cls)
    ]


def find_groups(cls: type[Any]) -> dict[str, type[Any]]:
    """Fields that can hold a dataclass with options of its own, with that class."""
    hints = get_type_hints(cls)
    return {
        field.name: kind
        for field in fields(cls)
        for kind in get_args(hints[field.name])
        if isinstance(kind, type) and is_dataclass(kind)
    }


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


def _default(field: Any) -> Any:
    return field.default_factory() if field.default is MISSING else field.default
