"""The scorer for the planted web: the feature scorer, taught by drawn photographs of scenes that the web lacks.

For real data the small supervised set is one of yours: `crossgrain collect train-scorer` and a scorer of type features.
"""

import json
import tempfile
from pathlib import Path
from typing import Annotated

from pydantic import Field

from crossgrain.collect.scoring.features import FeatureScorer
from crossgrain.collect.scoring.training import MIN_IMAGES, ScorerTraining, train_scorer
from crossgrain.collect.tasks import digest_of
from crossgrain.config import configclass, dump_config
from crossgrain.data.scenes.web import write_supervised


class PhotographScorer(FeatureScorer):
    """Trained the first time that it is asked for; kept in `folder`, under a name for how it was trained."""

    @configclass
    class Config:
        """`images` photographs of drawn scenes, five captions each, teach it."""

        folder: Path = Path("data/scenes_scorer")
        images: Annotated[int, Field(ge=MIN_IMAGES)] = 1500
        seed: int = 0
        training: ScorerTraining = ScorerTraining()

    def __init__(self, config: "PhotographScorer.Config"):
        super().__init__(FeatureScorer.Config(path=_trained(config)))


def _trained(config: PhotographScorer.Config) -> Path:
    """The folder of the scorer; it is renamed into place when it is whole."""
    how = {**dump_config(config), "folder": ""}
    folder = config.folder / digest_of([json.dumps(how, sort_keys=True)])[:16]
    if not folder.exists():
        config.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=config.folder, prefix=".partial-") as partial:
            write_supervised(Path(partial) / "photographs", config.images, config.seed)
            train_scorer(Path(partial) / "photographs", Path(partial) / "scorer", config.training)
            (Path(partial) / "scorer").rename(folder)
    return folder
