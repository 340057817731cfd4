"""The library's recipes of fine-tuning: they load, their models and heads build, and what their heads say can be typed.

One without a `model` block goes on from whatever run it names, and is loaded against a tiny one.
"""

import re
import shlex
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from crossgrain import cli
from crossgrain.config import config_owner, find_recipe, read_yaml, save_recipe
from crossgrain.data.asks import Reading
from crossgrain.data.text import Tokenizer, train_vocab
from crossgrain.finetuning import FinetuneRecipe, resized
from crossgrain.models.xvlm import XVLM
from crossgrain.nn.vision import Swin
from crossgrain.recipes import PretrainRecipe, build_learner, load_run_recipe, objective_name, with_vocabulary
from crossgrain.training import checkpoint

FOLDER = Path(__file__).parents[1] / "recipes"
SHIPPED = sorted((FOLDER / "finetune").glob("*.yaml"))
WHOLE = [path for path in SHIPPED if "model" in read_yaml(path.read_text(encoding="utf-8"), path.name)]
FROM_ANY_RUN = [path for path in SHIPPED if path not in WHOLE]
RUNS = {path.stem for path in FOLDER.rglob("*.yaml")}  # a run is called as its recipe
TASKS = ("retrieval", "vqa", "nlvr2", "vcr", "grounding", "captioning")
FAMILIES = ("imagebert", "vlbert", "pixelbert", "xvlm")
ANSWERS = ("yes", "no", "2", "red car")

RUN = """
model: {type: xvlm, vision: {type: vit, image_size: 64, patch_size: 16, dim: 16, depth: 2, num_heads: 2,
        local_attention_depth: 1}, dim: 16, num_heads: 2, mlp_dim: 32, text_depth: 1, cross_depth: 1, max_length: 40}
objectives: [{type: itc}, {type: itm}]
image: {size: 64}
text: {vocab: vocab.txt, max_tokens: 24}
stages: [{steps: 3, sources: [{path: data, batch_size: 4}]}]
"""


