"""`ErrorControl`: computed evaluations are placed by the error that forecasts turn out to have."""

from __future__ import annotations

from keystep.what.site import Correction, Forecast
from keystep.when.signal import LatentShare

FORECAST_ERROR = LatentShare("forecast error", Forecast())
CORRECTION = LatentShare("correction", Correction())
