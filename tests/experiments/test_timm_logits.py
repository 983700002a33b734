"""Our networks against timm's, where that is installed."""

import pytest

WHY = "pip install '.[checks]'"
for package in ("torch", "timm", "onnx", "onnxruntime"):
    pytest.importorskip(package, reason=WHY)

from experiments.checks import timm_logits  # noqa: E402


@pytest.mark.parametrize("name", ["efficientnet-b0", "efficientnet-b0-pytorch"])
def test_efficientnet_b0_computes_what_timm_computes(name):
    for found in timm_logits.compare(name):
        assert found.difference < timm_logits.TOLERANCE
        assert found.spread > 0.1  # else any network's logits would do
