"""A detector of somebody else's, as fast as one can be: quarters of the image, described by their mean colours."""

import os
import signal

import torch

from crossgrain.config import configclass
from crossgrain.detection.interface import Detector, Selection, choose, regions_of


class Quarters(Detector):
    feature_size = 3
    num_classes = 3
    weights = "none"

    @configclass
    class Config:
        factor: float = 1.0
        die_at: int | None = None  # SIGKILL this process at this call
        fail_at: int | None = None

    def __init__(self, config, selection, device):
        super().__init__(config, selection, device)
        self.calls = 0

    @classmethod
    def default_selection(cls, config):
        return Selection(score_threshold=0.3, min_boxes=0, max_boxes=4, short_side=32, long_side=64)

    def settings(self):
        return {"factor": self.config.factor}

    def detect(self, images):
        self.calls += 1
        if self.calls == self.config.die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.calls == self.config.fail_at:
            raise KeyboardInterrupt
        return [self.describe(image.float() * self.config.factor) for image in images]

    def describe(self, image):
        height, width = image.shape[1:]
        x, y = width // 2, height // 2
        boxes = torch.tensor([(0, 0, x, y), (x, 0, width, y), (0, y, x, height), (x, y, width, height)]).float()
        features = torch.stack([image[:, int(b[1]) : int(b[3]), int(b[0]) : int(b[2])].mean((1, 2)) for b in boxes])
        probs = features.softmax(1)
        keep = choose(boxes, probs, self.chosen)
        return regions_of(boxes[keep], (height, width), features[keep], probs[keep])
