import dataclasses

import jax
import numpy as np
import pytest
from kept import check_read_again, run_with_parts
from matplotlib.image import imread

from wgf.experiments import ImagesConfig, images
from wgf.experiments._results import save
from wgf.experiments.images._training import evaluate
from wgf.measures import Gaussian
from wgf.models import Transformer
from wgf.prompts import digits

TINY = ImagesConfig(heads=(2,), layers=(1,), depth=1, epochs=4, saves=2, seeds=2, rate=3e-2, batch=64)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The results folder of the tiny job."""
    return tmp_path_factory.mktemp("images")


@pytest.fixture(scope="module")
def result(place):
    """One run of the tiny job."""
    return run_with_parts(images, TINY, place)


@pytest.mark.heavy
def test_a_run_is_read_again_from_its_parts(result, place):
    check_read_again(images, result, place)


def test_every_size_runs_once():
    assert ImagesConfig(heads=(4, 10), layers=(1, 6, 12), depth=6).sizes == ((6, 4), (6, 10), (1, 4), (12, 4))


@pytest.mark.heavy
def test_training_learns_and_all_is_measured(result):
    (only,) = result.runs
    assert result.images == (1437, 360)
    np.testing.assert_allclose(result.epochs, [0, 2, 4])
    for curves in (only.train, only.held_out):
        assert curves.loss.shape == curves.accuracy.shape == (2, 3)
        assert np.all(curves.loss[:, -1] < 0.7 * curves.loss[:, 0])
        assert np.all(curves.accuracy[:, -1] > 0.5)
    # At the start the accuracy is near chance. Seeds differ.
    assert np.all(only.train.accuracy[:, 0] < 0.35)
    assert only.train.loss[0, -1] != only.train.loss[1, -1]


def test_evaluation_counts_what_is_right(key):
    prompts = digits(key, held_out=1700).train
    encoder = images.vision_encoder(prompts.token_dim, 4)
    model = Transformer(encoder, Gaussian(encoder, 0.5).layered(2, 3, key))
    stacked = jax.tree.map(lambda leaf: leaf[None], model)
    tokens, (loss, accuracy) = jax.jit(lambda: (model(prompts.tokens), evaluate(prompts, stacked)))()
    logits = np.asarray(tokens)[:, prompts.label_row : prompts.label_row + 10, -1]
    np.testing.assert_allclose(accuracy, [np.mean(logits.argmax(1) == prompts.labels)])
    right = logits[np.arange(len(logits)), prompts.labels]
    np.testing.assert_allclose(loss, [np.mean(np.log(np.exp(logits).sum(1)) - right)], rtol=1e-10)


@pytest.mark.heavy
def test_the_table_has_a_line_for_each_size_and_fits_a_terminal(result):
    head, rule, row, *_ = result.table().splitlines()
    assert max(map(len, result.table().splitlines())) <= 120
    assert len(head) == len(rule)
    assert row.split()[:2] == ["1", "2"]


@pytest.mark.heavy
def test_the_folder_holds_curves_and_picture(result, tmp_path):
    folder = save("images", dataclasses.replace(result, config=dataclasses.replace(TINY, out=tmp_path)))
    image = imread(folder / "images.png")
    assert image.shape[0] > 800
    assert image[..., :3].std() > 0.05
    with np.load(folder / "result.npz") as kept:
        np.testing.assert_array_equal(kept["l1_m2_train_loss"], result.runs[0].train.loss)


def test_cifar_is_trained_from_its_files(tmp_path):
    rng = np.random.default_rng(0)
    for name in [*(f"data_batch_{n}.bin" for n in range(1, 6)), "test_batch.bin"]:
        # A pattern to learn: three classes, each of one colour with noise.
        labels = rng.integers(0, 3, 8).astype(np.uint8)
        pixels = rng.integers(0, 60, (8, 3, 1024)).astype(np.uint8)
        pixels[np.arange(8), labels] += 150
        (tmp_path / name).write_bytes(np.column_stack([labels, pixels.reshape(8, -1)]).tobytes())
    config = ImagesConfig(
        data="cifar10",
        root=tmp_path,
        images=36,
        patch=16,
        features=6,
        heads=(2,),
        layers=(2,),
        depth=2,
        batch=12,
        epochs=20,
        saves=1,
        seeds=1,
        rate=3e-2,
    )
    result = images.run(config)
    assert result.images == (36, 8)
    assert result.runs[0].train.accuracy[0, -1] > 0.9
    assert result.runs[0].held_out.accuracy[0, -1] > 0.7


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"heads": ()}, "`heads` must hold at least one number; got none"),
        ({"layers": (0,)}, "`layers` must be a whole number of at least 1; got 0"),
        ({"seeds": 0}, "`seeds` must be a whole number of at least 1; got 0"),
        ({"epochs": 10, "saves": 4}, "`saves` must divide the epochs, 10; got 4"),
        ({"rate": 0.0}, "`rate` must be positive; got 0.0"),
        ({"data": "cifar10"}, "`root` must name the folder of CIFAR-10's binary files"),
        ({"images": 9}, "`root` and `images` go with `data` 'cifar10'"),
        ({"patch": 3}, "`patch` must divide the images' height and width, 8 and 8; got 3"),
    ],
)
def test_an_option_that_cannot_be_used_is_refused_before_anything_runs(options, text):
    with pytest.raises(ValueError, match=text):
        images.run(ImagesConfig(**options))


def test_unknown_data_are_refused(unchecked):
    with pytest.raises(ValueError, match=r"`data` must be one of \['digits', 'cifar10'\]; got 'mnist'"):
        images.run(ImagesConfig(data="mnist"))  # pyright: ignore[reportArgumentType]


@pytest.mark.slow
def test_capacity_fits_the_digits():
    """In eight epochs, six layers of ten heads fit nearly all training images. One layer of four heads fits fewer."""
    result = images.run(ImagesConfig.quick_default())
    assert np.all(result.find(6, 10).train.accuracy[:, -1] > 0.96)
    assert np.all(result.find(6, 10).held_out.accuracy[:, -1] > 0.9)
    wrong = [1 - result.find(*size).train.accuracy[:, -1] for size in ((6, 10), (1, 4))]
    assert wrong[1].min() > 2 * wrong[0].max()
