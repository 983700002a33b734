"""Tests for search_space.zoo: published counts, to the unit."""

import dataclasses

import pytest

from search_space import cost, zoo

# Trainable parameters and multiply-adds counted over the models of timm 1.0,
# torchvision 0.29 and effdet by hooks on convolutions and dense layers.
COUNTED = {
    "efficientnet-b0": (5_288_548, 385_814_752),
    "efficientnet-b1": (7_794_184, 686_802_832),
    "efficientnet-b2": (9_109_994, 993_561_872),
    "efficientnet-b3": (12_233_232, 1_827_141_392),
    "efficientnet-b4": (19_341_616, 4_393_771_024),
    "efficientnet-b5": (30_389_784, 10_266_384_752),
    "efficientnet-b6": (43_040_704, 19_067_593_536),
    "efficientnet-b7": (66_347_960, 37_745_884_192),
    "efficientnet-lite0": (4_652_008, 385_187_552),
    "efficientnet-lite1": (5_416_680, 600_185_232),
    "efficientnet-lite2": (6_092_072, 859_736_272),
    "efficientnet-lite3": (8_197_096, 1_383_321_872),
    "efficientnet-lite4": (13_006_568, 2_553_034_336),
    "mnasnet-a1": (3_887_038, 311_579_072),
    "mnasnet-b1": (4_383_312, 314_415_872),
    "mobilenet-v2": (3_504_872, 300_774_272),
    "efficientnetv2-b0": (7_139_704, 718_086_176),
    "efficientnetv2-b1": (8_141_052, 1_196_819_360),
    "efficientnetv2-b2": (10_096_086, 1_697_542_832),
    "efficientnetv2-b3": (14_358_406, 3_011_458_816),
    "efficientnetv2-s": (21_458_488, 8_365_617_152),
    "efficientnetv2-m": (54_139_356, 24_582_460_384),
    "efficientnetv2-l": (118_515_272, 56_079_699_008),
    "efficientnetv2-xl": (208_119_808, 93_353_451_520),
    # timm strides in the expansion, as the zoo does with PyTorch's padding.
    "efficientnet-edgetpu-s-pytorch": (5_438_392, 1_788_731_008),
    "efficientnet-edgetpu-m-pytorch": (6_899_496, 3_013_321_088),
    "efficientnet-edgetpu-l-pytorch": (10_589_712, 7_936_082_848),
}

# Published by timm (mobilenetv1_100) and torchvision (resnet50).
PUBLISHED_PARAMS = {"mobilenet-v1": 4_231_976, "resnet-50": 25_557_032}


@pytest.mark.parametrize("name", COUNTED)
def test_counts_equal_those_of_other_implementations(name):
    found = cost.profile(zoo.load(name))
    assert (found.num_params, found.num_macs) == COUNTED[name]


@pytest.mark.parametrize("name", PUBLISHED_PARAMS)
def test_parameters_equal_the_published_number(name):
    assert cost.profile(zoo.load(name)).num_params == PUBLISHED_PARAMS[name]


def test_multiply_adds_equal_those_printed_in_the_papers():
    # MobileNetV1's Table 4 prints 569M; EfficientNet's Table 3 4.1B for ResNet-50.
    assert round(cost.num_macs(zoo.load("mobilenet-v1")) / 1e6) == 569
    assert round(cost.num_macs(zoo.load("resnet-50")) / 1e9, 1) == 4.1


