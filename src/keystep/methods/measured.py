"""Files that `keystep calibrate` writes: what was measured on a model, for methods that need it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Measured:
    """What a file holds.

    Attributes:
        model: `ModelSpec.name` of the model it was measured on.
        num_evaluations: N of the runs it was measured in.
        values: the measured numbers; what they are depends on the method.
    """

    model: str
    num_evaluations: int
    values: Any


def read_measured(field: str, method: str, path: str | Path) -> Measured:
    """Read what was calibrated for a method.

    Args:
        field: named in errors.
        method: whose file it must be.
        path: the file.

    Raises:
        ValueError: it cannot be read, is another method's, or its calibration is not finished.
    """
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{field}: {str(path)!r} cannot be read: {error}") from None
    if not isinstance(data, dict) or data.get("method") != method:
        raise ValueError(f"{field}: {str(path)!r} is no file of `keystep calibrate --method {method}`")
    if data.get("values") is None:
        raise ValueError(f"{field}: the calibration of {str(path)!r} is not finished; run it again to go on")
    return Measured(data["model"], data["num_evaluations"], data["values"])


def missing_measurement(field: str, method: str, model: str) -> ValueError:
    """The error of a method that was given nothing."""
    return ValueError(
        f"{field}: nothing was measured for {model or 'this model'}; run `keystep calibrate --model MODEL "
        f"--method {method} --prompts FILE --out FILE` and pass {field.partition('.')[2]}=FILE"
    )
