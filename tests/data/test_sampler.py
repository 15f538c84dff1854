from itertools import islice

import pytest
import torch
from helpers import write_image_folder
from hypothesis import given
from hypothesis import strategies as st

from data import DataSource
from data.sampler import batches_of_indices, generator_for, steps_per_epoch

CPU = torch.device("cpu")


def first(n, batches):
    return list(islice(batches, n))


def drawn(generator):
    return torch.rand(4, generator=generator)


def assert_same_batches(these, those):
    assert len(these) == len(those) > 0
    for (images, labels, _), (other_images, other_labels, _) in zip(these, those, strict=True):
        assert torch.equal(images, other_images)
        assert torch.equal(labels, other_labels)


@pytest.mark.parametrize(
    ("n_images", "batch_size", "steps"),
    [(10, 5, 2), (11, 5, 2), (12, 5, 3), (3, 5, 1), (1, 5, 1), (5, 1, 5), (1437, 256, 6), (50_000, 128, 391)],
)
def test_an_epoch_has_its_full_batches_and_a_short_one_of_more_than_one_image(n_images, batch_size, steps):
    assert steps_per_epoch(n_images, batch_size) == steps


@given(n_images=st.integers(1, 40), batch_size=st.integers(1, 12), start=st.integers(0, 30), seed=st.integers(0, 2**62))
def test_starting_at_a_step_gives_the_batches_of_running_up_to_it(n_images, batch_size, start, seed):
    whole = first(start + 3, batches_of_indices(n_images, batch_size, seed, "prune"))
    resumed = first(3, batches_of_indices(n_images, batch_size, seed, "prune", start))
    for (indices, generator), (others, other_generator) in zip(whole[start:], resumed, strict=True):
        assert torch.equal(indices, others)
        assert torch.equal(drawn(generator), drawn(other_generator))


@pytest.mark.parametrize(("n_images", "batch_size"), [(12, 4), (14, 4), (3, 8), (5, 1)])
def test_each_epoch_is_a_permutation_of_its_own(n_images, batch_size):
    steps = steps_per_epoch(n_images, batch_size)
    batches = [indices for indices, _ in first(2 * steps, batches_of_indices(n_images, batch_size, 0, "prune"))]
    epochs = torch.cat(batches[:steps]), torch.cat(batches[steps:])
    for epoch in epochs:
        assert sorted(epoch.tolist()) == list(range(n_images))
    assert n_images < 5 or not torch.equal(*epochs)


def test_a_last_batch_of_a_single_image_is_left_out_and_another_image_each_time():
    batches = first(2 * 20, batches_of_indices(9, 4, 0, "prune"))
    assert {len(indices) for indices, _ in batches} == {4}
    left_out = [set(range(9)) - set(batches[i][0].tolist()) - set(batches[i + 1][0].tolist()) for i in range(0, 40, 2)]
    assert all(len(one) == 1 for one in left_out)
    assert len(set().union(*left_out)) > 3


def test_a_last_short_batch_of_two_images_is_used():
    assert [len(indices) for indices, _ in first(6, batches_of_indices(10, 4, 0, "prune"))] == [4, 4, 2, 4, 4, 2]


@pytest.mark.parametrize("other", [(1, "prune"), (0, "finetune")], ids=["seed", "stream"])
def test_another_seed_or_stream_gives_another_order_and_other_augmentation(other):
    (indices, generator), *_ = first(1, batches_of_indices(50, 50, 0, "prune"))
    (others, other_generator), *_ = first(1, batches_of_indices(50, 50, *other))
    assert not torch.equal(indices, others)
    assert not torch.equal(drawn(generator), drawn(other_generator))


def test_each_step_has_augmentation_of_its_own():
    draws = [drawn(generator).tolist() for _, generator in first(20, batches_of_indices(8, 4, 0, "prune"))]
    assert len({tuple(draw) for draw in draws}) == 20


def test_a_generator_is_a_function_of_seed_stream_and_counts():
    keys = [(0, "a"), (1, "a"), (0, "b"), (0, "a", 2), (0, "a", 1), (2**63 - 1, "a")]
    values = [tuple(drawn(generator_for(*key)).tolist()) for key in keys]
    assert len(set(values)) == len(keys)
    assert values == [tuple(drawn(generator_for(*key)).tolist()) for key in keys]


@pytest.mark.parametrize("start", [1, 2, 3, 5])
def test_array_batches_from_a_step_are_those_of_the_whole_run(make_data, random_images, start):
    data = make_data(random_images(10), pad=2, flip=True)  # 3 batches an epoch: steps 3 and 5 are of the second
    whole = first(start + 4, data.train_batches(4, "finetune"))
    assert_same_batches(first(4, data.train_batches(4, "finetune", start)), whole[start:])


@pytest.mark.parametrize("change", ["seed", "stream"])
def test_array_batches_differ_by_seed_and_by_stream(make_data, random_images, change):
    images = random_images(64)
    one = first(1, make_data(images, seed=0).train_batches(64, "prune"))[0]
    seed, stream = (1, "prune") if change == "seed" else (0, "finetune")
    other = first(1, make_data(images, seed=seed).train_batches(64, stream))[0]
    assert not torch.equal(one[1], other[1])
    assert one[1].sort().values.equal(other[1].sort().values)


def test_array_batches_do_not_draw_from_the_global_generator(make_data, random_images):
    before = torch.get_rng_state()
    first(5, make_data(random_images(10), pad=2, flip=True).train_batches(4, "prune"))
    assert torch.equal(before, torch.get_rng_state())


@pytest.fixture(scope="module")
def pets(tmp_path_factory):
    return write_image_folder(tmp_path_factory.mktemp("folders") / "pets", train=5)


def loaders(folder, workers, seed=0):
    return DataSource("folder", str(folder)).load(seed, workers, CPU)


@pytest.mark.parametrize("start", [2, 4])
def test_folder_batches_are_the_same_for_any_number_of_workers_and_any_start(pets, start):
    whole = first(start + 3, loaders(pets, workers=0).train_batches(4, "prune"))  # 3 batches an epoch
    for workers in (0, 2):
        resumed = first(3, loaders(pets, workers).train_batches(4, "prune", start))
        assert_same_batches(resumed, whole[start:])


def test_folder_batches_crop_an_image_differently_each_epoch(pets):
    data = loaders(pets, workers=0)
    one, two = first(2, data.train_batches(10, "prune"))
    same_image = (one[0][:, None] == two[0][None]).flatten(2).all(2)
    assert not same_image.any()


def test_folder_batches_differ_by_seed(pets):
    one, other = (first(1, loaders(pets, 0, seed).train_batches(10, "prune"))[0] for seed in (0, 1))
    assert not torch.equal(one[0], other[0])


def test_workers_are_no_more_than_cores(pets):
    assert loaders(pets, workers=10_000).train.workers < 10_000


@pytest.mark.parametrize("workers", [0, 2])
def test_folder_batches_do_not_draw_from_the_global_generator(pets, workers):
    data = loaders(pets, workers)
    before = torch.get_rng_state()
    first(2, data.train_batches(4, "prune"))
    list(data.test_batches())
    list(data.statistics_batches())
    assert torch.equal(before, torch.get_rng_state())
