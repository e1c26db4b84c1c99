"""Figures of the heavy-tail experiment where there is little to draw."""

import numpy as np
import pytest

from experiments.report import tails


@pytest.mark.parametrize("gap", [np.inf, 0.0], ids=["all diverged", "all at the minimum"])
def test_figures_without_a_positive_value_are_drawn(gap):
    """A log axis has no ticks for them, which Matplotlib makes an error."""
    summary = {"results": {"normal": {"A": {}}}, "labels": {"A": "A"}, "config": {"df": 1.5}}
    curves = {f"normal/A/{part}": np.full((1, 3), gap) for part in ("value", "low", "high")}
    curves |= {"levels": np.array([0.5]), "oracle_calls": np.array([0, 1, 2])}
    curves |= {"normal/A/final": np.full(4, gap)}
    for draw in (tails.quantile_curves, tails.survival_curves):
        assert draw(curves, summary).png.startswith(b"\x89PNG")
