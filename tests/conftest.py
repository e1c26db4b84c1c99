"""Set up the machine before JAX starts: eight virtual CPU devices, and threads for all of them."""

import os

# Simulated devices deadlock on few cores unless the host thread pool is larger than their number.
os.environ.setdefault("NPROC", "32")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
).strip()
