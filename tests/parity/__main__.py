"""Run every case in a goldens folder: `python -m tests.parity DIR`; exit status 1 on any failure."""

from __future__ import annotations

import argparse
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from keystep import KeystepWarning

from . import (
    bands,
    forward,
    opensora_cached,
    opensora_plan,
    opensora_text,
    opensora_vae,
    pending,
    rflow,
    stdit3,
    trajectory,
    units,
    vchitect,
    vectors,
)
from .folder import folders
from .report import Case, Result

KINDS = (
    vchitect,  # before the kinds that take any file of such a name
    forward,
    trajectory,
    vectors,
    units,
    bands,
    opensora_text,
    opensora_vae,
    opensora_cached,
    opensora_plan,
    stdit3,
    rflow,
)


def find_cases(root: Path) -> Iterator[Case]:
    """All cases under a folder; a file belongs to the first kind that finds it."""
    for folder, label in folders(root):
        cases: list[Case] = []
        for kind in KINDS:
            known = {case.path for case in cases}
            cases += [case for case in kind.find(folder, label) if case.path not in known]
        taken = {case.path for case in cases} | {case.path.with_suffix(".safetensors") for case in cases}
        yield from cases
        yield from pending.find(folder, label, taken)


def run_all(root: Path, only: str = "") -> list[Result]:
    """Run the cases whose name contains `only`, printing a line per result as it comes."""
    cases = [case for case in find_cases(root) if only in case.name]
    width = max((len(case.name) for case in cases), default=0) + len(" pipeline rows computed")
    results = []
    for case in cases:
        for result in case.results():
            print(result.line(width), flush=True)
            results.append(result)
    return results


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0 if something was run and nothing failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.parity", description=__doc__)
    parser.add_argument("folder", type=Path, help="walked recursively")
    parser.add_argument("--only", default="", help="run only cases whose name contains this")
    options = parser.parse_args(arguments)
    if not options.folder.is_dir():
        parser.error(f"{options.folder}: not a folder")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", KeystepWarning)  # a short run may have nothing to skip
        results = run_all(options.folder, options.only)
    counts = Counter(result.status for result in results)
    print(f"{counts['ok']} ok, {counts['FAIL']} failed, {counts['n/a']} not run")
    if not results:
        print(f"no cases found in {options.folder}")
    return 0 if counts["ok"] and not counts["FAIL"] else 1


if __name__ == "__main__":
    torch.set_num_threads(1)  # the networks are tiny
    raise SystemExit(main())
