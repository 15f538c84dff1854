import pytest
import torch
import torch.nn.functional as F

from data import Shard, loaders
from data.transforms import augment, draw_crops


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def augmented(images, pad, flip, generator):
    return augment(images, pad, *draw_crops(len(images), pad, flip, generator))


def crops_by_hand(image, pad, flip):
    """(row, column, flipped) -> the crop of the zero-padded image."""
    _, height, width = image.shape
    padded = F.pad(image, (pad, pad, pad, pad))
    crops = {}
    for row in range(2 * pad + 1):
        for column in range(2 * pad + 1):
            crop = padded[:, row : row + height, column : column + width]
            crops[row, column, False] = crop
            if flip:
                crops[row, column, True] = crop.flip(2)
    return crops


@pytest.mark.parametrize(("pad", "flip"), [(1, False), (2, True), (0, True)])
def test_every_augmented_image_is_a_crop_of_the_padded_one_possibly_flipped(random_images, pad, flip):
    images, _ = random_images(400, channels=3, size=5)
    seen = set()
    for image, changed in zip(images, augmented(images, pad, flip, generator()), strict=True):
        crops = crops_by_hand(image, pad, flip)
        found = [where for where, crop in crops.items() if torch.equal(crop, changed)]
        assert len(found) == 1
        seen.add(found[0])
    assert seen == set(crops)  # every place and both directions do come


def test_about_half_of_the_images_are_flipped(random_images):
    images, _ = random_images(1000, size=4)
    flipped = (augmented(images, 0, True, generator()) != images).flatten(1).any(1)
    assert 430 < flipped.sum() < 570


def test_augmentation_is_a_function_of_the_generator(random_images):
    images, _ = random_images(30)
    one, same, other = (augmented(images, 2, True, generator(seed)) for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_images_are_unchanged_without_padding_and_flips(random_images):
    images, _ = random_images(6)
    assert torch.equal(augmented(images, 0, False, generator()), images)


def test_augmentation_does_not_change_its_input(random_images):
    images, _ = random_images(6)
    before = images.clone()
    augmented(images, 2, True, generator())
    assert torch.equal(images, before)


def test_pixels_are_normalized_by_mean_and_std(make_data):
    images = torch.tensor([0, 51, 255], dtype=torch.uint8).view(3, 1, 1, 1).expand(3, 1, 2, 2)
    data = make_data((images, torch.arange(3)), mean=0.5, std=0.25)
    ((found, labels, _),) = data.test_batches()
    assert found.dtype == torch.float32
    assert labels.tolist() == [0, 1, 2]
    expected = torch.tensor([-2.0, -1.2, 2.0]).view(3, 1, 1, 1).expand(3, 1, 2, 2)
    torch.testing.assert_close(found, expected)


def test_padding_is_black_before_normalization(make_data):
    white = torch.full((200, 1, 3, 3), 255, dtype=torch.uint8)
    data = make_data((white, torch.zeros(200).long()), pad=1, mean=0.5, std=0.25)
    images, *_ = next(data.train_batches(200, "prune"))
    assert {round(value, 3) for value in images.unique().tolist()} == {-2.0, 2.0}


def test_each_channel_has_its_own_constants():
    from data import DataSpec
    from data.in_memory import ArraySplit

    spec = DataSpec("two", 2, 2, 1, (0.0, 0.5), (1.0, 0.5))
    split = ArraySplit(
        torch.full((1, 2, 1, 1), 255, dtype=torch.uint8), torch.zeros(1).long(), spec, torch.device("cpu")
    )
    ((images, *_),) = split.plain(4, Shard())
    torch.testing.assert_close(images.flatten(), torch.tensor([1.0, 1.0]))


def test_labels_match_their_images(make_data):
    images = torch.arange(100, dtype=torch.uint8).view(100, 1, 1, 1).expand(100, 1, 4, 4)
    data = make_data((images, torch.arange(100)), flip=True, mean=0.0, std=1.0)
    for _, (batch, labels, _) in zip(range(5), data.train_batches(32, "prune"), strict=False):
        assert torch.equal((batch[:, 0, 0, 0] * 255).round().long(), labels)


def test_test_batches_are_every_image_once_in_order_by_256(make_data, random_images):
    data = make_data(random_images(3), random_images(600))
    batches = list(data.test_batches())
    assert [len(labels) for _, labels, _ in batches] == [256, 256, 88]
    assert torch.cat([labels for _, labels, _ in batches]).tolist() == list(range(600))


def test_train_once_yields_every_image_once_without_augmentation(make_data, random_images):
    images, labels = random_images(300)
    data = make_data((images, labels), random_images(3), pad=2, flip=True, mean=0.0, std=1.0)
    shown, found = (torch.cat(parts) for parts in list(zip(*data.train_once(), strict=True))[:2])
    assert torch.equal((shown * 255).round().to(torch.uint8), images)
    assert torch.equal(found, labels)


def test_statistics_batches_are_one_shuffled_epoch_of_training_images_and_draw_nothing_global(make_data, random_images):
    data = make_data(random_images(600), random_images(3), pad=2, flip=True)
    before = torch.get_rng_state()
    order = torch.cat([labels for _, labels, _ in data.statistics_batches()])
    assert torch.equal(before, torch.get_rng_state())
    assert order.tolist() != list(range(600))
    assert sorted(order.tolist()) == list(range(600))


def test_statistics_batches_are_augmented_like_those_of_training(make_data):
    white = torch.full((50, 1, 4, 4), 255, dtype=torch.uint8)
    data = make_data((white, torch.arange(50)), pad=2)
    ((images, *_),) = data.statistics_batches()
    assert len(images.unique()) == 2  # the white of the images and the black of the padding


def test_statistics_batches_are_the_same_each_time_and_not_those_of_a_phase(make_data, random_images):
    data = make_data(random_images(200))
    one, other = (torch.cat([labels for _, labels, _ in data.statistics_batches()]) for _ in range(2))
    assert torch.equal(one, other)
    for phase in ("prune", "finetune"):
        assert not torch.equal(one, next(data.train_batches(256, phase))[1])


def test_statistics_of_a_very_large_set_are_of_some_batches_only(make_data, random_images, monkeypatch):
    monkeypatch.setattr(loaders, "WHOLE_TRAINING_SET", 1000)
    monkeypatch.setattr(loaders, "STATISTICS_BATCHES", 2)
    whole, some = (list(make_data(random_images(n, size=1)).statistics_batches()) for n in (1000, 1001))
    assert sum(len(labels) for _, labels, _ in whole) == 1000
    assert [len(labels) for _, labels, _ in some] == [256, 256]


def test_statistics_batches_hold_more_than_one_image_each(make_data, random_images):
    data = make_data(random_images(257, size=1))
    assert [len(labels) for _, labels, _ in data.statistics_batches()] == [256]
