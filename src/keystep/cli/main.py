"""Entry point of the `keystep` command: the subcommands, and what a user sees of an error."""

from __future__ import annotations

import sys
import traceback
import warnings
from collections.abc import Sequence
from importlib.metadata import version
from itertools import pairwise
from typing import Annotated

import typer
from rich.markup import escape

from keystep.cli import ranks
from keystep.cli.batch import batch
from keystep.cli.bench import bench
from keystep.cli.calibrate import calibrate
from keystep.cli.compare import compare
from keystep.cli.console import err_console
from keystep.cli.demo import demo
from keystep.cli.generate import generate
from keystep.cli.methods import methods
from keystep.cli.models import models
from keystep.cli.plan import plan
from keystep.cli.tune import tune

OK, INTERNAL_ERROR, USER_ERROR, INTERRUPTED = 0, 1, 2, 130
DEBUG_FLAG = "--debug"

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Start here: [bold]keystep demo[/]",
)


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        typer.echo(f"keystep {version('keystep')}")
        raise typer.Exit()


@app.callback()
def _describe(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[
        bool, typer.Option(DEBUG_FLAG, help="On an error, show the traceback; may stand anywhere.")
    ] = False,
) -> None:
    """Accelerate video diffusion transformers: compute the key steps, reuse the rest."""
    del show_version, debug


_EXAMPLES = {
    demo: (
        "keystep demo --out demo\n\n"
        "keystep demo --quick --prompt 'a large blue cross orbiting slowly on a grey background'"
    ),
    generate: (
        "keystep generate --model toy --method adacache"
        " --prompt 'a small red circle moving left slowly on a dark background' --out circle.mp4\n\n"
        "keystep generate --model THUDM/CogVideoX-2b --method fastercache --prompt 'a panda playing guitar'"
        " --steps 50 --dtype bfloat16 --device cuda --out panda.mp4\n\n"
        "keystep generate --model opensora-1.2 --resolution 720p --aspect 9:16 --seconds 2 --method adacache"
        " --load source=/data/OpenSora-STDiT-v3 --load text_encoder=/data/t5-v1_1-xxl"
        " --dtype bfloat16 --device cuda --prompt ... --out video.mp4\n\n"
        "keystep generate --model toy --policy policy.toml --prompt ... --trace trace.json --out video.mp4"
        "\n\ntorchrun --nproc-per-node 2 -m keystep generate --model toy --method adacache --prompt ..."
        " --out video.mp4"
    ),
    compare: (
        "keystep compare --model toy --methods fastercache,adacache --prompts prompts.txt --out results\n\n"
        "keystep compare --model toy --methods adacache --policy mine.toml --prompts prompts.txt"
        " --seeds 0,1 --pairs 3 --out results"
    ),
    batch: (
        "keystep batch prompts.jsonl --model toy --method adacache --workers 2 --out videos\n\n"
        "keystep batch prompts.txt --model cogvideox-2b --method fastercache --steps 50 --dtype bfloat16"
        " --device cuda --ray auto --out videos"
    ),
    bench: (
        "keystep bench --quick --out bench-quick\n\n"
        "keystep bench --out results --parts quality --models toy --methods adacache,teacache"
        " --rivals diffusers,fewer-steps"
    ),
    plan: (
        "keystep plan --model opensora-1.2 --resolution 720p --aspect 9:16 --seconds 2\n\n"
        "keystep plan --model wan-2.1-14b --frames 81 --methods adacache,fastercache --json"
    ),
    calibrate: (
        "keystep calibrate --model toy --method magcache --prompts prompts.txt --out ratios.json\n\n"
        "keystep calibrate --model latte --method static --prompts prompts.txt --max-gap 6"
        " --dtype bfloat16 --device cuda --out schedule.json"
    ),
    tune: (
        "keystep tune --model toy --method adacache --prompts prompts.txt --trials 40 --out tuned\n\n"
        "keystep tune --model wan-2.1-1.3b --method teacache --knob threshold=0.02:0.3:log"
        " --prompts prompts.txt --time-limit 600 --at-psnr 28 --dtype bfloat16 --device cuda --out tuned"
    ),
    models: "keystep models",
    methods: "keystep methods\n\nkeystep methods adacache",
}
for _command, _examples in _EXAMPLES.items():
    app.command(epilog=f"[bold]Examples[/]\n\n{_examples}")(_command)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: arguments without the program's name, default those of the process.

    Returns:
        Exit status: 0, 1 for an error of ours, 2 for one the user can mend, 130 after an interrupt.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        return _run(arguments)


def _run(arguments: list[str]) -> int:
    try:
        result = app(
            [argument for argument in arguments if argument != DEBUG_FLAG], "keystep", standalone_mode=False
        )
        # typer answers an interrupt with this status and no word
        return _fail("interrupted", INTERRUPTED) if result == INTERRUPTED else result or OK
    except typer.Abort:
        return _fail("interrupted", INTERRUPTED)
    except ranks.Untold:
        return INTERNAL_ERROR
    except typer.TyperException as error:
        if not ranks.is_first():  # all processes were given the same line
            return error.exit_code
        return _fail(_describe_usage(error, arguments), error.exit_code)
    except Exception as error:
        if DEBUG_FLAG in arguments:
            traceback.print_exc()
        if isinstance(error, (ValueError, OSError)):
            return _fail(_one_line(error), USER_ERROR)
        return _fail(
            f"{type(error).__name__}: {_one_line(error)} (add {DEBUG_FLAG} for the traceback)", INTERNAL_ERROR
        )


def _describe_usage(error: typer.TyperException, arguments: list[str]) -> str:
    # What typer says of a value out of range leaves the value out.
    message = error.format_message()
    options = getattr(getattr(error, "param", None), "opts", ())
    separated = [part for argument in arguments for part in argument.split("=", 1)]
    given = next((value for name, value in pairwise(separated) if name in options), None)
    return message if given is None or given in message else f"{message}, given: {given!r}"


def _show_warning(message: Warning | str, *_: object) -> None:
    if not ranks.is_first():
        return
    err_console().print(f"[bold yellow]warning:[/] {escape(str(message))}", soft_wrap=True, highlight=False)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _fail(message: str, status: int) -> int:
    err_console().print(f"[bold red]error:[/] {escape(message)}", soft_wrap=True, highlight=False)
    return status
