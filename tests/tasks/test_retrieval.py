import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from crossgrain.metrics.retrieval import rank_of_truth, recall
from crossgrain.tasks.gallery import nearest, score_matrices
from crossgrain.tasks.retrieval import Retrieval

SMALL = {"images_per_batch": 4, "texts_per_batch": 5, "pairs_per_batch": 7}


@pytest.fixture(scope="module")
def gallery(trained, records):
    """Every pair computed alone: embeddings' similarities and matching logits, images x texts."""
    texts = [text for record in records for text in record.captions]
    model, match = trained.model, trained.objectives["itm"].match
    with trained.answering():
        images = model.encode_image(trained.read_images(records))
        sides = [model.encode_text(trained.texts([text])) for text in texts]
        similarity = model.embed_image(images) @ torch.cat([model.embed_text(side) for side in sides]).T
        logits = torch.empty_like(similarity)
        for row in range(len(records)):
            one = model.prepare(model.encode_image(trained.read_images(records[row : row + 1])))
            for column, side in enumerate(sides):
                logits[row, column] = match(model.fuse(one, side).cls)[0, 1]
    owner = [row for row, record in enumerate(records) for _ in record.captions]
    return images, trained.texts(texts), similarity, logits.numpy(), owner


def dense(similarity, logits, k):
    """Retrieval.py:110-149 on matrices: the logits of each row's top k, -100 elsewhere."""
    top = similarity.topk(min(k, similarity.shape[1]), dim=1).indices.numpy()
    scores = np.full(similarity.shape, -100.0, dtype=np.float32)
    np.put_along_axis(scores, top, np.take_along_axis(logits, top, 1), 1)
    return scores


@pytest.mark.parametrize("k", [1, 3, 1000])
def test_score_matrices_hold_what_each_pair_scores_alone(trained, gallery, k):
    images, text, similarity, logits, _ = gallery
    with torch.inference_mode():
        tokens = trained.model.eval().encode_text(text)
    i2t, t2i = score_matrices(trained, images, tokens, similarity, k)
    np.testing.assert_allclose(i2t, dense(similarity, logits, k), atol=2e-5)
    np.testing.assert_allclose(t2i, dense(similarity.T, logits.T, k), atol=2e-5)


@pytest.mark.parametrize(("k", "rerank"), [(2, "matching"), (64, "matching"), (4, "sum")])
def test_lines_and_score_agree_with_the_matrices(trained, records, gallery, k, rerank):
    _, _, similarity, logits, owner = gallery
    if rerank == "sum":
        logits = logits + similarity.numpy() / trained.model.temperature.item()
    lines = list(Retrieval(Retrieval.Config(k=k, rerank=rerank, **SMALL)).predict(trained, records))
    score = Retrieval.score(json.loads(json.dumps(lines)))
    assert score.get("reranked_by") == ("matching and similarity" if rerank == "sum" else None)
    assert score["gallery"] == {"images": 13, "texts": len(owner)}
    asked = sorted(set(owner))
    texts_of_image = [[text for text, image in enumerate(owner) if image == row] for row in asked]
    cases = {"text_to_image": (similarity.T, logits.T, [[o] for o in owner]),
             "image_to_text": (similarity[asked], logits[asked], texts_of_image)}  # fmt: skip
    for direction, (sims, pairs, truth) in cases.items():
        # beyond the top k the order of similarity goes on, below every re-ranked candidate
        scores = np.where(dense(sims, pairs, k) > -100, pairs.astype(np.float64) + 1000, sims.numpy())
        ranks = rank_of_truth(scores, truth)
        mine = [line for line in lines if line["direction"] == direction]
        assert [line["rank"] - 1 for line in mine] == ranks.tolist()
        expected = {name: pytest.approx(100 * share, abs=0.006) for name, share in recall(ranks).items()}
        assert score[direction] == expected
        plain = recall(rank_of_truth(sims.numpy(), truth))
        assert score["without_rerank"][direction] == {n: pytest.approx(100 * s, abs=0.006) for n, s in plain.items()}
        for name, (low, high) in score["confidence_95"][direction].items():
            assert low <= score[direction][name] <= high


def test_no_image_is_encoded_or_prepared_twice_and_no_pair_is_fused_twice(trained, records, gallery, counted):
    *_, owner = gallery
    list(Retrieval(Retrieval.Config(k=1000, **SMALL)).predict(trained, records))
    assert (counted.encoded, counted.prepared, counted.fused) == (13, 13, 13 * len(owner))


def test_a_model_without_matching_gives_its_similarity_ranking_alone(trained, records):
    lines = list(Retrieval(Retrieval.Config(**SMALL)).predict(replace(trained, objectives={}), records))
    assert "ranked_without_rerank" not in lines[0] and "without_rerank" not in Retrieval.score(lines)
    full = list(Retrieval(Retrieval.Config(**SMALL)).predict(trained, records))
    assert [line["ranked"] for line in lines] == [line["ranked_without_rerank"] for line in full]


