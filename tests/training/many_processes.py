"""Everything here that needs processes of its own, in one interpreter: torch is imported once and then forked."""

import sys
from pathlib import Path

import kill_and_resume
import torch
import two_ranks
from tiny_training import TinyRecipe, make_learner

from crossgrain.training.optimizer import build_optimizer

if __name__ == "__main__":
    torch.set_num_threads(1)
    build_optimizer(make_learner(), TinyRecipe().optimizer)  # imports for seconds; forked processes need not repeat it
    kill_and_resume.main(Path(sys.argv[1]))
    two_ranks.main(Path(sys.argv[1]))
