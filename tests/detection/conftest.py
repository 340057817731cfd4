"""Pictures of the data tests, for those of detection."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "data"))
