import subprocess
import sys

import pytest

COMMANDS = ["demo", "generate", "compare", "batch", "bench", "plan", "tune", "models", "methods"]
HEAVY = ("torch", "diffusers", "transformers", "av", "skimage", "jinja2")
PROBE = f"""
import sys
from keystep.cli.main import main
status = main(sys.argv[1:])
print("LOADED", [name for name in {HEAVY} if name in sys.modules])
sys.exit(status)
"""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)])
def test_help_teaches_and_loads_nothing_heavy(command):
    done = run("-c", PROBE, *command, "--help")
    assert done.returncode == 0
    assert "LOADED []" in done.stdout
    assert "Usage: keystep" in done.stdout
    if command:
        assert f"keystep {command[0]}" in done.stdout.split("Examples")[1]


def test_usage_errors_load_nothing_heavy():
    done = run("-c", PROBE, "generate", "--steps", "0")
    assert done.returncode == 2
    assert "LOADED []" in done.stdout


def test_the_module_runs_like_the_command():
    done = run("-m", "keystep", "--version")
    assert done.returncode == 0
    assert done.stdout.startswith("keystep 0.")


def test_the_exit_status_reaches_the_shell():
    done = run("-m", "keystep", "generat")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == "error: No such command 'generat'. Did you mean 'generate'?\n"
