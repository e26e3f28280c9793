"""Methods by name, and their options checked."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from keystep.errors import unknown
from keystep.methods.adacache import AdaCache
from keystep.methods.auto import Auto
from keystep.methods.cfg import CFG
from keystep.methods.dbcache import DBCache
from keystep.methods.dicache import DiCache
from keystep.methods.easycache import EasyCache
from keystep.methods.fastercache import FasterCache
from keystep.methods.fbcache import FBCache
from keystep.methods.fora import FORA
from keystep.methods.magcache import MagCache
from keystep.methods.pab import PAB
from keystep.methods.seacache import SeaCache
from keystep.methods.static import Static
from keystep.methods.taylorseer import TaylorSeer
from keystep.methods.teacache import TeaCache

if TYPE_CHECKING:
    from keystep.engine.method import Method


@dataclass(frozen=True)
class Entry:
    """A method under a name: its class and the options the name implies."""

    cls: type[Any]  # a frozen dataclass with `policy(model, num_evaluations)`
    options: dict[str, Any]


METHODS: dict[str, Entry] = {
    "auto": Entry(Auto, {}),
    "fastercache": Entry(FasterCache, {}),
    "adacache": Entry(AdaCache, {}),
    "adacache+moreg": Entry(AdaCache, {"moreg": True}),
    "pab": Entry(PAB, {}),
    "teacache": Entry(TeaCache, {}),
    "fbcache": Entry(FBCache, {}),
    "dbcache": Entry(DBCache, {}),
    "fora": Entry(FORA, {}),
    "taylorseer": Entry(TaylorSeer, {}),
    "easycache": Entry(EasyCache, {}),
    "dicache": Entry(DiCache, {}),
    "seacache": Entry(SeaCache, {}),
    "magcache": Entry(MagCache, {}),
    "static": Entry(Static, {}),
}
# CFG-Cache beside each of them: "teacache+cfg" and so on.
METHODS |= {
    f"{name}{CFG}": Entry(entry.cls, entry.options | {"cfg": True})
    for name, entry in METHODS.items()
    if entry.cls not in (FasterCache, Auto)
}


def list_names() -> str:
    """All names in a line: the twins with CFG-Cache would double it, so they are mentioned, not listed."""
    names = sorted(name for name in METHODS if not name.endswith(CFG))
    alone = [name for name in names if f"{name}{CFG}" not in METHODS]
    return f"{', '.join(names)}; all but {' and '.join(alone)} with {CFG} too"


def unknown_method(name: str) -> ValueError:
    """A `ValueError` for a name that is no method's, with near misses of all names."""
    return unknown("method", name, METHODS, list_names())


def build(name: str, **options: Any) -> Method:
    """A method by name, its options checked for names, types and ranges.

    Options may be strings where they come from a command line (`"5"` for 5, `"false"` for False).

    Raises:
        ValueError: unknown method or option (with near misses), or a value that is not allowed.
    """
    if name not in METHODS:
        raise unknown_method(name)
    entry = METHODS[name]
    known = [field.name for field in fields(entry.cls)]
    for option in options:
        if option not in known:
            raise unknown(f"option of {name}", option, known)
    try:
        return TypeAdapter[Any](entry.cls).validate_python(entry.options | options)
    except ValidationError as error:
        raise ValueError(_explain(name, error)) from None


def check_options(method: Method) -> Method:
    """A method object with its options checked as `build` checks them; any other object as it is.

    Raises:
        ValueError: a value that is not allowed.
    """
    name = next((name for name, entry in METHODS.items() if entry.cls is type(method)), None)
    if name is None:
        return method
    return build(name, **{field.name: getattr(method, field.name) for field in fields(METHODS[name].cls)})


def _explain(name: str, error: ValidationError) -> str:
    """The complaint that says most, in one line: of an option that may be several things, the named field."""
    problems = error.errors()
    strays = [problem for problem in problems if problem["type"] == "unexpected_keyword_argument"]
    if strays:
        *path, field = (str(part) for part in strays[0]["loc"])
        return f"{'.'.join([name, *path[:1]])}: it has no field {field!r}"
    problem = problems[0]
    if problem["type"] == "value_error":
        return str(problem.get("ctx", {}).get("error", problem["msg"]))
    where = ".".join([name, *(str(part) for part in problem["loc"][:1])])
    return f"{where}: given {problem['input']!r}, allowed: {problem['msg']}"
