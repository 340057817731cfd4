"""Ray's cluster: the one that RAY_ADDRESS names, or one of this machine alone, which ends with this process.

On this machine it listens on loopback only, sends nothing anywhere, has no dashboard, and is given time to start. Ray
gives its own parts fixed seconds to come up; on a busy machine it is begun again, when their files have been read once.
"""

import logging
import os
from typing import Any

from crossgrain.config import UserError

_ATTEMPTS = 3
_PATIENT = {  # of Ray's own settings; what the environment says already is left
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DASHBOARD_STARTUP_TIMEOUT_S": "300",
    "RAY_gcs_server_port_wait_time_s": "300",
    "RAY_agent_register_timeout_ms": "300000",
    "RAY_raylet_start_wait_time_s": "300",
    "RAY_worker_register_timeout_seconds": "300",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # what makes it use loopback for itself, on Linux too
}
_OBJECT_STORE = 100 * 2**20  # bytes; tasks and what they return are small


def connect(num_workers: int) -> Any:
    """The module `ray`, connected. UserError where it is not installed, or no cluster can be reached or started."""
    address = os.environ.get("RAY_ADDRESS", "")
    if not address:
        for name, value in _PATIENT.items():
            os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError:
        raise UserError("engine: ray needs the extra `ray`: pip install 'crossgrain[ray]'") from None
    if ray.is_initialized():
        return ray
    quiet = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    if address:
        try:
            ray.init(address=address, **quiet)
        except (ConnectionError, RuntimeError) as error:
            raise UserError(f"no Ray cluster at RAY_ADDRESS={address}: {error}") from None
        return ray
    for left in reversed(range(_ATTEMPTS)):
        try:
            ray.init(
                address="local",
                num_cpus=num_workers,
                num_gpus=0,
                include_dashboard=False,
                object_store_memory=_OBJECT_STORE,
                _node_ip_address="127.0.0.1",
                **quiet,
            )
            break
        except (TypeError, ValueError):  # a mistake in what it was told
            raise
        except Exception as error:  # which Ray raises, of no kind of its own, where a part is not up in time
            ray.shutdown()
            if not left:
                told = str(error).partition("\n")[0]
                raise UserError(f"Ray did not start, {_ATTEMPTS} times: {told}") from None
    return ray
