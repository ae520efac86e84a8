from __future__ import annotations

import logging
import pickle
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import haversack
from haversack.errors import ImageInvalid, InputError
from tests.datasets.pictures import archive, encoded, noise

SMALL: dict[str, Any] = {"size": (16, 16), "channels": 1, "dtype": "uint8", "batch_size": 8, "seed": 5}
AHEAD = 3  # batches that are begun before they are asked for


@pytest.fixture
def animals(tmp_path: Path) -> haversack.Dataset:
    return haversack.dataset(str(archive(tmp_path / "animals.zip")))


def numbers(batch: Any) -> list[int]:
    """Which images are in a batch: their first pixels say."""
    return np.asarray(batch[0])[:, 0, 0, 0].tolist()


def epoch(images: haversack.Images) -> list[int]:
    return [number for batch in images for number in numbers(batch)]


def test_an_epoch_has_every_image_once(animals: haversack.Dataset) -> None:
    images = animals.images(**SMALL)
    assert len(images) == 5
    assert sorted(epoch(images)) == list(range(40))


def test_pixels_and_labels_belong_together(animals: haversack.Dataset) -> None:
    for x, y in animals.images(**SMALL):
        for pixels, label in zip(x, y, strict=True):
            expected = noise(int(pixels[0, 0, 0]), 16, 16)
            expected[0, 0] = pixels[0, 0, 0]
            assert (pixels[:, :, 0] == expected).all()
            assert label == pixels[0, 0, 0] % 2


def test_each_epoch_has_an_order_of_its_own_which_seeks(animals: haversack.Dataset) -> None:
    images = animals.images(**SMALL)
    first, second = epoch(images), epoch(images)
    assert first != second
    assert numbers(animals.images(**SMALL).batch(1, 3)) == second[24:32]


def test_hosts_share_each_batch(animals: haversack.Dataset) -> None:
    whole = animals.images(**SMALL)
    parts = [animals.images(**SMALL, rank=rank, world=2) for rank in range(2)]
    assert [numbers(part.batch(0, 2)) for part in parts] == [
        numbers(whole.batch(0, 2))[:4],
        numbers(whole.batch(0, 2))[4:],
    ]


def test_float_images_are_from_0_to_1(animals: haversack.Dataset) -> None:
    x, _ = animals.images(**(SMALL | {"dtype": "float32"})).batch(0, 0)
    pixels, _ = animals.images(**SMALL).batch(0, 0)
    assert x.dtype == np.float32
    assert np.allclose(x * 255, pixels, atol=1e-4)


def test_labels_of_a_table_in_the_archive(animals: haversack.Dataset) -> None:
    images = animals.images(**SMALL, labels="labels.csv")
    x, y = images[0]
    assert (y == x[:, 0, 0, 0] / 4).all()


def test_without_labels_a_batch_is_the_pixels(animals: haversack.Dataset) -> None:
    assert animals.images(**SMALL, labels=None)[0].shape == (8, 16, 16, 1)


def test_only_images_are_taken_and_may_be_chosen(animals: haversack.Dataset) -> None:
    assert len(animals.images(**SMALL).names) == 40
    assert animals.images(**SMALL, names=lambda name: "cat" in name).class_names == ["cat"]


def test_split_parts_are_disjoint_stratified_and_stay(animals: haversack.Dataset) -> None:
    train, valid = animals.images(**SMALL).split(0.2)
    assert sorted([*train.names, *valid.names]) == sorted(animals.images(**SMALL).names)
    assert np.bincount(valid.labels).tolist() == [4, 4]
    assert animals.images(**SMALL).split(0.2)[1].names == valid.names
    assert animals.images(**SMALL).split(0.2, seed=1)[1].names != valid.names


def test_validation_part_is_in_order_and_plain(animals: haversack.Dataset) -> None:
    _, valid = animals.images(**SMALL, augment=haversack.Augmentation(flip=1)).split(0.2)
    assert epoch(valid) == epoch(valid) == [int(name[-7:-4]) for name in valid.names]


