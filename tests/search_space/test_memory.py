"""Tests for search_space.memory."""

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search_space import cost, memory, zoo
from search_space.spec import ArchSpec, ClassifierHead, MBConvStage, Stem

B0 = zoo.load("efficientnet-b0")

# What XLA reports for the compiled programs on a CPU at a batch of 8, where depthwise
# convolutions take the whole batch at once: temporary bytes.
# For training with AdamW these are gradients and activations, for inference the
# activations. `python -m experiments.checks.xla_memory` compiles them.
XLA_INFERENCE_OF_ONE = 31_129_968  # bytes in all, one image of 224 pixels
XLA_INFERENCE = {96: 14_617_696, 160: 39_980_128, 224: 77_925_472}
XLA_TRAINING = {96: 153_806_008, 160: 390_292_152, 224: 744_470_200}


@pytest.mark.parametrize("resolution", [96, 160, 224])
def test_b0_takes_about_what_xla_reports(resolution):
    spec = dataclasses.replace(B0, resolution=resolution)
    run = memory.inference(spec, batch_size=8)
    assert run.activations == pytest.approx(XLA_INFERENCE[resolution], rel=0.05)
    trained = memory.training(spec, batch_size=8, optimizer_slots=2)
    temporary = trained.gradients + trained.activations
    assert temporary == pytest.approx(XLA_TRAINING[resolution], rel=0.05)


def test_one_image_takes_what_xla_reports_by_either_name():
    run = memory.inference(B0, batch_size=1)
    assert run.total == pytest.approx(XLA_INFERENCE_OF_ONE, rel=0.02)
    assert run.activations == cost.profile(B0).peak_activation_bytes


def test_a_small_network_by_hand():
    """Stem to 4x4x2; a layer of expansion 2 and its sum; head; classes."""
    spec = ArchSpec(
        name="tiny",
        resolution=8,
        in_channels=1,
        num_classes=3,
        activation="relu",
        stem=Stem(channels=2),
        stages=(MBConvStage(channels=2, kernel=3, stride=1, expansion=2, repeats=1),),
        head=ClassifierHead(channels=None),
    )
    weights = 4 * cost.num_params(spec)
    # Stem: conv, norm and act of 32 each. Expand and depthwise: three maps of 64 each.
    # Project: conv of 32, sum of 32 (its norm is not kept). Pool 2.
    kept = 3 * 32 + 3 * 64 + 3 * 64 + 32 + 32 + 2
    # The peak is at the addition: all but the pool, and the gradients of both sides.
    peak = kept - 2 + 32 + 32
    found = memory.training(spec, batch_size=5, optimizer_slots=1)
    assert (found.weights, found.gradients, found.optimizer) == (weights,) * 3
    assert found.activations == 4 * 5 * peak
    # Forward, the worst is the depthwise layer: its input, its output, the block's
    # input that will be added.
    assert memory.inference(spec, batch_size=1).activations == 4 * (64 + 64 + 32)


@settings(deadline=None, max_examples=30)
@given(
    st.sampled_from([zoo.load(name) for name in zoo.names()]),
    st.integers(1, 64),
    st.integers(0, 3),
)
def test_training_takes_more_than_inference_and_activations_grow_with_the_batch(
    spec, batch, slots
):
    trained = memory.training(spec, batch_size=batch, optimizer_slots=slots)
    run = memory.inference(spec, batch_size=batch)
    assert trained.activations > run.activations
    assert trained.total - trained.activations == (2 + slots) * run.weights
    one = memory.training(spec, batch_size=1, optimizer_slots=slots)
    assert trained.activations == batch * one.activations


def test_impossible_batches_and_slots_are_refused():
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        memory.inference(B0, batch_size=0)
    with pytest.raises(ValueError, match="optimizer_slots must be at least 0, got -1"):
        memory.training(B0, batch_size=1, optimizer_slots=-1)
