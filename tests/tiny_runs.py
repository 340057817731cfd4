"""A data set of 64 drawn scenes, and a recipe that pre-trains on it in seconds."""

from pathlib import Path

import numpy as np

from crossgrain.config import load_recipe, save_recipe
from crossgrain.data.prepare import prepare
from crossgrain.data.regions import RegionFeatures, finish_regions, open_regions, write_region_shard
from crossgrain.data.shards import Shards
from crossgrain.recipes import PretrainRecipe

RECIPE = """
title: X-VLM in miniature
model:
  type: xvlm
  vision: {{type: vit, image_size: 64, patch_size: 16, dim: 32, depth: 2, num_heads: 2, local_attention_depth: 1}}
  dim: 32
  num_heads: 2
  mlp_dim: 64
  text_depth: 1
  cross_depth: 1
  max_length: 32
  embedding_dim: 16
objectives: [{{type: itc}}, {{type: itm}}, {{type: mlm}}, {{type: box}}]
image: {{size: 64, crop_scale: [0.7, 1.0]}}
text: {{vocab: {data}/vocab.txt, max_tokens: 20}}
stages:
  - steps: 8
    lr: 1e-3
    schedule: {{warmup_steps: 2, decay: cosine}}
    sources:
      - {{path: {data}, batch_size: 4}}
      - {{path: {data}, texts: regions, batch_size: 2, texts_per_image: 2}}
      - {{path: {data}, texts: regions, batch_size: 2, texts_per_image: 2, extra_step: 0.5}}
train: {{precision: float32, log_every: 1, save_every: 3, num_workers: 2, tensorboard: false}}
validation: {{steps: 2}}
evaluation: {{tasks: [{{type: retrieval, k: 4}}, {{type: grounding}}]}}
"""

STAGED = """
title: ImageBERT in miniature, in two stages
model: {{type: imagebert, dim: 16, depth: 2, num_heads: 2, mlp_dim: 32, max_length: 32, feature_dim: 6}}
objectives:
  - {{type: mlm, image: masked}}
  - {{type: region_class, num_classes: 5}}
  - {{type: region_feature}}
  - {{type: itm, negatives: swapped, image: masked, text: masked}}
text: {{vocab: {data}/vocab.txt, max_tokens: 20, end_token: true}}
regions: {{max_regions: 4}}
stages:
  - name: alone
    objectives: [mlm, region_class, region_feature]
    steps: 4
    lr: 1e-3
    sources: [{{path: {data}, batch_size: 4}}]
  - name: pairs
    pairs: {{swapped: 0.5, masked_side: one}}
    steps: 4
    lr: 5e-4
    sources: [{{path: {data}, batch_size: 6}}]
optimizer: {{new_parameters_factor: 1.0}}
train: {{precision: float32, log_every: 1, save_every: 2, keep: 9, num_workers: 0, tensorboard: false}}
"""


def draw_scenes(folder: Path, size: int = 64) -> Path:
    """Shards of train, val, test and unseen scenes of 64 pixels, with a vocabulary."""
    flags = {"size": size, "seed": 0, "image_size": 64}
    prepare("scenes", None, folder, flags=flags, vocab_size=300, num_workers=0)
    return folder


def invent_regions(data: Path) -> Path:
    """One to five regions for every image, of 5 classes and with 6 features, drawn and not detected."""
    stamp = {"detector": "dice", "weights": "random:0", "num_classes": 5, "feature_size": 6}
    open_regions(data, stamp)
    records, generator = Shards(data), np.random.default_rng(0)
    (shard,) = records.manifest["shards"]
    write_region_shard(data, shard["name"], [(str(key), _invented(generator)) for key in records.column("key")])
    finish_regions(data)
    return data


def _invented(generator: np.random.Generator) -> RegionFeatures:
    count = int(generator.integers(1, 6))
    corners = generator.uniform(0, 0.5, (count, 2))
    boxes = np.concatenate([corners, corners + generator.uniform(0.1, 0.5, (count, 2))], axis=1)
    probs = generator.dirichlet(np.ones(5), count)
    return RegionFeatures.of(boxes, generator.normal(size=(count, 6)), probs.argmax(1), probs.max(1), probs)


def write_recipe(path: Path, data: Path, *overrides: str, recipe: str = RECIPE) -> Path:
    """A tiny recipe on `data`."""
    path.write_text(recipe.format(data=data), encoding="utf-8")
    save_recipe(load_recipe(PretrainRecipe, path, overrides), path)
    return path
