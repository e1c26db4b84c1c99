import pytest


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory, worker_id):
    """A folder shared by every worker of the session; `load` prepares on first use, locked."""
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "clipjax-data"
    folder.mkdir(exist_ok=True)
    return folder