def test_without_an_embedding_space_every_pair_is_scored_as_if_alone(stream, records):
    """Batches of pairs, cut to their words and regions, change no logit and no rank."""
    lines = list(Retrieval(Retrieval.Config(k=1, **SMALL)).predict(stream, records))
    model, texts = stream.model, [(row, text) for row, record in enumerate(records) for text in record.captions]
    logits = np.empty((len(records), len(texts)))
    with stream.answering():
        for row, record in enumerate(records):
            image = model.encode_image(stream.read_images([record]))
            for column, (_, text) in enumerate(texts):
                cls = model.fuse(image, model.encode_text(stream.texts([text]))).cls
                logits[row, column] = stream.objectives["itm"].match(cls)[0, 1]
    owner = np.array([row for row, _ in texts])
    queries = [(logits[:, column], [row]) for column, row in enumerate(owner)]
    queries += [(logits[row], np.flatnonzero(owner == row)) for row in sorted(set(owner.tolist()))]
    for line, (scores, right) in zip(lines, queries, strict=True):
        np.testing.assert_allclose(line["scores"], np.sort(scores)[::-1][:10], atol=2e-5)
        better, equal = (int((scores > scores[right].max() + margin).sum()) for margin in (1e-5, -1e-5))
        assert better < line["rank"] <= equal  # pictures in which the detector found nothing are all the same
    score = Retrieval.score(json.loads(json.dumps(lines)))
    assert score["protocol"] == "all pairs" and "without_rerank" not in score
    assert score["gallery"] == {"images": 13, "texts": len(texts)}


@pytest.mark.parametrize("pairs", [7, 100])
def test_all_pairs_encode_each_image_once_and_fuse_each_pair_once(stream, records, gallery, counted, pairs):
    *_, owner = gallery
    list(Retrieval(Retrieval.Config(images_per_batch=4, pairs_per_batch=pairs)).predict(stream, records))
    assert (counted.encoded, counted.prepared, counted.fused) == (13, 13, 13 * len(owner))


def test_a_model_that_neither_embeds_nor_matches_is_not_asked(stream, trained):
    task = Retrieval(Retrieval.Config())
    assert task.missing(trained) is None and task.missing(stream) is None
    assert "matching objective" in str(task.missing(replace(stream, objectives={})))


def test_one_caption_per_image_makes_a_square_gallery(trained, records):
    captioned = [record for record in records if record.captions]
    lines = list(Retrieval(Retrieval.Config(captions_per_image=1, **SMALL)).predict(trained, captioned))
    assert Retrieval.score(lines)["gallery"] == {"images": len(captioned), "texts": len(captioned)}
    assert {line["query"] for line in lines if "text" in line} == {f"{record.key}#0" for record in captioned}


def test_records_without_captions_ask_nothing(trained, records):
    assert list(Retrieval(Retrieval.Config()).predict(trained, [replace(records[0], captions=())])) == []


def test_asking_leaves_the_model_in_training_mode(trained, records):
    trained.model.train()
    trained.model.vision.eval()  # a frozen part stays as it is
    list(Retrieval(Retrieval.Config(**SMALL)).predict(trained, records[:3]))
    assert trained.model.training and not trained.model.vision.training
    trained.model.vision.train()


def test_text_of_any_length_scores_the_same_in_company(trained):
    text = trained.texts(["a", "a red star the two blue circle"])
    assert text.ids.tolist()[0] == [*trained.tokenize("a"), 0, 0, 0, 0, 0, 0]
    assert text.mask.sum(1).tolist() == [2, 8]


def test_in_bfloat16_the_scores_are_close_and_do_not_tie(trained, records):
    retrieval = Retrieval(Retrieval.Config(**SMALL))
    exact, rough = (list(retrieval.predict(t, records)) for t in (trained, replace(trained, precision=torch.bfloat16)))
    for a, b in zip(exact, rough, strict=True):
        assert sorted(b["scores"], reverse=True)[:10] == pytest.approx(sorted(a["scores"], reverse=True)[:10], abs=0.1)
    scores = [score for line in rough if line["direction"] == "text_to_image" for score in line["scores"]]
    assert len(set(scores)) > 0.9 * len(scores)


def test_a_right_candidate_ranks_behind_wrong_ones_that_are_as_similar():
    similar = torch.tensor([[1.0], [1.0], [1.0], [0.0]])
    queries = torch.ones(3, 1)
    found = nearest(queries, similar, [[2], [0, 1], [3]], 1)
    assert found.rank.tolist() == [2, 1, 3]  # behind 0 and 1; behind 2 alone; behind all others
