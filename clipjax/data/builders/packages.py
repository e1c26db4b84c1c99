"""The packages that carry the embedded raw data, imported only when a data set is prepared."""

import importlib
from types import ModuleType


def require(module: str, package: str) -> ModuleType:
    """Import a package that carries raw data.

    Args:
        module: what to import.
        package: the name that pip knows.

    Raises:
        ImportError: If it is not installed; the message says how to install it.

    Examples:
        >>> require("json", "json").dumps([1])
        '[1]'
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ImportError(
            f"preparing this data set needs {package}, which carries its raw data: "
            "pip install 'clipjax[experiments]'"
        ) from error
