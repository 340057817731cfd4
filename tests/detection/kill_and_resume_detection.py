"""Detect on copies of a data set, each killed by SIGKILL at another call of the detector, and started again."""

import os
import shutil
import sys
from pathlib import Path

from outside_detector import Quarters

from crossgrain.detection.pipeline import DetectConfig, detect

CALLS = (1, 3, 6)  # before anything is done, in the first shard, in the second


def in_a_process(data: Path, die_at: int | None) -> int:
    """0, or minus the signal that ended it."""
    process = os.fork()
    if process == 0:
        detect(data, DetectConfig(detector=Quarters.Config(die_at=die_at), processes=1, batch_size=2))
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


if __name__ == "__main__":
    source, folder = Path(sys.argv[1]), Path(sys.argv[2])
    ends = []
    for die_at in CALLS:
        shutil.copytree(source, folder / str(die_at))
        ends += [in_a_process(folder / str(die_at), die_at), in_a_process(folder / str(die_at), None)]
    sys.stdout.write(" ".join(map(str, ends)))
