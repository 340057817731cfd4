"""A bench runs every variant once, on shared scenes, and tells in one table what came of it."""

import contextlib
import io
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console

from crossgrain import cli
from crossgrain.bench.measure import RESULT, last_losses, measure_variant, speed
from crossgrain.bench.plan import load_plan, with_steps
from crossgrain.bench.run import run_bench
from crossgrain.bench.table import table_of
from crossgrain.config import UserError, find_recipe, read_yaml
from crossgrain.documents.markup import Cell
from crossgrain.recipes import build_learner, load_run_recipe, with_vocabulary

FOLDER = Path(__file__).parents[1] / "recipes"
FAMILIES = ("imagebert", "pixelbert", "vlbert", "xvlm")

START = """
title: X-VLM in miniature
scenes: {size: 16, image_size: 64, vocab_size: 300}
model:
  type: xvlm
  vision: {type: vit, image_size: 64, patch_size: 16, dim: 32, depth: 2, num_heads: 2, local_attention_depth: 1}
  dim: 32
  num_heads: 2
  mlp_dim: 64
  text_depth: 1
  cross_depth: 1
  max_length: 32
  embedding_dim: 16
objectives: [{type: itc}, {type: itm}, {type: mlm}, {type: box}]
image: {size: 64}
text: {vocab: vocab.txt, max_tokens: 20}
stages:
  - steps: 8
    lr: 1e-3
    sources: [{path: data, texts: regions, batch_size: 4, texts_per_image: 2}]
train: {precision: float32, num_workers: 0, tensorboard: false}
evaluation: {splits: [test], tasks: [{type: retrieval, k: 2, captions_per_image: 1}, {type: grounding}]}
"""
BENCH = """
title: A tiny comparison
recipe: START
steps: 2
limit: 2
variants:
  - name: all_of_it
  - {name: without_boxes, note: three objectives, overrides: ["stages.0.objectives=[itc, itm, mlm]"]}
  - {name: too_large, not_run: it takes a week}
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> SimpleNamespace:
    """The first variant of a bench, run by the command; what it printed, and where all lies."""
    folder = tmp_path_factory.mktemp("bench")
    (folder / "start.yaml").write_text(START)
    (folder / "bench.yaml").write_text(BENCH.replace("START", str(folder / "start.yaml")))
    name, out = str(folder / "bench.yaml"), folder / "out"
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        command = ["bench", "ablations", "seed=1", "--recipe", name, "--variants", "all_of_it", "--json"]
        assert cli.main([*command, "--out", str(out)]) == 0
    return SimpleNamespace(name=name, out=out, told=json.loads(printed.getvalue()), text=(out / "bench.md").read_text())


def run(made, *, measure=measure_variant, **options):
    plan = load_plan(made.name, overrides=["seed=1"], **options)
    return plan, run_bench(plan, made.out, Console(quiet=True), measure)


def test_a_result_says_what_was_learnt_and_what_it_took(made):
    (result,) = made.told["variants"]
    assert (result["name"], result["status"], result["steps"]) == ("all_of_it", "finished", 2)
    assert set(result["losses"]) == {"itc", "itm", "mlm", "box"}
    retrieval = result["scores"]["retrieval"]
    assert retrieval["gallery"] == {"images": 2, "texts": 2}
    assert 0 <= retrieval["text_to_image"]["R@1"] <= 100
    assert result["images_per_second"] == pytest.approx(4 / result["seconds_per_step"])
    assert result["texts_per_second"] == pytest.approx(8 / result["seconds_per_step"])
    assert 2**26 < result["peak_memory"] < 2**33
    assert (made.out / "all_of_it" / "evaluation" / "report.html").is_file()


def test_the_table_stands_beside_its_command_date_and_hardware(made):
    assert "`crossgrain bench ablations seed=1 --recipe" in made.text
    assert all(f"\n- {fact}: " in made.text for fact in ("date", "hardware", "versions", "data"))
    assert str(made.out) not in made.text
    titles = [line.split(" | ")[0] for line in made.text.splitlines() if line.startswith("| ")]
    assert {"| loss: mlm", "| boxes found, IoU 0.5", "| seconds a step", "| peak memory, GiB"} <= set(titles)
    assert "| text → image, R@1, by matching" in titles and "| text → image, R@1, by similarity" in titles


def test_what_is_finished_is_not_run_again_and_what_is_new_is(made):
    before = (made.out / "all_of_it" / RESULT).read_bytes()
    called = []

    def measure(recipe, folder, stderr, data):
        called.append(folder.name)
        measure_variant(recipe, folder, stderr, data)

    _, (first, second, third) = run(made, measure=measure)
    assert called == ["without_boxes"]
    assert (made.out / "all_of_it" / RESULT).read_bytes() == before
    assert first["losses"] == made.told["variants"][0]["losses"]
    assert set(second["losses"]) == {"itc", "itm", "mlm"}
    assert "grounding" not in second["scores"]  # no stage has trained the head of boxes
    assert (third["status"], third["reason"]) == ("not run", "it takes a week")


def test_a_variant_that_failed_is_told_and_tried_again(made, tmp_path):
    made = SimpleNamespace(name=made.name, out=tmp_path)

    def fail(recipe, folder, stderr, data):
        measure_variant(replace(recipe, initial_weights=tmp_path / "gone"), folder, stderr, data)

    _, results = run(made, measure=fail, chosen=["all_of_it"])
    assert results[0]["status"] == "failed"
    assert str(tmp_path / "gone") in results[0]["reason"]
    _, results = run(made, measure=lambda *_: None, chosen=["all_of_it"])
    assert results[0]["reason"] == "its process ended before its time"
    _, results = run(made, chosen=["all_of_it"])
    assert results[0]["status"] == "finished"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"steps": 3}, r"all_of_it holds another run \(stages.0.steps is 2 there and 3 here\)"),
        ({"limit": 1}, r"all_of_it holds another run \(evaluation.limit is 2 there and 1 here\)"),
        ({"steps": 0}, "steps must be at least 1, not 0"),
        ({"chosen": ["nothing"]}, "has no variant 'nothing': choose from all_of_it, without_boxes, too_large"),
        ({"chosen": ["too_large"]}, "none of too_large is run"),
    ],
)
def test_what_cannot_be_compared_is_refused(made, options, told):
    with pytest.raises(UserError, match=told):
        run(made, measure=lambda *_: pytest.fail("nothing is to be run"), **options)


def test_variants_share_their_scenes(made, tmp_path):
    file = tmp_path / "bench.yaml"
    file.write_text(Path(made.name).read_text().replace("name: all_of_it", "{name: a, overrides: [scenes.seed=1]}"))
    with pytest.raises(UserError, match=r"share their scenes, but want Scenes\(.*seed=1.*seed=0"):
        load_plan(str(file))
    with pytest.raises(UserError, match=r"all_of_it holds another run \(scenes is "):
        run_bench(load_plan(made.name, overrides=["scenes.seed=1"]), made.out, Console(quiet=True))


def test_steps_are_shared_out_as_they_were():
    recipe = load_run_recipe(FOLDER / "quickstart_vlbert.yaml", ("stages.0.steps=1000", "stages.1.steps=600"))
    halved = with_steps(recipe, 800)
    assert [stage.steps for stage in halved.stages] == [500, 300]
    for before, after in zip(recipe.stages, halved.stages, strict=True):
        assert 2 * after.schedule.warmup_steps == before.schedule.warmup_steps > 0
    assert [stage.steps for stage in with_steps(recipe, 2).stages] == [1, 1]
    with pytest.raises(UserError, match="1 steps are too few for 2 stages"):
        with_steps(recipe, 1)


def test_losses_and_speed_are_of_the_stages_that_have_them():
    log = [{"stage": "a", "seconds_per_step": 1.0 + 9.0 * (n == 0), "x/loss": float(n)} for n in range(20)]
    log += [{"stage": "b", "seconds_per_step": 3.0, "y/loss": 5.0}]
    assert last_losses(log) == {"x": 18.5, "y": 5.0}
    recipe = load_run_recipe(FOLDER / "quickstart_vlbert.yaml", ("stages.0.name=a", "stages.1.name=b"))
    images = (stage.steps * stage.sources[0].batch_size for stage in recipe.stages)
    steps = [stage.steps for stage in recipe.stages]
    found = speed(recipe, log)
    assert found["seconds_per_step"] == pytest.approx((steps[0] + 3 * steps[1]) / sum(steps))
    assert (
        found["images_per_second"]
        == found["texts_per_second"]
        == pytest.approx(sum(images) / (steps[0] + 3 * steps[1]))
    )


def test_a_stage_without_a_line_in_the_log_has_no_speed():
    recipe = load_run_recipe(FOLDER / "quickstart_vlbert.yaml", ("stages.0.name=a", "stages.1.name=b"))
    found = speed(recipe, [{"stage": "b", "seconds_per_step": 3.0}])
    assert found["seconds_per_step"] == 3.0
    assert found["images_per_second"] == pytest.approx(recipe.stages[1].sources[0].batch_size / 3)
    assert speed(recipe, []) == {}


def result(name, **changes):
    scored = {"accuracy": 50.0, "majority": 7.0, "confidence_95": {"accuracy": [40.0, 60.0]}}
    shared = {"status": "finished", "uses_detector": False, "parameters": 2_000_000, "steps": 4, "peak_memory": None}
    rates = {"seconds_per_step": 0.5, "images_per_second": 8.0, "texts_per_second": 16.0}
    return {"name": name, **shared, **rates, "losses": {"mlm": 1.0}, "scores": {"masked_words": scored}, **changes}


def test_a_figure_that_a_variant_does_not_have_is_left_empty():
    other = {"losses": {"mlm": 2.0, "itc": 3.0}, "scores": {}, "uses_detector": True}
    failed = {"name": "c", "status": "failed", "reason": "no"}
    table = table_of([result("one_of_two"), result("b", **other), failed], detector=500_000)
    assert table.columns == ["", "one of two", "b", "chance"]
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows["parameters, million"] == ["2.00", "2.50", ""]
    assert rows["loss: itc"] == ["", "3.000", ""]
    assert rows["hidden words named"] == [Cell("50.0", "40.0 to 60.0"), "", "7.0"]
    assert not {"peak memory, GiB", "loss: box", "boxes found, IoU 0.5"} & set(rows)


def test_the_four_families_have_about_as_many_parameters_and_images_a_step():
    plan = load_plan("families")
    assert sorted(one.variant.name for one in plan.variants) == sorted(FAMILIES)
    sizes, images = [], set()
    for one in plan.variants:
        assert one.recipe is not None
        with torch.device("meta"):
            learner = build_learner(with_vocabulary(one.recipe, 1000))
        detector = 1_030_000 if one.recipe.detector else 0
        sizes.append(sum(p.numel() for p in learner.parameters()) + detector)
        images |= {sum(source.batch_size for source in stage.sources) for stage in one.recipe.stages}
    assert max(sizes) < 1.1 * min(sizes)
    assert images == {64}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_models_of_the_ablations_build(family):
    tree = read_yaml((FOLDER / "ablations" / f"{family}.yaml").read_text(), family)
    plan = load_plan(f"ablations/{family}")
    assert len(plan.variants) == len(tree["variants"]) >= 4
    for one in plan.variants:
        if one.recipe is not None:
            with torch.device("meta"):
                build_learner(with_vocabulary(one.recipe, 1000))


def test_the_bench_of_the_web_wants_what_was_collected_and_says_so_before_it_draws(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plan = load_plan("ablations/imagebert_lait")
    stages = {one.variant.name: [stage.name for stage in one.recipe.stages] for one in plan.variants}
    assert stages == {"multi_stage": ["web", "clean"], "single_stage": ["clean"], "web_only": ["web"]}
    others = {one.variant.name: one.recipe.other_data() for one in plan.variants}
    web = [Path("data/scenes_web/shards")]
    assert others == {"multi_stage": web, "single_stage": [], "web_only": web}
    with pytest.raises(UserError, match="no data set in data/scenes_web/shards"):
        run_bench(plan, tmp_path / "out", Console(quiet=True))
    assert not (tmp_path / "out" / "data").exists()


def test_a_bench_does_not_hide_a_recipe_of_its_name():
    assert find_recipe("xvlm") == FOLDER / "pretrain" / "xvlm.yaml"
