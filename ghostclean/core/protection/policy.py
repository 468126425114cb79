"""What the operator allows the engine that manages open trades."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any

from ghostclean.core.broker import json_number


@dataclass(frozen=True, slots=True)
class ManagePolicy:
    """The `AUTO_MANAGE_*` settings; everything that sends orders is off unless turned on."""

    enabled: bool = False
    eod_flatten: bool = False
    trail_enabled: bool = False
    cut_loss_enabled: bool = False
    trail_r: Decimal = Decimal("2.5")
    trail_pct: Decimal = Decimal("0.005")
    cut_loss_r: Decimal = Decimal(-1)
    max_per_run: int = 50
    eod_flatten_minutes: int = 12

    @property
    def eod_window(self) -> timedelta:
        """How long before the close of the day trades are flattened."""
        return timedelta(minutes=self.eod_flatten_minutes)

    def to_dict(self) -> dict[str, Any]:
        """The `cfg` of the result document."""
        return {
            "enabled": self.enabled,
            "eodFlatten": self.eod_flatten,
            "eodFlattenMinutes": self.eod_flatten_minutes,
            "trailEnabled": self.trail_enabled,
            "trailR": json_number(self.trail_r),
            "trailPct": json_number(self.trail_pct),
            "cutLossEnabled": self.cut_loss_enabled,
            "cutLossR": json_number(self.cut_loss_r),
            "maxPerRun": self.max_per_run,
        }
