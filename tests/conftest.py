"""Set up the machine before JAX starts: eight virtual CPU devices, and threads for all of them."""

import os
import shutil
import tempfile

# Simulated devices deadlock on few cores unless the host thread pool is larger than their number.
os.environ.setdefault("NPROC", "32")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# NumPy's threads wait for one another by spinning, which takes the cores from the other workers.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# Nearly all the time of the tests goes into compiling small programs. XLA's older emitters, one
# code file a program and no optimisation by LLVM save two fifths of it. Flags of the user come
# later and win. Programs that tests start (tests/experiments/cli.py) get none of these, and compile
# as users do.
QUICK_TO_COMPILE = (
    "--xla_cpu_use_fusion_emitters=false",
    "--xla_cpu_parallel_codegen_split_count=1",
    "--xla_backend_optimization_level=0",
)
os.environ["XLA_FLAGS"] = " ".join(
    [
        *QUICK_TO_COMPILE,
        os.environ.get("XLA_FLAGS", ""),
        "--xla_force_host_platform_device_count=8",
    ]
)

# Tests prepare the embedded data sets anew, for this session alone: what an earlier version left in
# the user's cache must not decide. Workers inherit the folder from the process that starts them.
_DATA_DIR = None
if "CLIPJAX_DATA_DIR" not in os.environ:
    _DATA_DIR = os.environ["CLIPJAX_DATA_DIR"] = tempfile.mkdtemp(prefix="clipjax-tests-")


def pytest_unconfigure(config):
    """Remove the session's data, in the process that made the folder."""
    if _DATA_DIR:
        shutil.rmtree(_DATA_DIR, ignore_errors=True)
