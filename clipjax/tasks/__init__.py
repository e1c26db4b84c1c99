"""Tasks: what a batch is, what is lost, what is measured and what is worth looking at.

Each implements `clipjax.typing.Task` as a small frozen dataclass. Statistics are sums over
examples (or pixels), so that a metric over many batches, devices or hosts is the metric over their
union; `metrics` divides once, at the end, in float64 on the host.
"""

from clipjax.tasks.classification import Classification
from clipjax.tasks.segmentation import Segmentation
from clipjax.tasks.super_resolution import SuperResolution

__all__ = ["Classification", "Segmentation", "SuperResolution"]
