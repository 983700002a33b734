"""Tests for search_space.spaces: what the named spaces contain, and their laws."""

import itertools
import json
import math
import os
import pathlib
import sys
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search_space import cost, layers, scaling, spaces, zoo
from search_space.spec import ConvStage, FusedMBConvStage, MBConvStage

SPACES = {name: spaces.load(name) for name in spaces.names()}


@st.composite
def _points(draw):
    space = SPACES[draw(st.sampled_from(sorted(SPACES)))]
    return space, tuple(draw(st.integers(0, n - 1)) for n in space.num_choices)


@settings(deadline=None)
@given(_points())
def test_encode_inverts_decode(point):
    space, tokens = point
    assert space.encode(space.decode(tokens)) == space.canonical(tokens)


@settings(deadline=None)
@given(_points())
def test_every_architecture_has_layers_that_join_and_a_cost(point):
    space, tokens = point
    spec = space.decode(tokens)
    found = layers.blocks(spec)
    for before, after in itertools.pairwise(found):
        assert (before.out_channels, before.out_size) == (
            after.in_channels,
            after.in_size,
        )
    assert found[-2].out_size == math.ceil(spec.resolution / 32)
    whole = cost.profile(spec)
    assert (whole.num_macs, whole.num_params) == (
        cost.num_macs(spec),
        cost.num_params(spec),
    )


@settings(deadline=None)
@given(_points(), _points())
def test_names_tell_architectures_apart(one, other):
    first, second = (space.decode(tokens) for space, tokens in (one, other))
    assert (first.name == second.name) == (first == second)


def test_sizes_are_the_published_ones():
    # MnasNet, section 4.1: 432 a block. Accel-NASBench: (3*2*3*2)^6 * (3*2*4*2).
    assert SPACES["mnasnet"].size == 432**7
    assert SPACES["accel-nasbench"].size == 36**6 * 48
    assert SPACES["mbconv"].size == (2 * 3 * 2 * 3 * 3) ** 7
    assert len(SPACES["mbconv"].num_choices) == 35


@pytest.mark.parametrize(
    ("space", "network"), [("mbconv", "efficientnet-b0"), ("mnasnet", "mobilenet-v2")]
)
def test_spaces_contain_the_networks_they_are_built_around(space, network):
    spec = zoo.load(network)
    tokens = SPACES[space].encode(spec)
    assert SPACES[space].decode(tokens).stages == spec.stages


V2 = SPACES["efficientnetv2"]


def test_efficientnetv2_contains_v2_s_before_b4s_depth_is_applied():
    wanted = zoo.load("efficientnetv2-s")
    choices = {
        "*.kernel": (3,),
        "stage[0-2].op": ("fused",),
        "stage[3-5].op": ("mbconv",),
        "stage0.expansion": (1,),
        "stage[123].expansion": (4,),
        "stage[45].expansion": (6,),
        "stage6.layers": (0,),
        **{
            f"stage{i}.layers": (layers,) for i, layers in enumerate((1, 2, 2, 3, 5, 8))
        },
    }
    one = V2.restrict(choices)
    assert one.size == 1
    found = one.decode((0,) * 28)
    assert scaling.scale(found, depth=1.8).stages == wanted.stages
    # Of B4's size, 4.4 billion multiply-adds, and of V2-B0's layers.
    assert round(cost.num_macs(found) / 1e9, 1) == 3.9
    b0 = zoo.load("efficientnetv2-b0")
    assert [s.repeats for s in found.stages] == [s.repeats for s in b0.stages]


def test_decisions_of_a_stage_without_layers_do_not_matter():
    names = [decision.name for decision in V2.decisions]
    assert names[24:] == [
        f"stage6.{n}" for n in ("layers", "op", "kernel", "expansion")
    ]
    # Its three others need the first two of the three values of the decision at 24.
    assert V2.conditions == ((),) * 25 + (((24, (1, 2)),),) * 3
    assert V2.size == (3 * 2 * 2 * 3) ** 6 * (1 + 2 * 2 * 2 * 3)
    without = V2.decode((0,) * 24 + (0, 1, 1, 2))
    assert without == V2.decode((0,) * 28)
    assert len(without.stages) == 6
    assert V2.encode(without) == (0,) * 28
    seventh = V2.decode((0,) * 24 + (2, 1, 1, 2)).stages[6]
    assert seventh == FusedMBConvStage(
        channels=448, kernel=5, stride=1, expansion=6, repeats=2
    )


def test_widths_differ_after_rounding():
    space = SPACES["mbconv"]
    widths = [
        [
            space.restrict({f"stage{i}.width": (width,)})
            .decode((0,) * 35)
            .stages[i]
            .channels
            for width in (0.75, 1.0, 1.25)
        ]
        for i in range(7)
    ]
    # Each within 2 of the product, and a multiple of 4.
    assert widths == [
        [12, 16, 20], [20, 24, 32], [32, 40, 52], [60, 80, 100], [84, 112, 140],
        [144, 192, 240], [240, 320, 400],
    ]  # fmt: skip