# Of google/automl's networks, by stage from the stem to the dense layer: parameters,
# multiply-adds at 300 (S) and 192 (B0) pixels, and at the resolution of evaluation.
V2_STAGES = {
    "efficientnetv2-s": (300, [
        (696, 14_580_000, 23_887_872),
        (10_464, 233_280_000, 382_205_952),
        (303_552, 1_697_760_000, 2_781_609_984),
        (589_184, 847_269_888, 1_351_876_608),
        (917_680, 281_393_920, 448_880_640),
        (3_463_840, 995_152_128, 1_587_437_568),
        (14_561_832, 1_204_077_312, 1_741_252_608),
        (330_240, 32_768_000, 47_185_920),
        (1_281_000, 1_280_000, 1_280_000),
    ]),
    "efficientnetv2-b0": (192, [
        (928, 7_962_624, 10_838_016),
        (4_640, 42_467_328, 57_802_752),
        (52_736, 120_324_096, 163_774_464),
        (136_000, 77_856_768, 105_971_712),
        (230_652, 30_481_920, 41_474_304),
        (947_048, 108_364_800, 147_432_192),
        (4_238_380, 130_601_856, 177_470_496),
        (248_320, 8_847_360, 12_042_240),
        (1_281_000, 1_280_000, 1_280_000),
    ]),
}  # fmt: skip

# At the resolution that training ends at.
V2_TRAINING_MACS = {
    "efficientnetv2-b1": (192, 747_003_008),
    "efficientnetv2-b2": (208, 1_043_476_528),
    "efficientnetv2-b3": (240, 1_908_036_640),
    "efficientnetv2-m": (384, 15_736_775_680),
    "efficientnetv2-l": (384, 35_899_418_624),
}


def _by_stage(spec):
    """Parameters and multiply-adds from the stem to the head and its dense layer."""
    found = {}
    for layer in cost.profile(spec).layers:
        block, _, name = layer.layer.name.rpartition(".")
        stage = name if name == "classifier" else block.partition(".")[0]
        params, macs = found.get(stage, (0, 0))
        found[stage] = (params + layer.num_params, macs + layer.num_macs)
    return list(found.values())


@pytest.mark.parametrize("name", V2_STAGES)
def test_each_stage_of_v2_counts_what_its_code_does(name):
    spec, (training, rows) = zoo.load(name), V2_STAGES[name]
    smaller = dataclasses.replace(spec, resolution=training)
    assert _by_stage(smaller) == [(params, macs) for params, macs, _ in rows]
    assert _by_stage(spec) == [(params, macs) for params, _, macs in rows]


@pytest.mark.parametrize("name", V2_TRAINING_MACS)
def test_multiply_adds_of_v2_in_training(name):
    resolution, macs = V2_TRAINING_MACS[name]
    spec = dataclasses.replace(zoo.load(name), resolution=resolution)
    assert cost.num_macs(spec) == macs


def test_edgetpu_strides_late_for_a_quarter_of_its_multiply_adds():
    # https://github.com/tensorflow/tpu/issues/660: early, S would have 24 % fewer.
    late, early = (
        cost.num_macs(zoo.load(f"efficientnet-edgetpu-s{suffix}"))
        for suffix in ("", "-pytorch")
    )
    assert round(1 - early / late, 2) == 0.24
    params = cost.num_params(zoo.load("efficientnet-edgetpu-s"))
    assert params == COUNTED["efficientnet-edgetpu-s-pytorch"][0]


def test_every_name_is_tested_and_loads_under_its_own_name():
    tested = {name.removesuffix("-pytorch") for name in COUNTED}
    assert set(zoo.names()) == tested | PUBLISHED_PARAMS.keys()
    assert all(zoo.load(name).name == name for name in zoo.names())


def test_pytorchs_twin_differs_in_padding_and_epsilon_alone():
    ours, twin = (zoo.load(f"mnasnet-a1{suffix}") for suffix in ("", "-pytorch"))
    assert (twin.padding, twin.norm_epsilon) == ("symmetric", 1e-5)
    assert twin == dataclasses.replace(
        ours, name="mnasnet-a1-pytorch", padding="symmetric", norm_epsilon=1e-5
    )
    assert cost.num_macs(twin) == COUNTED["mnasnet-a1"][1]
    with pytest.raises(ValueError, match="got 'mnasnet-pytorch'"):
        zoo.load("mnasnet-pytorch")


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"efficientnet-b0, .*resnet-50, got 'b0'"):
        zoo.load("b0")
