"""Parts of a recipe that contradict each other, and regions of another detector than the recipe's."""

from dataclasses import replace
from pathlib import Path

import pytest

from crossgrain.checks import check_stamp, stamp_of, with_stamp
from crossgrain.config import RecipeError, UserError, load_recipe, save_recipe
from crossgrain.data.regions import finish_regions, open_regions, write_region_shard
from crossgrain.data.shards import ShardWriter
from crossgrain.recipes import PretrainRecipe, sample_recipe
from data.pictures import detected, record, tokenizer

REGIONS = """
model: {type: imagebert, dim: 16, depth: 1, num_heads: 2, mlp_dim: 32, feature_dim: 6}
objectives: [{type: mlm}, {type: region_class, num_classes: 5}, {type: itm, negatives: swapped}]
text: {vocab: vocab.txt}
pairs: {swapped: 0.5, masked_side: one}
stages: [{steps: 3, sources: [{path: one, batch_size: 4}]}]
"""
PIXELS = """
model: {type: xvlm, vision: {type: vit, image_size: 64, patch_size: 16, dim: 16, depth: 2, num_heads: 2,
        local_attention_depth: 1}, dim: 16, num_heads: 2, mlp_dim: 32, text_depth: 1, cross_depth: 1}
objectives: [{type: itc}, {type: mlm}]
image: {size: 64}
text: {vocab: vocab.txt}
stages: [{steps: 3, sources: [{path: one, batch_size: 4}]}]
"""
VLBERT = """
model: {type: vlbert, dim: 16, depth: 1, num_heads: 2, mlp_dim: 32, feature_dim: 6, geometry_dim: 16}
objectives: [{type: mlm, image: masked}, {type: region_class, num_classes: 5, soft: true}]
text: {vocab: vocab.txt}
regions: {whole_image: true, probs: true}
stages: [{steps: 3, sources: [{path: one, batch_size: 4}, {path: text, texts: corpus, batch_size: 4}]}]
"""


@pytest.fixture
def read(tmp_path):
    def read(text: str, *overrides: str) -> PretrainRecipe:
        (tmp_path / "recipe.yaml").write_text(text, encoding="utf-8")
        return load_recipe(PretrainRecipe, tmp_path / "recipe.yaml", overrides)

    return read


@pytest.mark.parametrize(
    ("text", "overrides", "told"),
    [
        (
            PIXELS,
            ["objectives.0.type=region_class"],
            "region_class needs a model that reads regions or raw_regions, and X",
        ),
        (
            PIXELS,
            ["objectives.0.type=region_feature"],
            "region_feature needs a model that reads regions, and XVLM reads pi",
        ),
        (
            REGIONS,
            ["objectives.0={type: box}"],
            "box needs a model that reads pixels, and ImageBERT reads regions here",
        ),
        (PIXELS, ["image.long_side=100"], "image.long_side keeps the shape of images, but model.vision reads squares"),
        (PIXELS, ["pairs={swapped: 0.5}"], "pairs.swapped 0.5 gives pairs wrong texts, which itc would learn"),
        (
            PIXELS,
            ["pairs={swapped: 0.5}", "objectives.0={type: itm, negatives: random}"],
            "gives pairs wrong texts, which itm with negatives: random would learn",
        ),
        (REGIONS, ["pairs.swapped=0"], "itm with negatives: swapped finds none: set pairs.swapped to their share"),
        (
            REGIONS,
            ["stages.0.sources.0.texts=regions"],
            "pairs.swapped takes captions of other images, which `texts: reg",
        ),
        (
            REGIONS,
            ["regions.whole_image=true"],
            "ImageBERT takes the whole image as none of its regions: set .* to false",
        ),
        (
            REGIONS,
            ["model.global_feature=true"],
            "ImageBERT takes the whole image as the first of .*whole_image to true",
        ),
        (VLBERT, ["regions.whole_image=false"], "VLBERT takes the whole image as the first of its regions"),
        (VLBERT, ["regions.probs=false"], "region_class with soft: true predicts .* set regions.probs to true"),
        (VLBERT, ["stages.0.objectives=[region_class]"], "a corpus is there for mlm"),
        (
            VLBERT,
            ["objectives.1={type: itm, negatives: random}"],
            "a corpus is text without images, which itm with negatives: random would compare with images",
        ),
        (
            PIXELS,
            ["stages.0.sources.0.texts=corpus", "objectives=[{type: mlm}]"],
            "without images, which XVLM does not re",
        ),
        (REGIONS, ["regions.max_regions=0"], "regions.max_regions: .*greater than or equal to 1"),
        (REGIONS, ["regions.masking.hide=2"], "regions.masking: probabilities must be between 0 and 1"),
        (REGIONS, ["pairs.masked_side=none"], "pairs.masked_side: .*'both' or 'one'"),
    ],
)
def test_parts_that_contradict_each_other_are_named(read, text, overrides, told):
    with pytest.raises(RecipeError, match=told) as caught:
        read(text, *overrides)
    assert "\n" not in str(caught.value)


