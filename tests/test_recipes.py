"""The library's recipes, and what a recipe says about a run."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from crossgrain import cli, runs
from crossgrain.config import RecipeError, UserError, configclass, find_recipe, load_recipe, read_yaml, save_recipe
from crossgrain.models.interface import VisionLanguageModel
from crossgrain.recipes import (
    PretrainRecipe,
    QuickstartRecipe,
    build_learner,
    load_run_recipe,
    objective_name,
    pretrain,
    with_vocabulary,
)
from crossgrain.training import checkpoint
from crossgrain.training.optimizer import build_optimizer
from crossgrain.training.trainer import Outcome
from tiny_runs import draw_scenes, write_recipe

FOLDER = Path(__file__).parents[1] / "recipes"
SHIPPED = sorted(
    path
    for path in FOLDER.rglob("*.yaml")
    if path.parent.name not in ("ablations", "collect") and path.stem not in ("families", "tasks")
)
DETECTOR = FOLDER / "quickstart_detector.yaml"
BEFORE = (DETECTOR, FOLDER / "quickstart_cnn.yaml")  # what quickstarts train before the model
WEB = FOLDER / "pretrain" / "imagebert_lait_small.yaml"  # a quickstart, too: its clean pairs are scenes
RUNS = [path for path in SHIPPED if path not in BEFORE and path.parent.name != "finetune"]

SMALL = """
model: {type: xvlm, vision: {type: vit, image_size: 64, patch_size: 16, dim: 16, depth: 2, num_heads: 2,
        local_attention_depth: 1}, dim: 16, num_heads: 2, mlp_dim: 32, text_depth: 1, cross_depth: 1, max_length: 40}
objectives: [{type: itc}, {type: box}]
image: {size: 64}
text: {vocab: vocab.txt}
stages:
  - {steps: 3, sources: [{path: data, batch_size: 4}, {path: data, texts: regions, batch_size: 2}]}
