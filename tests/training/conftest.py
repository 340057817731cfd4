"""One run of everything that needs processes of its own."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def processes(tmp_path_factory) -> Path:
    """The folder in which many_processes.py left its results."""
    folder = tmp_path_factory.mktemp("processes")
    script = Path(__file__).with_name("many_processes.py")
    # A file, not a pipe: the data workers of a killed process outlive it for a while and would hold a pipe open.
    with (folder / "output").open("w") as output:
        ended = subprocess.run([sys.executable, script, folder], stdout=output, stderr=output)
    assert ended.returncode == 0, (folder / "output").read_text()
    return folder
