"""Tests for search_space.space: a space of one's own, its faults, restrictions."""

import dataclasses
import functools
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search_space import zoo
from search_space.decisions import Decision, parse_restrictions
from search_space.space import SearchSpace, StageChoices
from search_space.spec import ConvStage, MBConvStage

BASE = zoo.load("mobilenet-v2")


def _space(*stages: StageChoices) -> SearchSpace:
    return SearchSpace(name="own", base=BASE, stages=stages)


def _mbconv(choices, **fixed) -> StageChoices:
    given = {"channels": 24, "kernel": 3, "stride": 2, "expansion": 3, "repeats": 1}
    rest = {k: v for k, v in (given | fixed).items() if k not in choices}
    return StageChoices(choices=choices, build=functools.partial(MBConvStage, **rest))


OWN = _space(
    _mbconv({"kernel": (3, 5), "expansion": (1, 3, 6)}),
    _mbconv({"skip": ("none", "identity"), "repeats": (2, 1)}),
    _mbconv({}),
)

# Choices of two stages as small sets of kernels and of widths.
space_shapes = st.lists(
    st.tuples(
        st.lists(st.sampled_from([1, 3, 5, 7]), min_size=1, max_size=4, unique=True),
        st.lists(st.integers(1, 64), min_size=1, max_size=4, unique=True),
    ),
    min_size=1,
    max_size=3,
)


@settings(max_examples=30, deadline=None)
@given(space_shapes)
def test_encode_inverts_decode_on_the_whole_of_any_space(shapes):
    space = _space(
        *(_mbconv({"kernel": tuple(k), "channels": tuple(c)}) for k, c in shapes)
    )
    every = list(itertools.product(*map(range, space.num_choices)))
    specs = [space.decode(tokens) for tokens in every]
    assert len(every) == space.size == len({spec.stages for spec in specs})
    assert [space.encode(spec) for spec in specs] == every
    assert len({spec.name for spec in specs}) == space.size


def test_decisions_are_in_the_order_of_the_tokens():
    assert [(d.name, d.choices) for d in OWN.decisions] == [
        ("stage0.kernel", (3, 5)),
        ("stage0.expansion", (1, 3, 6)),
        ("stage1.skip", ("none", "identity")),
        ("stage1.repeats", (2, 1)),
    ]
    assert OWN.num_choices == (2, 3, 2, 2)
    assert OWN.size == 24
    first, second, third = OWN.decode((1, 2, 0, 1)).stages
    assert first == MBConvStage(channels=24, kernel=5, stride=2, expansion=6, repeats=1)
    assert (second.skip, second.repeats) == ("none", 1)
    assert third == MBConvStage(channels=24, kernel=3, stride=2, expansion=3, repeats=1)


def test_rows_of_integer_arrays_are_tokens():
    row = np.array([1, 2, 0, 1], np.int32)
    assert OWN.decode(row) == OWN.decode((1, 2, 0, 1))
    assert OWN.encode(OWN.decode(row)) == (1, 2, 0, 1)


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ((0, 0, 0), "space own has 4 decisions, got 3 tokens"),
        ((0, 3, 0, 0), "token of stage0.expansion must be from 0 to 2, got 3"),
        ((0, 0, -1, 0), "token of stage1.skip must be from 0 to 1, got -1"),
        ((0, 0, 0.5, 0), r"tokens must be integers, got \(0, 0, 0.5, 0\)"),
    ],
)
def test_wrong_tokens_are_refused(tokens, message):
    with pytest.raises(ValueError, match=message):
        OWN.decode(tokens)


def test_architectures_outside_the_space_are_refused():
    with pytest.raises(ValueError, match="space own has 3 stages, got 7"):
        OWN.encode(BASE)
    with pytest.raises(ValueError, match="stem, head and activation must be"):
        OWN.encode(zoo.load("mnasnet-a1"))
    inside = OWN.decode((0, 0, 0, 0))
    with pytest.raises(ValueError, match=r"padding and norm_epsilon must be .*symmetr"):
        OWN.encode(dataclasses.replace(inside, padding="symmetric"))
    outside = OWN.restrict({"stage0.kernel": (5,)})
    with pytest.raises(ValueError, match=r"stages\.0 must be one of the 3 that"):
        outside.encode(inside)


