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


def test_every_name_is_tested_and_loads_under_its_own_name():
    assert set(zoo.names()) == COUNTED.keys() | PUBLISHED_PARAMS.keys()
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
