"""`keystep models`: the models that have names, and the transformer classes that can be accelerated."""

from __future__ import annotations

import typer


def models() -> None:
    """List the models that keystep knows."""
    from keystep.cli.console import print_table
    from keystep.models.catalogue import CATALOGUE
    from keystep.models.registry import SPECS
    from keystep.plan.released import BLUEPRINTS

    named = [
        (
            name,
            entry.about,
            entry.checkpoint or "ships with keystep",
            SPECS[entry.spec].transformer if entry.spec in SPECS else "",
            "yes" if name in BLUEPRINTS else "",
        )
        for name, entry in CATALOGUE.items()
    ]
    print_table(("--model", "what it is", "released weights", "transformer class", "keystep plan"), named)
    rows = [
        (
            name,
            spec.transformer + (f"\nin {spec.pipeline}" if spec.pipeline else ""),
            spec.guidance.replace(":", ": ").replace(",", ", "),
            ", ".join(spec.attention),
            ",\n".join(spec.blocks),
        )
        for name, spec in SPECS.items()
    ]
    print_table(("spec", "transformer class", "guidance", "attention", "block lists"), rows)
    typer.echo("Any pipeline with one of these transformer classes works from its hub id or folder.")
