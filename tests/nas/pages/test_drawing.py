"""Pictures of architectures, as plotly's data."""

from nas.pages import drawing
from search_space import zoo
from search_space.spec import FusedMBConvStage


def test_a_layer_shows_its_width_inside_and_its_kind():
    inside, out = drawing.architecture(zoo.load("efficientnetv2-b0")).data
    # Its code: stages of 1 fused layer of 16 and 2 of 32, expanding 1 and 4 times; the
    # last eight are of 192 and expand 6 times, the first of them from 112.
    assert list(inside.y[:3]) == [32, 4 * 16, 4 * 32]
    assert list(inside.y[-8:]) == [6 * 112] + [6 * 192] * 7
    assert list(out.y[:3]) == [16, 32, 32]
    assert list(out.marker.pattern.shape) == ["."] * 5 + ["/"] * 16


def test_a_fused_stage_in_words():
    stage = FusedMBConvStage(
        channels=48, kernel=3, stride=2, expansion=4, repeats=4, se_ratio=0.25
    )
    found = drawing.describe_stage(stage)
    assert found == "Fused-MBConv4, 3x3, SE 0.25, 48 channels, stride 2, 4 layers"