def head_of(path: Path) -> str:
    """The comment that a recipe opens with."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return "\n".join(lines[: next(number for number, line in enumerate(lines) if not line.startswith("#"))])


def commands_of(path: Path) -> list[list[str]]:
    """The commands of a head as words, with those that torchrun starts."""
    text = re.sub(r"\\\n#\s+", "", head_of(path))
    lines = [line.removeprefix("#   ") for line in text.splitlines() if line.startswith("#   ")]
    return [shlex.split(line, comments=True) for line in lines if line.startswith(("crossgrain ", "torchrun "))]


@pytest.fixture(scope="module")
def answers(tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("answers") / "answers.txt"
    file.write_text("".join(f"{answer}\n" for answer in ANSWERS))
    return file


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(train_vocab(["a picture of a red car", *ANSWERS] * 3, 100))


def load(path: Path, answers: Path, *overrides: str) -> FinetuneRecipe:
    """With an answer vocabulary where it needs one."""
    text = path.read_text(encoding="utf-8")
    recipe = load_run_recipe(path, [*([f"answers={answers}"] if "type: vqa" in text else []), *overrides])
    assert isinstance(recipe, FinetuneRecipe)
    return recipe


def load_pretraining(path: Path, answers: Path, *overrides: str) -> PretrainRecipe:
    """Which asks no questions."""
    return load_run_recipe(path, overrides)


def check_builds(recipe: FinetuneRecipe, tokenizer: Tokenizer) -> None:
    """Model, head and objectives, without numbers; and the head finds the texts that its task reads."""
    plain = replace(recipe, model=recipe.model.from_scratch(), initial_weights=None)
    with torch.device("meta"):
        learner = build_learner(with_vocabulary(plain, 30_000), tokenizer=tokenizer)
    task = recipe.build_task()
    assert set(learner.objectives) == {task.name, *map(objective_name, recipe.objectives)}
    assert all(parameter.is_meta for parameter in learner.parameters())
    Reading(tokenizer=tokenizer, text=recipe.text, answers=task.answers, **task.reading(learner.model))
    assert {source.texts for source in recipe.stages[-1].sources} == {task.texts}
    assert {source.texts for stage in recipe.stages for source in stage.sources} <= {task.texts, "captions"}
    assert [config_owner(config).name for config in recipe.evaluation.tasks] == [task.name]


def test_every_family_has_a_recipe_for_every_task():
    names = {path.stem for path in WHOLE}
    assert {f"{task}_{family}" for task in TASKS for family in FAMILIES} <= names
    assert all(any(f"{task}_{family}_small" in names for family in FAMILIES) for task in TASKS)
    assert {f"scenes_{task}" for task in TASKS} | {"forkme"} == {path.stem for path in FROM_ANY_RUN}
    further = {"grounding_weak_xvlm", "captioning_pretrain_xvlm", "captioning_scst_xvlm"}
    assert further | {"vqa_vlbert_large", "vcr_vlbert_large", "grounding_vlbert_large"} <= names


@pytest.mark.parametrize("path", WHOLE, ids=lambda path: path.stem)
def test_a_recipe_survives_saving_and_its_model_and_head_build(path, answers, tokenizer, tmp_path):
    recipe = load(path, answers)
    assert recipe.title
    assert path.stem.startswith(config_owner(recipe.task).name)
    save_recipe(recipe, tmp_path / "saved.yaml")
    assert load_run_recipe(tmp_path / "saved.yaml") == recipe
    check_builds(recipe, tokenizer)


@pytest.mark.parametrize("path", FROM_ANY_RUN, ids=lambda path: path.stem)
def test_a_recipe_without_a_model_takes_that_of_its_run(path, answers, tokenizer, tmp_path):
    (tmp_path / "recipe.yaml").write_text(RUN, encoding="utf-8")
    (tmp_path / "vocab.txt").write_text("[PAD]\n", encoding="utf-8")
    recipe = load(path, answers, f"initial_weights={tmp_path}")
    assert (recipe.model.dim, recipe.image.size) == (16, 64)
    assert recipe.text.vocab == str(tmp_path / "vocab.txt")
    check_builds(recipe, tokenizer)


@pytest.mark.parametrize("path", WHOLE, ids=lambda path: path.stem)
def test_a_head_tells_command_cost_and_what_to_expect(path, answers):
    head = head_of(path)
    assert "\n# Cost, an estimate and not measured: " in head
    assert re.search(r"\n# To expect(:|, )", head)
    told = " ".join(head.replace("\n#", "").split())
    assert "Measured here: nothing yet." in told or "this project has not measured it" in told
    assert [words for words in commands_of(path) if words[-2:] == ["finetune", f"recipes/finetune/{path.name}"]]
    start = load(path, answers).initial_weights
    assert start is not None and start.parts[0] == "runs"
    assert start.name in RUNS or f"--out {start}" in told or f"({start} as for" in told


@pytest.mark.parametrize("path", [*SHIPPED, *(FOLDER / "pretrain").glob("*.yaml")], ids=lambda path: path.stem)
def test_the_commands_of_a_head_can_be_typed(path, answers):
    """The parser knows them; recipes that they name are there and take the overrides; ranks divide the batch."""
    for words in commands_of(path):
        options = dict(pairwise(words)) if words[0] == "torchrun" else {}
        processes = int(options.get("--nproc-per-node", 1)) * int(options.get("--nnodes", 1))
        typed = words[1:] if words[0] == "crossgrain" else words[words.index("crossgrain.cli") + 1 :]
        arguments = cli._parse(typed)
        if arguments.verb not in ("pretrain", "finetune") or path in FROM_ANY_RUN:
            continue
        loaded = load if arguments.verb == "finetune" else load_pretraining
        recipe = loaded(find_recipe(arguments.recipe), answers, *arguments.overrides)
        sizes = [source.batch_size for stage in recipe.stages for source in stage.sources]
        assert [size for size in sizes if size % processes] == []


def test_the_commands_of_the_page_on_tasks_can_be_typed(answers):
    page = (FOLDER.parent / "docs" / "tasks.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```bash\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("crossgrain ")]
    assert len(lines) > 20
    for line in lines:
        arguments = cli._parse(shlex.split(line, comments=True)[1:])
        if arguments.verb == "finetune":
            load(find_recipe(arguments.recipe), answers, *arguments.overrides)
    mentioned = set(re.findall(r"`recipes/finetune/(\w+)\.yaml`", page))
    assert {f"{task}_{family}" for task in TASKS for family in FAMILIES} <= mentioned


def tiny_swin(size: int, window: int) -> XVLM:
    vision = Swin.Config(image_size=size, window_size=window, embed_dim=8, depths=(2, 2), num_heads=(1, 2))
    return XVLM(XVLM.Config(vision=vision, dim=8, num_heads=1, mlp_dim=8, text_depth=1, cross_depth=1, vocab_size=9))


@pytest.mark.filterwarnings("ignore::UserWarning:timm")
def test_images_may_grow_in_fine_tuning():
    """Relative positions of a window are interpolated from edge to edge; all else stays what it was."""
    small, large = tiny_swin(56, 7), tiny_swin(96, 12)
    learnt = checkpoint.unique_tensors(small)
    tables = [name for name in learnt if name.endswith("relative_position_bias_table")]
    assert len(tables) == 4
    offset = torch.arange(-6.0, 7.0)
    for name in tables:
        learnt[name].data.copy_((100 * offset[:, None] + offset).reshape(-1, 1))
    fitted = resized(learnt, large)
    checkpoint.copy_tensors(fitted, checkpoint.unique_tensors(large), "the run")
    for name in tables:
        table = fitted[name][:, 0].view(23, 23)
        assert torch.allclose(table, -table.flip(0, 1), atol=1e-2)
        assert table[11, 11].item() == pytest.approx(0, abs=1e-2)
        assert table[-1, 0].item() == pytest.approx(594, abs=1)
        assert (table.diff(dim=0) > 0).all() and (table.diff(dim=1) > 0).all()
    assert all(torch.equal(fitted[name], learnt[name]) for name in learnt if name not in tables)