def test_a_stage_hides_what_its_objectives_predict_and_swaps_as_it_says(read):
    recipe = read(VLBERT, "stages.0.sources.1.texts=captions", "stages.0.objectives=[mlm]")
    words = sample_recipe(recipe, recipe.stages[0], tokenizer([record(0)]))
    assert (words.reads, words.want_masked, words.want_hidden, words.want_classes) == ("regions", True, False, False)
    stage = replace(recipe.stages[0], objectives=None, pairs=replace(recipe.pairs, swapped=0.25))
    both = sample_recipe(recipe, stage, tokenizer([record(0)]))
    assert both.want_masked and both.want_hidden and both.want_classes and both.pairs.swapped == 0.25


def data_set(folder: Path, name: str, detector: str | None, finished: bool = True) -> str:
    with ShardWriter(folder / name) as writer:
        writer.write(record(0), "jpg", 40, 32)
    if detector is not None:
        open_regions(folder / name, {"detector": detector, "max_boxes": 36})
    if detector is not None and finished:
        write_region_shard(folder / name, "000000", [("record_0", detected(0, 3))])
        finish_regions(folder / name)
    return str(folder / name)


def on(recipe: PretrainRecipe, *paths: str) -> PretrainRecipe:
    sources = tuple(replace(recipe.stages[0].sources[0], path=path) for path in paths)
    return replace(recipe, stages=(replace(recipe.stages[0], sources=sources),))


def test_the_data_settle_the_stamp_which_survives_saving(read, tmp_path):
    one, same = data_set(tmp_path, "one", "a"), data_set(tmp_path, "same", "a")
    settled = with_stamp(on(read(REGIONS), one, same))
    assert settled.regions.stamp == stamp_of(one) == "detector a, max_boxes 36"
    assert with_stamp(settled) == settled
    save_recipe(settled, tmp_path / "saved.yaml")
    assert load_recipe(PretrainRecipe, tmp_path / "saved.yaml") == settled
    check_stamp(settled, same)


def test_a_model_that_reads_pixels_has_no_stamp(read, tmp_path):
    recipe = on(read(PIXELS), data_set(tmp_path, "one", None))
    assert with_stamp(recipe) is recipe
    check_stamp(recipe, tmp_path / "one")


def test_regions_of_another_detector_are_refused_with_both_stamps(read, tmp_path):
    one, other = data_set(tmp_path, "one", "a"), data_set(tmp_path, "other", "b")
    both = (
        "(?s)other has regions of another detector than .*:\n  detector b, max_boxes 36\n  detector a, max_boxes 36\n"
    )
    with pytest.raises(UserError, match=both):
        with_stamp(on(read(REGIONS), one, other))
    settled = with_stamp(on(read(REGIONS), one))
    for refused in (lambda: with_stamp(on(settled, other)), lambda: check_stamp(settled, other)):
        with pytest.raises(UserError, match=both):
            refused()


def test_weights_of_another_detectors_regions_are_refused(read, tmp_path):
    one, other = data_set(tmp_path, "one", "a"), data_set(tmp_path, "other", "b")
    checkpoint = tmp_path / "step_00000003"
    checkpoint.mkdir()
    save_recipe(with_stamp(on(read(REGIONS), one)), checkpoint / "recipe.yaml")
    further = replace(read(REGIONS), initial_weights=checkpoint)
    assert with_stamp(on(further, one)).regions.stamp == stamp_of(one)
    with pytest.raises(UserError, match=r"(?s)other has .* than .*step_00000003:\n  detector b.*\n  detector a"):
        with_stamp(on(further, other))


def test_data_without_regions_are_told_how_to_get_them(read, tmp_path):
    for name, detector, told in (("none", None, "no detected regions"), ("part", "a", "of a part of its images only")):
        path = data_set(tmp_path, name, detector, finished=False)
        with pytest.raises(UserError, match=rf"{told}.*: run `crossgrain detect {path}`"):
            with_stamp(on(read(REGIONS), path))
