"""EfficientNet's recipe against the figures of its TensorFlow code."""

import dataclasses

import numpy as np
import pytest

from trainers.recipes import EFFICIENTNET, SHORT, TrainingConfig

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


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("eval_crop", 0.0, "eval_crop must be above 0 and at most 1, got 0.0"),
        ("eval_crop", 1.5, "eval_crop must be above 0 and at most 1, got 1.5"),
        ("randaugment_magnitude", 31.0, "must be from 0 to 30, got 31.0"),
    ],
)
def test_bad_values_are_refused(field, value, told):
    values = {**dataclasses.asdict(SHORT), field: value}
    with pytest.raises(ValueError, match=told):
        TrainingConfig(**values)