"""


@pytest.fixture
def read(tmp_path):
    def read(*overrides, text=SMALL):
        (tmp_path / "small.yaml").write_text(text, encoding="utf-8")
        return load_run_recipe(tmp_path / "small.yaml", overrides)

    return read


def test_the_recipes_of_the_issue_are_there():
    names = {path.relative_to(FOLDER).as_posix() for path in SHIPPED}
    published = {"xvlm", "xvlm_16m", "xvlm_small", "imagebert", "imagebert_single_stage", "imagebert_small"}
    published |= {"vlbert_base", "vlbert_large", "vlbert_e2e", "vlbert_small"}
    published |= {"pixelbert_r50", "pixelbert_x152", "pixelbert_small", "xvlm_boxes", "imagebert_lait_small"}
    quickstarts = ("quickstart", "quickstart_imagebert", "quickstart_vlbert", "quickstart_pixelbert")
    assert {*(f"{name}.yaml" for name in quickstarts), *(f"pretrain/{name}.yaml" for name in published)} <= names


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_a_shipped_recipe_survives_saving_and_its_model_builds(path, tmp_path):
    recipe = load_run_recipe(path)
    assert isinstance(recipe, QuickstartRecipe) == (path == WEB or path.stem.startswith("quickstart"))
    assert recipe.title
    save_recipe(recipe, tmp_path / "saved.yaml")
    assert load_run_recipe(tmp_path / "saved.yaml") == recipe
    plain = replace(recipe, model=recipe.model.from_scratch())
    with torch.device("meta"):  # shapes without numbers: nothing is stored or computed
        learner = build_learner(with_vocabulary(plain, 30_000))
    assert all(parameter.is_meta for parameter in learner.parameters())
    assert set(learner.objectives) == {objective_name(config) for config in recipe.objectives}
    assert learner.model.token_embedding.num_embeddings >= 30_000


@pytest.mark.parametrize("name", ["quickstart", "quickstart.yaml", "pretrain/xvlm", str(FOLDER / "quickstart.yaml")])
def test_a_recipe_is_found_by_name_and_by_path(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_recipe(name).parent in (FOLDER, FOLDER / "pretrain")


def test_a_file_goes_before_a_shipped_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "quickstart").write_text(SMALL)
    assert find_recipe("quickstart") == Path("quickstart")


def test_an_unknown_recipe_is_answered_with_the_known_ones():
    with pytest.raises(RecipeError, match=r"no recipe at nothing; the library has .*pretrain/xvlm.*quickstart"):
        find_recipe("nothing")


def test_the_quickstart_reads_everything_from_where_it_draws():
    recipe = load_run_recipe(FOLDER / "quickstart.yaml")
    assert isinstance(recipe, QuickstartRecipe)
    moved = recipe.on(Path("elsewhere"))
    assert {source.path for stage in moved.stages for source in stage.sources} == {"elsewhere"}
    assert Path(moved.text.vocab) == Path("elsewhere/vocab.txt")
    assert replace(moved, stages=recipe.stages, text=recipe.text) == recipe
    assert recipe.other_data() == []


def test_the_other_data_of_a_quickstart_stay_where_they_are():
    recipe = load_run_recipe(WEB)
    assert isinstance(recipe, QuickstartRecipe)
    paths = [source.path for stage in recipe.on(Path("elsewhere")).stages for source in stage.sources]
    assert paths == ["data/scenes_web/shards", "elsewhere"]
    assert recipe.other_data() == [Path("data/scenes_web/shards")]
    (web,) = recipe.stages[0].sources
    sources = (web, replace(web, batch_size=1), replace(web, path="data"), replace(web, path="b"))
    twice = replace(recipe, stages=tuple(replace(stage, sources=sources) for stage in recipe.stages))
    assert twice.other_data() == [Path("data/scenes_web/shards"), Path("b")]  # each once, in their order
    moved = {source.path for stage in twice.on(Path("elsewhere")).stages for source in stage.sources}
    assert moved == {"data/scenes_web/shards", "b", "elsewhere"}


def test_the_vocabulary_settles_the_number_of_words(read):
    recipe = read()
    assert with_vocabulary(recipe, 700).model.vocab_size == 700
    given = replace(recipe, model=replace(recipe.model, vocab_size=800))
    assert with_vocabulary(given, 700) == given
    with pytest.raises(RecipeError, match=r"model.vocab_size is 800, but vocab.txt has 900 words"):
        with_vocabulary(given, 900)


def test_the_seed_decides_the_first_weights(read):
    recipe = with_vocabulary(read(), 50)
    first, again, other = (build_learner(r).state_dict() for r in (recipe, recipe, replace(recipe, seed=1)))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["model.image_projection.weight"], other["model.image_projection.weight"])


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("image.size=32", "image.size is 32, but model.vision.image_size is 64"),
        ("text.max_tokens=41", "text.max_tokens is 41, but model.max_length is 40"),
        (
            "stages.0.sources.1.texts=captions",
            r"the box objective needs a source with `texts: regions` \(stage 'pretrain'\)",
        ),
        ("objectives=[]", r"objectives \[\]: name at least one, and each once"),
        ("objectives.1.type=itc", r"objectives \['itc', 'itc'\]: name at least one, and each once"),
        ("stages=[]", "name at least one stage"),
        ("stages.0.steps=0", "stages.0.steps: .*greater than or equal to 1"),
        ("stages.0.lr=-1", "stages.0.lr: .*greater than 0"),
        ("stages.0.sources.0.texts=words", "stages.0.sources.0.texts: .*'captions', 'regions', 'corpus'"),
        ("model.vision.type=vot", r"model.vision: unknown type 'vot' \(did you mean 'vit'\?\): choose from swin, vit"),
        ("model.vision.num_heads=3", "model.vision: dim 16 is not a multiple of num_heads 3"),
        ("objectives.0.type=itx", "objectives.0: unknown type 'itx'"),
        ("train.num_workers=-1", "train.num_workers: .*greater than or equal to 0"),
        ("evaluation.splits=[]", "evaluation: evaluation needs at least one split"),
    ],
)
def test_parts_that_do_not_fit_together_are_named(read, override, told):
    with pytest.raises(RecipeError, match=told) as caught:
        read(override)
    assert "\n" not in str(caught.value)


class Blind(VisionLanguageModel):
    """A model without embeddings."""

    dim = 4

    @configclass
    class Config:
        vocab_size: int | None = None

    def __init__(self, config):
        super().__init__()

    token_embedding = encode_image = encode_text = fuse = None


def test_objectives_that_a_model_cannot_serve_are_a_users_mistake(read):
    recipe = with_vocabulary(read(f"model={{type: '{__name__}:Blind'}}", "objectives=[{type: itc}]"), 30)
    with pytest.raises(RecipeError, match="objectives: itc compares image and text embeddings, which Blind does not"):
        build_learner(recipe)


def test_a_recipe_with_a_scenes_block_is_a_quickstart(read):
    assert isinstance(read(text=SMALL + "scenes: {size: 64}\n"), QuickstartRecipe)
    assert not isinstance(read(), QuickstartRecipe)
    with pytest.raises(UserError, match="scenes: unknown key"):
        load_recipe(PretrainRecipe, FOLDER / "quickstart.yaml")


def test_a_seed_that_torch_cannot_take_is_named(read):
    with pytest.raises(RecipeError, match=r"seed: .*less than"):
        read("seed=18446744073709551616")


def test_a_run_of_the_same_model_is_what_another_starts_from(read, tmp_path):
    """The newest checkpoint of the run folder, as `crossgrain convert` promises."""
    recipe = with_vocabulary(read(), 50)
    learnt = build_learner(replace(recipe, seed=1))
    state = checkpoint.State(3, "only", "float32", 1, {})
    checkpoint.save(tmp_path / "checkpoints", learnt, build_optimizer(learnt, recipe.optimizer), state, recipe, keep=1)
    learner = build_learner(recipe)
    replace(recipe, initial_weights=tmp_path).start(learner, None)
    assert all(torch.equal(tensor, learnt.state_dict()[name]) for name, tensor in learner.state_dict().items())


def test_validation_asks_the_objectives_of_the_last_stage(tmp_path):
    """The others have nothing to read there: no word is hidden for them."""
    few = ("stages.0.objectives=[itc]", "stages.0.steps=2", "train.num_workers=0")
    recipe = load_run_recipe(write_recipe(tmp_path / "recipe.yaml", draw_scenes(tmp_path / "data", size=24), *few))
    outcome = pretrain(recipe, tmp_path / "run")
    assert checkpoint.read_state(outcome.checkpoint).score is not None


def test_a_run_that_a_signal_stopped_does_not_end_as_a_finished_one(tmp_path, monkeypatch):
    stopped = Outcome("stopped", 1, tmp_path)
    monkeypatch.setattr(runs, "run_recipe", lambda *arguments, **keywords: stopped)
    assert cli.main(["pretrain", "xvlm_small", "--out", str(tmp_path)]) == 130


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("families", "variants"),
        ("tasks", "tasks"),
        ("ablations/xvlm", "variants"),
        ("quickstart_detector", "losses"),
        ("quickstart_cnn", "losses"),
    ],
)
def test_recipes_of_other_kinds_are_shown_complete(name, key, capsys):
    assert cli.main(["show", name]) == 0
    tree = read_yaml(capsys.readouterr().out, name)
    assert key in tree and tree["title"]
    assert ("cnn" in tree.get("model", {})) == (name == "quickstart_cnn")
