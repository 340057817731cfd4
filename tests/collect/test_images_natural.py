"""The natural-image classifier: the shipped weights on drawings that they have not seen, and training on folders."""

import numpy as np
import pytest
from found_images import edits, saved, scene
from PIL import Image

from crossgrain.collect.images import specimens
from crossgrain.collect.images.natural import SIDE, NaturalClassifier, fit, statistics, train
from crossgrain.config import UserError
from crossgrain.data.images import open_image

UNSEEN = 5_000_000  # seeds from here on were not trained on


@pytest.fixture(scope="module")
def shipped() -> NaturalClassifier:
    return NaturalClassifier.load()


def scores(classifier: NaturalClassifier, files: list[bytes]) -> np.ndarray:
    return np.array([classifier.score(open_image(data, at_least=SIDE)) for data in files])


def drawn(kind: str, number: int) -> list[bytes]:
    return [specimens.encode_as_found(specimens.draw(kind, UNSEEN + index), UNSEEN + index) for index in range(number)]


def test_drawn_scenes_are_natural_at_any_size(shipped):
    files = [saved(scene(index, size), quality=92) for index in range(25) for size in (301, 400, 480)]
    assert (scores(shipped, files) >= 0.5).mean() >= 0.99


def test_copies_of_scenes_are_natural_as_well(shipped):
    # Brightened, the pale backgrounds of the scenes become plain white: such a copy does look like clip art.
    kinds = ("JPEG q40", "half size", "10 % stretch", "4 % crop")
    files = [edits(scene(index, 640))[kind] for index in range(100, 106) for kind in kinds]
    assert (scores(shipped, files) >= 0.5).mean() >= 0.97


@pytest.mark.parametrize("kind", [*specimens.UNNATURAL])
def test_furniture_of_pages_is_not(shipped, kind):
    assert (scores(shipped, drawn(kind, 20)) < 0.5).mean() >= 0.9


def test_statistics_are_finite_for_any_image():
    for image in (Image.new("RGB", (1, 1)), Image.new("RGB", (500, 3), (255, 255, 255)), scene(1, 64)):
        values = statistics(image)
        assert np.isfinite(values).all() and values.shape == statistics(scene(0, 300)).shape


def test_specimens_are_functions_of_their_seed():
    for kind in (*specimens.UNNATURAL, *specimens.NATURAL):
        one, again, other = (specimens.draw(kind, seed) for seed in (1, 1, 2))
        assert one.tobytes() == again.tobytes() and one.tobytes() != other.tobytes()
        assert one.mode == "RGB" and min(one.size) > 150


def test_training_on_folders_tells_them_apart_and_is_saved_whole(tmp_path):
    for index in range(30):
        for kind, folder in (("icon", "no"), ("scene", "yes")):
            file = tmp_path / folder / f"{index}.bin"
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(saved(specimens.draw(kind, index).resize((160, 160)), quality=85))
    (tmp_path / "no" / "notes.txt").write_text("no image")
    trained = train(tmp_path / "yes", tmp_path / "no")
    assert trained.note == "30 natural and 30 unnatural images of two folders"
    trained.save(tmp_path / "weights.json")
    read = NaturalClassifier.load(tmp_path / "weights.json")
    files = {kind: drawn(kind, 15) for kind in ("icon", "scene")}
    assert (scores(read, files["scene"]) > 0.5).mean() > 0.8 and (scores(read, files["icon"]) < 0.5).mean() > 0.8
    assert np.allclose(scores(read, files["icon"]), scores(trained, files["icon"]), atol=0.01)
    (tmp_path / "no" / "0.bin").unlink()
    for index in range(1, 15):
        (tmp_path / "no" / f"{index}.bin").unlink()
    with pytest.raises(UserError, match="15 readable images"):
        train(tmp_path / "yes", tmp_path / "no")


def test_fitting_weighs_both_classes_the_same():
    rng = np.random.default_rng(0)
    few, many = rng.normal(1, 1, (20, 3)), rng.normal(-1, 1, (2000, 3))
    classifier = fit(few, many, note="")
    assert (classifier.scores(few) > 0.5).mean() > 0.9 and (classifier.scores(many) < 0.5).mean() > 0.85


@pytest.mark.parametrize("content", ["", "{}", '{"version": 0, "note": "", "mean": [], "scale": [], "hidden": [[1]]}'])
def test_other_files_are_no_weights(content, tmp_path):
    (tmp_path / "weights.json").write_text(content)
    with pytest.raises(UserError, match="no weights of the natural-image classifier"):
        NaturalClassifier.load(tmp_path / "weights.json")


def test_the_shipped_weights_say_what_they_learnt_from(shipped):
    assert "no photo" in shipped.note and "screenshot" in shipped.note
