"""`adacache_vectors*.json`: AdaCache's controller replayed on recorded distances, without tensors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from keystep.methods.adacache import BOOKS
from keystep.when import Codebook, CodebookState, MotionRegularisation

from .folder import read_json
from .report import Case, Result

FLOAT = 1e-9  # replayed in double precision; recorded inputs have nine decimals
INFINITE = float("inf")  # a decision that differs
NAMES = {"30-fast": "fast", "30-slow": "slow", "100": "fast-100"}


def find(folder: Path, label: str) -> Iterator[Case]:
    """The vector files of a folder."""
    for path in sorted(folder.glob("adacache_vectors*.json")):
        yield Case(label + path.stem, path, run)


def run(name: str, path: Path) -> Iterator[Result]:
    """One result per vector."""
    for vector in read_json(path):
        yield replay(f"{name} {vector['name']}", vector)


def controller(vector: dict[str, Any]) -> Codebook:
    """The controller a vector was made with."""
    book = vector["codebook"]
    if isinstance(book, str):
        entries, otherwise = BOOKS[NAMES.get(book, book)].entries, BOOKS[NAMES.get(book, book)].otherwise
    else:
        pairs = list(book.items()) if isinstance(book, dict) else book
        # the last threshold of a reference codebook is never compared
        entries = tuple((float(threshold), int(rate)) for threshold, rate in pairs[:-1])
        otherwise = int(pairs[-1][1])
    if not vector.get("window"):
        return Codebook(entries, otherwise)
    pivot, exponent, divisor = vector["hyp"][:3]
    first, last = vector["window"]
    moreg = MotionRegularisation(
        first, last, pivot=pivot, exponent=exponent, divisor=divisor, gradient=vector["grad_mul"]
    )
    return Codebook(entries, otherwise, moreg=moreg)


def replay(name: str, vector: dict[str, Any]) -> Result:
    """Computed steps, rates and all logged numbers; anything discrete that differs is an infinite error."""
    codebook = controller(vector)
    state = replace(codebook.begin(vector["N"]), level=vector["prev_moreg_in"])
    computed, errors, rows = [], [0.0], {row["step"]: row for row in vector["log"]}
    for step in (s for s in range(1, vector["N"] + 1) if codebook.plan(state, s) == "compute"):
        computed.append(step)
        if step == 1:
            state = codebook.update(state, step, True, {})
            continue
        key = f"{state.computed}->{step}"
        if key not in vector["raw_distance"] or step not in rows:
            return Result(name, INFINITE, FLOAT, f"computes step {step}, the vector does not")
        measured = measurements(codebook, vector, step, key)
        errors += differences(codebook, state, rows[step], measured)
        state = codebook.update(state, step, True, measured)
        if state.rate != rows[step]["rate"]:
            note = f"rate {state.rate} at step {step}, not {rows[step]['rate']}"
            return Result(name, INFINITE, FLOAT, note)
    errors.append(abs(state.level - vector["prev_moreg_out"]) / amplification(codebook))
    note = f"{len(computed)} of {vector['N']} steps computed"
    if computed != vector["computed"]:
        return Result(name, INFINITE, FLOAT, f"{note}, not the recorded ones")
    return Result(name, max(errors), FLOAT, note)


def measurements(codebook: Codebook, vector: dict[str, Any], step: int, key: str) -> dict[str, float]:
    """What the signals would have measured."""
    measured = {codebook.distance.name: vector["raw_distance"][key]}
    if codebook.moreg is not None:
        measured[codebook.moreg.motion.name] = vector["motion"][str(step)]
    return measured


def amplification(codebook: Codebook) -> float:
    """How much larger an error of an input arrives in the factor, near the pivot."""
    moreg = codebook.moreg
    return 1.0 if moreg is None else moreg.exponent * (1 + moreg.gradient) / moreg.pivot


def differences(
    codebook: Codebook, state: CodebookState, row: dict[str, Any], measured: dict[str, float]
) -> list[float]:
    """Logged against replayed numbers: gap, distance; factor (`moreg`) and its gradient part (`mograd`)."""
    distance = measured[codebook.distance.name] / state.rate
    pairs = [(row["prev"], state.computed), (row["div"], state.rate), (row["d"], distance)]
    errors = [abs(theirs - ours) for theirs, ours in pairs]
    if codebook.moreg is None:
        return [*errors, abs(row["d_reg"] - distance)]
    motion = measured[codebook.moreg.motion.name]
    factor, level = codebook.moreg.factor(motion, state.level, state.rate, row["step"])
    pairs = [(row["moreg"], factor), (abs(row["mograd"]), factor - level), (row["d_reg"], distance * factor)]
    return errors + [abs(theirs - ours) / amplification(codebook) for theirs, ours in pairs]