def test_restriction_keeps_names_order_and_meaning():
    small = OWN.restrict({"*.expansion": (6, 1), "stage1.repeats": (1,)})
    assert [(d.name, d.choices) for d in small.decisions] == [
        ("stage0.kernel", (3, 5)),
        ("stage0.expansion", (1, 6)),
        ("stage1.skip", ("none", "identity")),
        ("stage1.repeats", (1,)),
    ]
    # Equal with its name, so that an architecture keeps it in a smaller space.
    assert small.decode((0, 1, 1, 0)) == OWN.decode((0, 2, 1, 1))


def test_restrictions_combine_and_patterns_skip_what_does_not_offer_the_value():
    space = _space(_mbconv({"repeats": (1, 2, 3)}), _mbconv({"repeats": (2, 3, 4)}))
    small = space.restrict({"*.repeats": (1, 2, 3), "stage0.repeats": (1, 2)})
    assert [d.choices for d in small.decisions] == [(1, 2), (2, 3)]


@settings(deadline=None)
@given(st.data())
def test_a_restricted_space_is_the_part_of_the_space_that_agrees(data):
    restriction = {
        decision.name: data.draw(
            st.lists(st.sampled_from(decision.choices), min_size=1, unique=True)
        )
        for decision in OWN.decisions
    }
    small = OWN.restrict(restriction)
    found = {small.decode(t) for t in itertools.product(*map(range, small.num_choices))}
    assert found == {
        OWN.decode(tokens)
        for tokens in itertools.product(*map(range, OWN.num_choices))
        if all(
            decision.choices[token] in restriction[decision.name]
            for decision, token in zip(OWN.decisions, tokens, strict=True)
        )
    }


@pytest.mark.parametrize(
    ("restriction", "message"),
    [
        ({"stage9.kernel": (3,)}, r"'stage9.kernel' must fit a decision of space own: "
                                  r"stage0.kernel, stage0.expansion, "),
        ({"*.kernel": (3, 7)}, r"\*.kernel must be one of 3, 5, got 7"),
        ({"*.kernel": ()}, r"stage0.kernel must keep one of 3, 5, and .* nothing"),
        ({"*.kernel": (3,), "stage0.*": (5,)},
         r"stage0.kernel must keep one of 3, and stage0.\* leaves 5"),
    ],
)  # fmt: skip
def test_impossible_restrictions_are_refused(restriction, message):
    with pytest.raises(ValueError, match=message):
        OWN.restrict(restriction)


def _stage_or_none(layers, kernel, skip):
    if layers == 0:
        return None
    return MBConvStage(
        channels=24, kernel=kernel, stride=1, expansion=3, repeats=layers, skip=skip
    )


# The kernel matters where there are layers, and the skip where the kernel is 5 besides.
CONDITIONAL = StageChoices(
    choices={"layers": (0, 1, 2), "kernel": (3, 5), "skip": ("identity", "none")},
    build=lambda layers, kernel, skip: _stage_or_none(
        layers, kernel, skip if kernel == 5 else "identity"
    ),
    needs={"kernel": {"layers": (1, 2)}, "skip": {"kernel": (5,)}},
)
OPTIONAL = _space(_mbconv({"kernel": (3, 5)}), CONDITIONAL)


def test_what_does_not_matter_makes_no_other_architecture():
    every = list(itertools.product(*map(range, OPTIONAL.num_choices)))
    found = {tokens: OPTIONAL.decode(tokens) for tokens in every}
    # By hand: no layers, or 1 or 2 with kernel 3, or with 5 and either skip.
    assert OPTIONAL.size == 2 * (1 + 2 * (1 + 2)) == len(set(found.values()))
    assert len({spec.name for spec in found.values()}) == OPTIONAL.size
    for tokens, spec in found.items():
        canonical = OPTIONAL.canonical(tokens)
        assert OPTIONAL.encode(spec) == OPTIONAL.canonical(canonical) == canonical
        assert found[canonical] == spec
    # A skip needs a kernel that matters itself.
    assert OPTIONAL.canonical((1, 0, 1, 1)) == (1, 0, 0, 0)
    assert OPTIONAL.canonical((1, 2, 0, 1)) == (1, 2, 0, 0)
    assert OPTIONAL.canonical((1, 2, 1, 1)) == (1, 2, 1, 1)
    assert OPTIONAL.conditions == ((), (), ((1, (1, 2)),), ((2, (1,)),))
    assert OWN.conditions == ()