def test_mnasnet_operations():
    space = SPACES["mnasnet"].restrict(
        {"*.kernel": (5,), "*.skip": ("pool",), "*.se_ratio": (0.25,)}
    )
    kinds = {}
    for op in ("conv", "sepconv", "mbconv3", "mbconv6"):
        one = space.restrict({"*.op": (op,)})
        kinds[op] = one.decode((0,) * len(one.num_choices)).stages[3]
    assert isinstance(kinds["conv"], ConvStage)
    others = [kinds["sepconv"], kinds["mbconv3"], kinds["mbconv6"]]
    assert [s.expansion for s in others if isinstance(s, MBConvStage)] == [1, 3, 6]
    for stage in kinds.values():
        assert (stage.kernel, stage.skip, stage.se_ratio) == (5, "pool", 0.25)
        assert (stage.repeats, stage.channels, stage.stride) == (3, 48, 2)


@pytest.mark.parametrize("name", ["mnasnet", "mbconv"])
def test_layers_are_those_of_the_network_plus_or_minus_one(name):
    space = SPACES[name]
    found = [d.choices for d in space.decisions if d.name.endswith(".layers")]
    base = {"mnasnet": (1, 2, 3, 4, 3, 3, 1), "mbconv": (1, 2, 2, 3, 3, 4, 1)}[name]
    assert found == [(1, 2, 3) if n == 1 else (n - 1, n, n + 1) for n in base]


@pytest.mark.parametrize(
    "name", ["darts", "", ":", ":SPACE", ".own:SPACE", "a b:SPACE"]
)
def test_unknown_space_lists_the_known_ones(name):
    with pytest.raises(
        ValueError, match=r"mbconv, mnasnet, accel-nasbench, .*v2 or module"
    ):
        spaces.load(name)


def test_own_space_loads_by_module_and_attribute(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_spaces_of_this_test.py").write_text(
        "from search_space import spaces\n"
        "SMALL = spaces.load('mbconv').restrict({'*.kernel': (3,)})\n"
        "OTHER = 3\n"
    )
    (tmp_path / "broken_space_of_this_test.py").write_text("import no_such_module\n")
    assert spaces.load("own_spaces_of_this_test:SMALL").size == 54**7
    with pytest.raises(ValueError, match="must be a SearchSpace, got int"):
        spaces.load("own_spaces_of_this_test:OTHER")
    with pytest.raises(ValueError, match="has no MISSING"):
        spaces.load("own_spaces_of_this_test:MISSING")
    with pytest.raises(ValueError, match="is not found; is its folder"):
        spaces.load("no_such_module:SMALL")
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        spaces.load("broken_space_of_this_test:SMALL")
    del sys.modules["own_spaces_of_this_test"]


def _accel_tokens(architecture):
    space = SPACES["accel-nasbench"]
    keys = {"expansion": "e", "kernel": "k", "layers": "l", "se_ratio": "se"}
    for decision in space.decisions:
        stage, what = decision.name.removeprefix("stage").split(".")
        value = architecture[f"block{stage}_{keys[what]}"]
        yield decision.choices.index(0.25 * value if what == "se_ratio" else value)


def _accel_macs(profile):
    """What the benchmark calls MACs: batch norm and average pools are counted too."""
    extra = 0
    for found in profile.layers:
        layer = found.layer
        if layer.op == "batch_norm":
            extra += 4 * layer.out_channels * layer.out_size**2
        elif layer.op == "global_average_pool":
            extra += (layer.in_size**2 + 1) * layer.in_channels
    return profile.num_macs + extra


def test_accel_nasbench_counts_are_exact():
    path = os.environ.get("ACCEL_NASBENCH")
    if path is None:
        pytest.skip(
            "set ACCEL_NASBENCH to data/accel_nasbench_imagenet.tar.gz"
            " of https://github.com/afzalxo/Accel-NASBench"
        )
    space, seen, wrong = SPACES["accel-nasbench"], 0, []
    with tarfile.open(path) as archive:
        for member in archive:
            if (file := archive.extractfile(member)) is None:
                continue
            record = json.load(file)
            spec = space.decode(list(_accel_tokens(record["architecture"])))
            profile = cost.profile(spec)
            published = record["model_info"]  # in millions
            counts = (profile.num_params, _accel_macs(profile))
            if counts != tuple(round(published[k] * 1e6) for k in ("params", "macs")):
                wrong.append((member.name, counts, published))
            seen += 1
    assert wrong == []
    assert seen == 5138