@pytest.mark.parametrize("share", [0, 1, 0.001])
def test_split_that_leaves_nothing_is_refused(animals: haversack.Dataset, share: float) -> None:
    with pytest.raises(InputError):
        animals.images(**SMALL).split(share)


def test_augmentation_is_the_same_for_a_sample_and_epoch(animals: haversack.Dataset) -> None:
    augment = haversack.Augmentation(flip=0.5, shift=0.2, brightness=0.3, contrast=0.3)
    images = animals.images(**SMALL, augment=augment)
    whole = [x for x, _ in images]
    assert (animals.images(**SMALL, augment=augment).batch(0, 3)[0] == whole[3]).all()
    assert (images.batch(1, 3)[0] != whole[3]).any()


def test_function_may_augment(animals: haversack.Dataset) -> None:
    images = animals.images(**SMALL, augment=lambda image, random: np.full_like(image, random.integers(100, 200)))
    assert 100 <= images[0][0].min() <= images[0][0].max() < 200


def test_later_epochs_are_read_from_the_decoded_pixels(animals: haversack.Dataset, tmp_path: Path) -> None:
    before = [x.copy() for x, _ in animals.images(**SMALL)]
    images = animals.images(**SMALL)
    list(images)
    images.close()
    again = haversack.dataset(str(tmp_path / "animals.zip"))
    again.read = lambda name: pytest.fail(f"{name} was read")  # type: ignore[method-assign]
    assert all((x == y).all() for x, (y, _) in zip(before, again.images(**SMALL), strict=True))


def test_changed_archive_is_decoded_anew(animals: haversack.Dataset, tmp_path: Path) -> None:
    images = animals.images(**SMALL)
    list(images)
    images.close()
    with zipfile.ZipFile(tmp_path / "animals.zip", "w") as out:
        for number in range(40):
            name = f"train/{('cat', 'dog')[number % 2]}/{number:03}.png"
            out.writestr(name, encoded(np.full((16, 16), 7, np.uint8)))
    changed = haversack.dataset(str(tmp_path / "animals.zip")).images(**SMALL)
    assert set(epoch(changed)) == {7}


def reads(data: haversack.Dataset) -> list[str]:
    """The names of the files that are read from now on."""
    seen: list[str] = []
    read = data.read
    data.read = lambda name: seen.append(name) or read(name)  # type: ignore[method-assign, func-returns-value]
    return seen


def test_next_batches_are_decoded_before_they_are_asked_for(animals: haversack.Dataset) -> None:
    seen = reads(animals)
    images = animals.images(**SMALL, cache=None)
    images.batch(0, 0)
    deadline = time.monotonic() + 60
    while len(set(seen)) <= 8 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(set(seen)) > 8


def test_batches_asked_for_to_and_fro_are_decoded_once(animals: haversack.Dataset) -> None:
    images, seen = animals.images(**(SMALL | {"batch_size": 4}), cache=None), reads(animals)
    steps = [5, 2, 7, 4, 9, 1, 6, 3, 8] * 3
    for step in steps:
        images.batch(0, step)
    assert len(seen) <= 4 * (len(steps) + AHEAD)


@pytest.mark.parametrize("shuffle", [True, False])
def test_nothing_is_decoded_in_vain_of_an_epoch_asked_for_again(animals: haversack.Dataset, shuffle: bool) -> None:
    images, seen = animals.images(**SMALL, cache=None, shuffle=shuffle), reads(animals)
    for _ in range(7):
        for step in range(5):
            images.batch(0, step)
    assert len(seen) <= 7 * 40 + 2 * 8 * AHEAD


def corrupted(folder: Path) -> haversack.Dataset:
    path = archive(folder / "bad.zip")
    with zipfile.ZipFile(path, "a") as out:
        out.writestr("train/cat/broken.png", encoded(noise(1, 16, 16))[:60])
    return haversack.dataset(str(path))


