"""Static: the schedule that hurts the final video least, found offline on prompts of one's own.

The idea is LeMiCa's, "LeMiCa: Lexicographic Minimax Path Caching for Efficient Diffusion-Based Video
Generation", arXiv 2511.00090 (NeurIPS 2025): a run is a path through a graph whose edges are stretches of
skipped evaluations, each weighed by what skipping it alone does to the final output; of all paths with as
many computed evaluations as the budget allows, take the one whose worst edge is best, among those the one
whose second worst is best, and so on.

Built from the paper. The weight is its L1 change of the final output, here of the latent, relative to the
latent's size and averaged over all prompts. Ours: stretches that are longer than `--max-gap` are no edges;
the first and the last evaluation are computed; runs of another length use the same places of the run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from keystep.errors import require
from keystep.how import Hold
from keystep.methods.cfg import add_cfg
from keystep.methods.measured import missing_measurement, read_measured
from keystep.policy import Policy, Rule
from keystep.what import Span
from keystep.when import Mask

# Measured with `keystep calibrate` on models that ship with keystep, on development prompts.
SHIPPED = Path(__file__).parent / "schedules"

Edge = tuple[int, int]  # two computed evaluations (1-based) with nothing computed between them


@dataclass(frozen=True)
class Static:
    """Skips the whole stack by a fixed schedule that was found offline to change the final video least.

    Attributes:
        schedule: a file written by `keystep calibrate --method static`; None = the one that ships with
            keystep for this model.
        compute: part of the evaluations that is computed (lower = faster).
        cfg: whether the unconditional branch is rebuilt too (CFG-Cache).
    """

    schedule: str | None = None
    compute: float = 0.5
    cfg: bool = False

    citation: ClassVar[str] = "after LeMiCa (NeurIPS 2025), https://arxiv.org/abs/2511.00090"

    def __post_init__(self) -> None:
        require(0 < self.compute <= 1, "static.compute", self.compute, "a part of the run above 0, up to 1")

    def policy(self, model: str, num_evaluations: int) -> Policy:
        """The policy for a model (`ModelSpec.name`) and a run of `num_evaluations`.

        Raises:
            ValueError: there is no file, or it is of another model.
        """
        path = SHIPPED / f"{model}.json" if self.schedule is None else Path(self.schedule)
        if self.schedule is None and not path.is_file():
            raise missing_measurement("static.schedule", "static", model)
        measured = read_measured("static.schedule", "static", path)
        require(
            measured.model == model, "static.schedule", measured.model, f"a schedule of the model {model}"
        )
        native = measured.num_evaluations
        errors = {read_edge(name): error for name, error in measured.values.items()}
        keys = find_path(errors, native, max(1, round(self.compute * native)))
        letters = ["s"] * num_evaluations
        for key in keys:
            letters[round((key - 1) * (num_evaluations - 1) / max(1, native - 1))] = "C"
        notes = ()
        if num_evaluations != native:
            notes = (f"measured for {native} evaluations, the same places of the run are computed",)
        policy = Policy((Rule(Span(), Mask("".join(letters)), Hold()),), "static", notes)
        return add_cfg(policy, model, num_evaluations) if self.cfg else policy


def name_edge(edge: Edge) -> str:
    """An edge as a key of a file, "3-7"."""
    return f"{edge[0]}-{edge[1]}"


def read_edge(name: str) -> Edge:
    """The edge of a key."""
    begin, _, end = name.partition("-")
    return int(begin), int(end)


def find_path(errors: Mapping[Edge, float], num_evaluations: int, num_computed: int) -> list[int]:
    """The computed evaluations of the lexicographic minimax path from the first to the last evaluation.

    Args:
        errors: edge -> what skipping all between its ends does to the result; the edges from an evaluation to
            the next skip nothing and cost nothing, they need not be there.
        num_evaluations: N.
        num_computed: evaluations on the path, both ends included; where no path has so few, the fewest.

    Returns:
        Evaluations, rising, from 1 to N.
    """
    edges = {(k, k + 1): 0.0 for k in range(1, num_evaluations)} | dict(errors)
    # best path to each node by number of nodes: its errors, largest first, and itself. Errors of paths with
    # equally many edges stay in order when one edge is added to both, so the best of the best is found.
    best: list[dict[int, tuple[tuple[float, ...], tuple[int, ...]]]] = [{1: ((), (1,))}]
    while len(best) < num_computed or num_evaluations not in best[-1]:
        longer: dict[int, tuple[tuple[float, ...], tuple[int, ...]]] = {}
        for (begin, end), error in edges.items():
            if begin in best[-1]:
                before, path = best[-1][begin]
                candidate = (tuple(sorted((*before, error), reverse=True)), (*path, end))
                longer[end] = min(candidate, longer.get(end, candidate))
        best.append(longer)
    return list(best[-1][num_evaluations][1])
