"""From a recipe to tasks: what each stage is made of, what it reads, and which part of the recipe it depends on."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, is_dataclass
from functools import partial
from pathlib import Path
from typing import Any

from crossgrain.collect import hash_sets
from crossgrain.collect.fetch.config import FetchConfig
from crossgrain.collect.images.blocklist import load_blocklist
from crossgrain.collect.images.filter import ImageFilter
from crossgrain.collect.pages.inputs import Input, list_inputs
from crossgrain.collect.planted import read_truth
from crossgrain.collect.recipe import CollectRecipe
from crossgrain.collect.scoring.interface import build_scorer
from crossgrain.collect.sentences import Cleaner
from crossgrain.collect.stages.images import set_aside, take_images
from crossgrain.collect.stages.merge import merge_bucket
from crossgrain.collect.stages.pages import read_shard
from crossgrain.collect.stages.plan import plan_shards, select_pairs
from crossgrain.collect.stages.scores import find_threshold, score_bucket
from crossgrain.collect.stages.shards import write_shard
from crossgrain.collect.tasks import Done, Task, Work, digest_of, digests
from crossgrain.collect.tombstones import Tombstones
from crossgrain.config import UserError, dump_config
from crossgrain.data.scenes.web import TEST_SET, TRUTH, write_web

WEB = "web"  # the folder of a planted web
_FORMAT = 1  # of what the stages leave: another number makes them all run anew
# What of fetching decides what comes of an address; the rest decides how fast, and what fails for the moment.
_FETCH_RULES = ("agent", "ai_tokens", "site_files", "max_image_bytes", "max_redirects", "ports")


class Steps:
    """The tasks of every stage of one run, made from what the stages before have left."""

    def __init__(self, recipe: CollectRecipe, out: Path):
        """UserError for whatever the recipe names and cannot be had."""
        self.recipe = recipe
        Cleaner(recipe.sentences)  # these three name languages, lists and classifiers, which are looked for here
        ImageFilter(recipe.images)
        load_blocklist(recipe.images.blocklist)
        if recipe.fetch_missing:
            recipe.fetch.check_contact()
        self.work = out / "work"
        self.data = out / "shards"
        self.work.mkdir(parents=True, exist_ok=True)
        self.test_sets: dict[str, Path] = {}
        for path in recipe.aggregate.test_sets:
            self._add_test_set(hash_sets.load(path).name, path)
        inputs = list(recipe.inputs)
        if recipe.scenes_web is not None:
            inputs += self._draw_web(out / WEB)
        self.removed = Tombstones.load(out)
        self.inputs = list_inputs(inputs, self.work, recipe.fetch)
        self.fingerprints = {shard.id: shard.fingerprint() for shard in self.inputs}
        self.scorer = None if recipe.scorer is None else partial(build_scorer, recipe.scorer)
        self.scorer_fingerprint = self.scorer().fingerprint() if self.scorer else ""

    def pages(self) -> list[Task]:
        """A task an input shard."""
        config = _digest(self.recipe.pages, self.recipe.sentences, _rules(self.recipe.fetch), self.recipe.num_buckets)
        lists = sum(shard.kind == "urls" for shard in self.inputs)
        shared = {
            "pages": self.recipe.pages,
            "sentences": self.recipe.sentences,
            "fetch": self.recipe.fetch.for_one_of(max(1, min(lists, self.recipe.workers()))),
            "num_buckets": self.recipe.num_buckets,
        }
        return [
            self._task(
                "pages", shard.id, partial(read_shard, shard=shard, **shared), config, [self.fingerprints[shard.id]]
            )
            for shard in self.inputs
        ]

    def merge(self, pages: Sequence[Done]) -> list[Task]:
        """A task a bucket of addresses."""
        config = _digest(self.recipe.num_buckets, self.recipe.tasks_per_domain)
        shared = {
            "parts": [done.path(".parquet") for done in pages],
            "archives": [done.path(".archive.parquet") for done in pages],
            "num_buckets": self.recipe.num_buckets,
            "tasks_per_domain": self.recipe.tasks_per_domain,
        }
        return self._buckets("merge", merge_bucket, shared, config, digests(pages))

    def images(self, merged: Sequence[Done]) -> list[Task]:
        """A task a bucket of addresses, all of a domain in one (or in `tasks_per_domain`)."""
        fetch = self.recipe.fetch
        rules = _digest(_rules(fetch), self.recipe.fetch_missing, self.recipe.images)
        shared = {
            "parts": [done.path(".parquet") for done in merged],
            "archives": {shard.id: Path(shard.path) for shard in self.inputs if shard.path},
            "fetch": fetch.for_one_of(self.recipe.tasks_per_domain) if self.recipe.fetch_missing else None,
            "max_bytes": fetch.max_image_bytes,
            "images": self.recipe.images,
            "num_buckets": self.recipe.num_buckets,
            "rules": rules,
            "layout": f"{self.recipe.num_buckets}-{self.recipe.tasks_per_domain}",
            "removed": tuple(self.removed.entries),
        }
        config = digest_of([rules, self.removed.digest()])
        archives = [self.fingerprints[shard.id] for shard in self.inputs if shard.kind == "warc"]
        tasks = self._buckets("images", take_images, shared, config, [*digests(merged), *archives])
        set_aside(self.work / "images", rules, shared["layout"], {task.shard for task in tasks if task.done()})
        return tasks

    def scores(self, images: Sequence[Done]) -> list[Task]:
        """A task a bucket of images."""
        shared = {"parts": [done.path(".pairs.parquet") for done in images], "make_scorer": self.scorer}
        config = _digest(self.scorer_fingerprint, self.recipe.num_buckets)
        return self._buckets("scores", score_bucket, shared, config, digests(images, ".pairs.parquet", ".tar"))

    def threshold(self, scores: Sequence[Done]) -> list[Task]:
        """One task, where the recipe asks for a percentile."""
        percentile = self.recipe.threshold.percentile
        if percentile is None:
            return []
        parts = [done.path(".parquet") for done in scores]
        function = partial(find_threshold, parts=parts, percentile=percentile)
        return [self._task("threshold", "all", function, _digest(percentile), digests(scores))]

    def aggregate(self, scores: Sequence[Done], threshold: Sequence[Done]) -> list[Task]:
        """One task that decides about every pair; none where the percentile that it needs was given up."""
        rules, value = self.recipe.aggregate, self.recipe.threshold.value
        if self.recipe.threshold.percentile is not None:
            if not threshold:
                return []
            value = threshold[0].facts["threshold"]
        shared = {
            "parts": [done.path(".parquet") for done in scores],
            "images": self.work / "images",
            "threshold": value,
            "near_distance": rules.near_distance,
            "max_images_per_text": rules.max_images_per_text,
            "test_sets": self.test_sets,
            "removed": tuple(self.removed.entries),
            "seed": self.recipe.seed,
            "records_per_shard": self.recipe.records_per_shard,
        }
        numbers = [value, rules.near_distance, rules.max_images_per_text, self.recipe.seed]
        sets = {name: _file_digest(path) for name, path in sorted(self.test_sets.items())}
        config = _digest(*numbers, self.recipe.records_per_shard, sets, self.removed.digest())
        return [self._task("aggregate", "all", partial(plan_shards, **shared), config, digests(scores))]

    def select(self, scores: Sequence[Done], plan: Sequence[Done]) -> list[Task]:
        """A task a part of the scores."""
        return [
            self._task(
                "select",
                done.shard,
                partial(select_pairs, part=done.path(".parquet"), number=number, plan=plan[0].path(".parquet")),
                _digest(number),
                [done.digest(), *digests(plan)],
            )
            for number, done in enumerate(scores)
            if plan
        ]

    def shards(self, selected: Sequence[Done], plan: Sequence[Done]) -> list[Task]:
        """A task a shard of the data set."""
        shared = {
            "parts": [done.path(".parquet") for done in selected],
            "images": self.work / "images",
            "data": self.data,
            "seed": self.recipe.seed,
            "val_share": self.recipe.val_share,
        }
        config = _digest(self.recipe.seed, self.recipe.val_share)
        count = plan[0].facts["num_shards"] if plan else 0
        return self._buckets("shards", write_shard, shared, config, digests(selected), count)

    def _buckets(
        self,
        stage: str,
        function: Callable[..., None],
        shared: dict[str, Any],
        config: str,
        inputs: Sequence[str],
        count: int | None = None,
    ) -> list[Task]:
        """A task for every number."""
        count = self.recipe.num_buckets if count is None else count
        return [
            self._task(stage, f"{number:05d}", partial(function, bucket=number, **shared), config, inputs)
            for number in range(count)
        ]

    def _task(
        self, stage: str, shard: str, function: Callable[[Work], None], config: str, inputs: Sequence[str]
    ) -> Task:
        return Task(
            stage=stage,
            shard=shard,
            folder=self.work / stage,
            function=function,
            config=digest_of([_FORMAT, config]),
            inputs=tuple(inputs),
        )

    def _draw_web(self, folder: Path) -> list[Input]:
        """Draw the web of scenes where it is not there yet, and hash its test set: what to read."""
        asked = self.recipe.scenes_web
        assert asked is not None
        if _drawn(folder) != (asked.pages, asked.seed):  # another web, of which not every file would be overwritten
            for file in [folder / TRUTH, *folder.glob("web-*.warc.gz"), *(folder / TEST_SET).glob("*.jpg")]:
                file.unlink(missing_ok=True)
        write_web(folder, asked.pages, asked.seed)
        found = sorted((folder / TEST_SET).glob("*.jpg"))
        if found:
            self._add_test_set("scenes", self.work / "scenes.hashes")
            hash_sets.build(found, "scenes", self.test_sets["scenes"])
        return [Input(path=path, kind="warc") for path in sorted(folder.glob("*.warc.gz"))]

    def _add_test_set(self, name: str, path: Path) -> None:
        if name in self.test_sets:
            others = f"{self.test_sets[name]} and {path}"
            raise UserError(f"two test sets are called {name}: {others}; build one with another --name")
        self.test_sets[name] = path


def _drawn(folder: Path) -> tuple[int, int] | None:
    """Pages and seed of the web that a folder holds whole."""
    try:
        made = read_truth(folder)["made"]
        return made["pages"], made["seed"]
    except (ValueError, KeyError, TypeError):
        return None


def _rules(fetch: FetchConfig) -> dict[str, Any]:
    return {name: value for name, value in dump_config(fetch).items() if name in _FETCH_RULES}


def _digest(*values: Any) -> str:
    """A name for configs and plain values, with the content of the files that the configs name."""
    plain = [dump_config(value) if is_dataclass(value) else value for value in values]
    files = [_file_digest(path) for value in values if is_dataclass(value) for path in _paths(value)]
    return digest_of([plain, files])


def _paths(config: Any) -> Iterator[Path]:
    """The files that a config names, in any of its fields."""
    for value in (getattr(config, one.name) for one in fields(config)):
        for one in value if isinstance(value, list | tuple) else [value]:
            if is_dataclass(one):
                yield from _paths(one)
            elif isinstance(one, Path):
                yield one


def _file_digest(path: Path) -> str:
    if not path.is_file():
        raise UserError(f"the recipe names {path}, and there is no such file")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
