"""Regions from raw images: detectors, what they find stored beside the shards, and a small one that trains here."""

DETECTORS = {
    "torchvision": "crossgrain.detection.coco:TorchvisionFasterRCNN",
    "vg": "crossgrain.detection.bottom_up:BottomUp",
    "scenes": "crossgrain.detection.trained:TrainedDetector",
}