def test_restricting_what_others_need_restricts_their_needs():
    without = OPTIONAL.restrict({"stage1.layers": (0,)})
    assert without.size == 2
    assert without.canonical((1, 0, 1, 1)) == (1, 0, 0, 0)
    always = OPTIONAL.restrict({"stage1.layers": (2,), "*.kernel": (5,)})
    assert always.size == 2
    assert always.canonical((0, 0, 0, 1)) == (0, 0, 0, 1)


def test_only_the_last_stage_may_be_left_out():
    with pytest.raises(ValueError, match="stage0 must never be None; only the last of"):
        _space(CONDITIONAL, _mbconv({}))
    with pytest.raises(ValueError, match="stage0 must never be None"):
        _space(CONDITIONAL)


@pytest.mark.parametrize(
    ("needs", "message"),
    [
        ({"layers": {"kernel": (3,)}}, "layers must need a choice before it, got kern"),
        ({"kernel": {"width": (3,)}}, "kernel must need a choice before it, got width"),
        ({"width": {"layers": (1,)}}, "width must need a choice before it, got layers"),
        ({"kernel": {"layers": (1, 4)}}, r"are offered, \(0, 1, 2\), got 4"),
    ],
)
def test_impossible_needs_are_refused(needs, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(CONDITIONAL, needs=needs)


def test_restrictions_are_parsed_from_text():
    texts = ["stage3.kernel=3, 5", "*.se_ratio=0.25", "*.skip=none"]
    assert parse_restrictions(texts) == {
        "stage3.kernel": (3, 5),
        "*.se_ratio": (0.25,),
        "*.skip": ("none",),
    }
    small = OWN.restrict(parse_restrictions(["*.skip=none", "*.kernel=5.0"]))
    assert small.size == 6


@pytest.mark.parametrize("text", ["", "kernel", "=3", "kernel=", "kernel=3,,5"])
def test_texts_of_another_form_are_refused(text):
    with pytest.raises(ValueError, match=r"must read NAME=VALUE,VALUE\.\.\. as in"):
        parse_restrictions([text])


def test_a_name_restricted_twice_is_refused():
    with pytest.raises(ValueError, match="kernel must be restricted once"):
        parse_restrictions(["*.kernel=3", "*.kernel=5"])


def test_space_is_checked_when_it_is_made():
    with pytest.raises(ValueError, match=r"stage0 with .*'kernel': 4.*: kernel must"):
        _space(_mbconv({"kernel": (3, 4)}))
    with pytest.raises(ValueError, match="stage1 must be a different stage for"):
        _space(
            _mbconv({}),
            StageChoices(
                choices={"width": (0.9, 1.0)},
                build=lambda width: ConvStage(
                    channels=round(4 * width), kernel=3, stride=1, repeats=1
                ),
            ),
        )
    with pytest.raises(ValueError, match="name must have at most 200 characters"):
        SearchSpace(name="x" * 195, base=BASE, stages=(_mbconv({}),))
    with pytest.raises(ValueError, match="at least the total stride 256, got 224"):
        _space(*[_mbconv({"stride": (1, 2)})] * 7)
    with pytest.raises(ValueError, match="repeats must sum to at most 1024"):
        _space(*[_mbconv({"repeats": (1, 256)}, stride=1)] * 5)
    with pytest.raises(ValueError, match=r"at most 100000 combinations .*, got 250000"):
        _space(_mbconv({"channels": tuple(range(1, 501)), "x": tuple(range(500))}))


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ((), "at least one choice"),
        ((1, 1.0), "must differ"),
        ((True, 2), "got True"),
        ((0.5, float("nan")), "got nan"),
        ((0.5, float("inf")), "got inf"),
    ],
)
def test_choices_that_could_not_be_told_apart_are_refused(choices, message):
    with pytest.raises(ValueError, match=message):
        Decision(name="stage0.kernel", choices=choices)
