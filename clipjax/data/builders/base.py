"""What every builder of ours is."""

import inspect
from typing import Any

import tensorflow_datasets as tfds
from etils import epath


class DatasetBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A TFDS builder that is known to clipjax only, not to TFDS's global register of names."""

    EMBEDDED: bool
    """Whether the raw data ships inside installed packages, so that anyone can prepare it."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(skip_registration=True, **kwargs)
        # TFDS's own way to find this needs importlib_resources, which it does not depend on.
        cls.code_path = epath.Path(inspect.getfile(cls))
