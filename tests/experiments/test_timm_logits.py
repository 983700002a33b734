"""Our networks against timm's, where that is installed."""

import pytest

WHY = "pip install '.[checks]'"
pytest.importorskip("torch", reason=WHY)
pytest.importorskip("timm", reason=WHY)

from experiments.checks import timm_logits  # noqa: E402


def test_efficientnet_b0_computes_what_timm_computes():
    for found in timm_logits.compare("efficientnet-b0"):
        assert found.difference < timm_logits.TOLERANCE
        assert found.spread > 0.1  # else any network's logits would do
