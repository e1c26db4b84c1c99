"""What a sample of runs says: quantiles far in the tail, with intervals."""

from clipjax.analysis.quantiles import Quantiles, bootstrap_ranks, quantiles

__all__ = ["Quantiles", "bootstrap_ranks", "quantiles"]
