"""EfficientNet's recipe against the figures of its TensorFlow code."""

import dataclasses

import numpy as np
import pytest

from search_space import zoo
from trainers.recipes import (
    EFFICIENTNET,
    EFFICIENTNETV2,
    EFFICIENTNETV2_L,
    EFFICIENTNETV2_M,
    SHORT,
    TrainingConfig,
)

IMAGES = 1_281_167  # of ImageNet's training split


def test_the_figures_are_the_sources():
    """main.py's flags; the batch is the paper's, whose rate of 0.256 it gives."""
    found = dataclasses.asdict(EFFICIENTNET)
    assert found == {
        "epochs": 350,
        "batch_size": 4096,
        "resolution": "architecture",
        "optimizer": "rmsprop",
        "learning_rate": 0.016,
        "schedule": "staircase",
        "warmup_epochs": 5,
        "weight_decay": 1e-5,
        "decay_biases": True,
        "label_smoothing": 0.1,
        "norm_momentum": 0.99,
        "norm_batches": 4,  # a departure: the source takes the running statistics
        "ema_decay": 0.9999,
        "randaugment_ops": 2,
        "randaugment_magnitude": 10,
        "mixup": 0,
        "cutmix": 0,
        "dropout": None,
        "train_share": 1,
        "progressive": False,
        "growth": "paper",
        "stages": 4,
        "first_resolution": None,
        "first_magnitude": 5,
        "first_dropout": 0.1,
        "eval_crop": 0.875,
        "interpolation": "bicubic",
        "accumulation": 1,
        "dtype": "float32",
    }


def test_the_rates_are_the_sources_at_every_step():
    """int(5 * 312.78...) = 1563 steps of warm-up from 0; decay from the start."""
    rates = EFFICIENTNET.learning_rates(IMAGES)
    per_epoch = IMAGES / 4096
    assert len(rates) == pytest.approx(350 * per_epoch, abs=0.5)
    assert rates[0] == 0
    assert rates[1562] == pytest.approx(0.256 * 1562 / 1563, rel=1e-5)
    # 5 / 2.4 epochs: two decays have been.
    assert rates[1563] == pytest.approx(0.256 * 0.97**2, rel=1e-5)
    for epoch in (7.21, 47.9, 48.1, 349.9):
        decays = int(epoch / 2.4)
        want = 0.256 * 0.97**decays
        assert rates[round(epoch * per_epoch)] == pytest.approx(want, rel=1e-4)
    assert len(np.unique(rates[1563:])) == int(350 / 2.4) - 2 + 1


def test_the_short_recipe_sees_the_whole_square_and_decays_kernels_alone():
    assert (SHORT.eval_crop, SHORT.interpolation) == (1, "bilinear")
    assert not SHORT.decay_biases


def _stages(config, name):
    """Of each: resolution, RandAugment's magnitude, mixup, the classifier's dropout."""
    spec = zoo.load(name)
    phases = config.phases(IMAGES, spec)
    assert sum(phase.steps for phase in phases) == config.num_steps(IMAGES)
    return [
        (
            phase.resolution,
            phase.strengths.randaugment,
            phase.strengths.mixup,
            phase.strengths.dropout * spec.head.dropout,
        )
        for phase in phases
    ]


# arXiv:2104.00298, table 6: first and last of four stages, of some 87 epochs each.
PAPER = {
    "efficientnetv2-s": (EFFICIENTNETV2, (128, 5, 0, 0.1), (300, 15, 0, 0.3)),
    "efficientnetv2-m": (EFFICIENTNETV2_M, (128, 5, 0, 0.1), (380, 20, 0.2, 0.4)),
    "efficientnetv2-l": (EFFICIENTNETV2_L, (128, 5, 0, 0.1), (380, 25, 0.4, 0.5)),
}


