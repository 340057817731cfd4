"""A data set of 64 drawn scenes, and a recipe that pre-trains on it in seconds."""

from pathlib import Path

from crossgrain.config import load_recipe, save_recipe
from crossgrain.data.prepare import prepare
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


def draw_scenes(folder: Path, size: int = 64) -> Path:
    """Shards of train, val, test and unseen scenes of 64 pixels, with a vocabulary."""
    flags = {"size": size, "seed": 0, "image_size": 64}
    prepare("scenes", None, folder, flags=flags, vocab_size=300, num_workers=0)
    return folder


def write_recipe(path: Path, data: Path, *overrides: str) -> Path:
    """The tiny recipe on `data`."""
    path.write_text(RECIPE.format(data=data), encoding="utf-8")
    save_recipe(load_recipe(PretrainRecipe, path, overrides), path)
    return path
