"""CIFAR-10 from its binary files, and files that are refused."""

import numpy as np
import pytest

from wgf.prompts import cifar10

BATCHES = [*(f"data_batch_{n}.bin" for n in range(1, 6)), "test_batch.bin"]


def write_cifar(folder, count=3, seed=0):
    """Six small files in CIFAR-10's binary format; the images `[6, count, 3, 32, 32]` and the labels `[6, count]`."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (6, count, 3, 32, 32), np.uint8)
    labels = rng.integers(0, 10, (6, count), np.uint8)
    for name, pixels, classes in zip(BATCHES, images, labels, strict=True):
        with open(folder / name, "wb") as file:
            for label, image in zip(classes, pixels, strict=True):
                file.write(bytes([label]) + image.tobytes())
    return images, labels


def test_cifar_is_read_from_its_binary_files(key, tmp_path):
    images, labels = write_cifar(tmp_path)
    split = cifar10(key, tmp_path, patch=16, positions=2)
    assert split.train.tokens.shape == (15, 16 * 16 * 3 + 10 + 2, 5)
    assert split.held_out.batch == 3
    np.testing.assert_array_equal(split.train.labels, labels[:5].reshape(-1))
    np.testing.assert_array_equal(split.held_out.labels, labels[5])
    train = images[:5].reshape(15, 3, 32, 32) / 255
    mean, deviation = train.mean((0, 2, 3)), train.std((0, 2, 3))
    for prompts, raw in ((split.train, train), (split.held_out, images[5] / 255)):
        standard = (raw - mean[:, None, None]) / deviation[:, None, None]
        # The lower left patch, with the channels of a pixel side by side.
        expected = standard[:, :, 16:, :16].transpose(0, 2, 3, 1).reshape(len(raw), -1)
        np.testing.assert_allclose(prompts.tokens[:, :768, 2], expected, atol=1e-5)


def test_cifar_is_found_in_the_folder_of_its_archive_and_can_be_thinned(key, tmp_path):
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    write_cifar(folder)
    split = cifar10(key, tmp_path, images=4, patch=8, features=7, positions=0)
    assert split.train.tokens.shape == (4, 17, 17)
    assert split.held_out.batch == 3


def test_a_missing_file_is_named(key, tmp_path):
    write_cifar(tmp_path)
    (tmp_path / "data_batch_4.bin").unlink()
    with pytest.raises(
        ValueError, match=r"`root` must be the folder of .* which holds data_batch_4.bin; got .*without it"
    ):
        cifar10(key, tmp_path)


@pytest.mark.parametrize("kept", [0, 2 * 3073 + 1000])
def test_a_file_that_is_cut_off_is_named(key, tmp_path, kept):
    write_cifar(tmp_path)
    path = tmp_path / "test_batch.bin"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match=rf"test_batch.bin must hold whole records of 3073 bytes; got {kept} bytes"):
        cifar10(key, tmp_path)


def test_a_file_of_another_format_is_named(key, tmp_path):
    write_cifar(tmp_path)
    (tmp_path / "data_batch_2.bin").write_bytes(bytes([77]) * 3073)
    with pytest.raises(ValueError, match=r"data_batch_2.bin must have a label 0 to 9 .*got 77"):
        cifar10(key, tmp_path)


def test_more_images_than_there_are_are_refused(key, tmp_path):
    write_cifar(tmp_path)
    with pytest.raises(ValueError, match="`images` must be at most the training images, 15; got 16"):
        cifar10(key, tmp_path, images=16)
