"""Search the settings of a policy on prompts of one's own: what little compute buys how much likeness."""

from keystep.tune.front import Score, Tried, choose, find_front
from keystep.tune.plain import PlainVideos
from keystep.tune.search import Search, Task
from keystep.tune.space import parse_knobs, with_values

__all__ = [
    "PlainVideos",
    "Score",
    "Search",
    "Task",
    "Tried",
    "choose",
    "find_front",
    "parse_knobs",
    "with_values",
]