def test_corrupt_image_is_named(tmp_path: Path) -> None:
    with pytest.raises(ImageInvalid, match=r"train/cat/broken\.png"):
        list(corrupted(tmp_path).images(**SMALL))


def test_corrupt_image_may_be_skipped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    images = corrupted(tmp_path).images(**SMALL, corrupt="skip")
    with caplog.at_level(logging.WARNING):
        assert sorted(epoch(images)) == list(range(40))
        assert sorted(epoch(images)) == list(range(40))
    assert caplog.text.count("broken.png") == 1


def test_corrupt_image_may_be_blank(tmp_path: Path) -> None:
    images = corrupted(tmp_path).images(**SMALL, corrupt="blank")
    assert sorted(epoch(images)) == [0, *range(40)]


def test_folder_is_read_like_an_archive(animals: haversack.Dataset, tmp_path: Path) -> None:
    animals.extract(tmp_path / "out")
    assert epoch(haversack.dataset(str(tmp_path / "out")).images(**SMALL)) is not None


def test_samples_are_single_images_for_other_loaders(animals: haversack.Dataset) -> None:
    images = animals.images(**SMALL)
    samples = images.samples
    x, y = samples[7]
    assert len(samples) == 40
    assert (x[0, 0, 0], y) == (int(images.names[7][-7:-4]), images.labels[7])


def test_samples_go_to_worker_processes(animals: haversack.Dataset) -> None:
    samples = pickle.loads(pickle.dumps(animals.images(**SMALL).samples))
    assert (samples[3][0] == animals.images(**SMALL).samples[3][0]).all()


def test_torch_loads_samples(animals: haversack.Dataset) -> None:
    torch = pytest.importorskip("torch")
    loader = torch.utils.data.DataLoader(animals.images(**SMALL).samples, batch_size=8, num_workers=2)
    assert sorted(int(x[0, 0, 0]) for batch, _ in loader for x in batch) == list(range(40))


def test_grain_loads_samples(animals: haversack.Dataset) -> None:
    grain = pytest.importorskip("grain")
    loaded = grain.MapDataset.source(animals.images(**SMALL).samples).seed(0).shuffle().to_iter_dataset().batch(8)
    assert sorted(number for batch in loaded for number in numbers(batch)) == list(range(40))


def test_images_need_no_keras(tmp_path: Path) -> None:
    path = archive(tmp_path / "animals.zip")
    code = f"""if True:
        import sys, haversack
        x, y = haversack.dataset({str(path)!r}).images(size=(16, 16))[0]
        assert x.shape == (32, 16, 16, 3)
        assert "keras" not in sys.modules and "jax" not in sys.modules"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    "wrong", [{"channels": 2}, {"size": (0, 1)}, {"batch_size": 0}, {"corrupt": "eat"}, {"rank": 1}, {"fit": "bend"}]
)
def test_wrong_arguments_are_refused(animals: haversack.Dataset, wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        animals.images(**(SMALL | wrong))


def test_data_set_without_images_says_so(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a.txt").write_text("no image")
    with pytest.raises(InputError, match="no image in"):
        haversack.dataset(str(tmp_path / "set")).images()


def test_full_disk_means_decoding_in_each_epoch(
    animals: haversack.Dataset, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    usage = shutil.disk_usage("/")._replace(free=10_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    images = animals.images(**SMALL)
    assert sorted(epoch(images)) == sorted(epoch(images)) == list(range(40))
    assert "decoded in each epoch" in caplog.text


def test_show_draws_the_images_with_their_labels(animals: haversack.Dataset, tmp_path: Path) -> None:
    picture = animals.images(**SMALL).show(6, to=tmp_path / "sheet.png")
    assert picture.size[0] > picture.size[1] > 100
    assert (tmp_path / "sheet.png").read_bytes()[:4] == b"\x89PNG"