@pytest.mark.parametrize("name", PAPER)
def test_the_stages_of_the_papers_table(name):
    config, first, last = PAPER[name]
    found = _stages(config, name)
    assert len(found) == 4
    assert found[0] == pytest.approx(first)
    assert found[-1] == pytest.approx(last)
    # Everything in between is on the line, pixels rounded.
    assert found[1] == pytest.approx(np.add(first, np.subtract(last, first) / 3), 0.005)
    epochs = config.phases(IMAGES, zoo.load(name))[0].steps * 4096 / IMAGES
    assert epochs == pytest.approx(87.5, abs=0.05)


# google/automl's: last training size, sizes and magnitudes of its stages.
CODE = {
    "efficientnetv2-s": (300, 10, [171, 214, 257, 300]),
    "efficientnetv2-m": (384, 15, [192, 256, 320, 384]),
    "efficientnetv2-l": (384, 20, [192, 256, 320, 384]),
    "efficientnetv2-xl": (384, 20, [192, 256, 320, 384]),
    "efficientnetv2-b0": (192, 0, [144, 160, 176, 192]),
    "efficientnetv2-b1": (192, 0, [144, 160, 176, 192]),
    "efficientnetv2-b2": (208, 0, [148, 168, 188, 208]),
    "efficientnetv2-b3": (240, 0, [156, 184, 212, 240]),
}


@pytest.mark.parametrize("name", CODE)
def test_the_stages_of_the_released_code(name):
    last, magnitude, sizes = CODE[name]
    spec = zoo.load(name)
    config = dataclasses.replace(
        EFFICIENTNETV2,
        growth="code",
        dropout=None,
        train_share=last / spec.resolution,
        randaugment_magnitude=float(magnitude),
    )
    found = _stages(config, name)
    assert [row[0] for row in found] == sizes
    magnitudes = np.linspace(5, magnitude, 4)
    np.testing.assert_allclose([row[1] for row in found], magnitudes)
    assert {row[3] for row in found} == {spec.head.dropout}


def test_without_stages_there_is_one_phase_as_strong_as_the_last():
    spec = zoo.load("efficientnetv2-s")
    (whole,) = dataclasses.replace(EFFICIENTNETV2, progressive=False).phases(
        IMAGES, spec
    )
    *_, last = EFFICIENTNETV2.phases(IMAGES, spec)
    assert (whole.resolution, whole.strengths) == (last.resolution, last.strengths)


def test_small_images_grow_from_the_total_stride():
    config = dataclasses.replace(SHORT, progressive=True)
    spec = dataclasses.replace(zoo.load("efficientnetv2-b0"), resolution=64)
    found = config.phases(1_000, spec)
    assert [phase.resolution for phase in found] == [32, 43, 53, 64]


def test_a_network_without_dropout_gets_none():
    spec = zoo.load("resnet-50")
    assert {p.strengths.dropout for p in SHORT.phases(1_000, spec)} == {1.0}
    with pytest.raises(ValueError, match="dropout must be 0 for resnet-50"):
        EFFICIENTNETV2.phases(IMAGES, spec)


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("eval_crop", 0.0, "eval_crop must be above 0 and at most 1, got 0.0"),
        ("eval_crop", 1.5, "eval_crop must be above 0 and at most 1, got 1.5"),
        ("randaugment_magnitude", 31.0, "must be from 0 to 30, got 31.0"),
        ("train_share", 1.5, "train_share must be above 0 and at most 1, got 1.5"),
        ("stages", 1, "stages must be from 2 to 1000, got 1; without progressive"),
        ("first_magnitude", 31.0, "first_magnitude must be from 0 to 30, got 31.0"),
        ("first_dropout", 1.0, r"first_dropout must be in \[0, 1\), got 1.0"),
    ],
)
def test_bad_values_are_refused(field, value, told):
    values = {**dataclasses.asdict(SHORT), field: value}
    with pytest.raises(ValueError, match=told):
        TrainingConfig(**values)
