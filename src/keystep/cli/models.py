"""`keystep models`: which transformers can be accelerated, and where work can be skipped in them."""

from __future__ import annotations

import typer


def models() -> None:
    """List the models that keystep knows."""
    from keystep.cli.console import print_table
    from keystep.models.registry import SPECS

    rows = [
        (
            name,
            spec.transformer + (f" in {spec.pipeline}" if spec.pipeline else ""),
            spec.guidance.replace(":", ": ").replace(",", ", "),
            ", ".join(spec.attention),
            ", ".join(spec.blocks),
        )
        for name, spec in SPECS.items()
    ]
    print_table(("model", "transformer class", "guidance", "attention", "block lists"), rows)
    typer.echo(
        "A pipeline with one of these classes works from a hub id or a folder; `toy` ships with keystep."
    )
