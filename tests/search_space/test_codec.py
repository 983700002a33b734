"""Tests for search_space.codec."""

import copy
import json
import pathlib

import jsonschema
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from search_space import codec, cost, layers, spaces, zoo
from search_space.codec import ArchitectureError
from search_space.spec import ClassifierHead

OLD_FILE = pathlib.Path(__file__).parents[2] / "experiments/results/digits_best.json"
SPACES = {name: spaces.load(name) for name in spaces.names()}
SCHEMA = jsonschema.Draft202012Validator(json.loads(codec.SCHEMA_PATH.read_text()))

# One file with every kind of stage, and a record of how it was found.
DOCUMENT = {
    "version": 2,
    "architecture": {
        "name": "all-kinds",
        "resolution": 64,
        "in_channels": 3,
        "num_classes": 10,
        "activation": "swish",
        "stem": {"channels": 8, "kernel": 3, "stride": 2, "pool": True},
        "stages": [
            {"kind": "conv", "channels": 8, "kernel": 3, "stride": 1, "repeats": 1,
             "se_ratio": 0.25, "skip": "pool"},
            {"kind": "sepconv", "channels": 12, "kernel": 5, "stride": 2, "repeats": 2},
            {"kind": "mbconv", "channels": 16, "kernel": 3, "stride": 2, "expansion": 6,
             "repeats": 2, "se_ratio": 0.25, "skip": "identity"},
            {"kind": "bottleneck", "channels": 32, "bottleneck": 8, "kernel": 3,
             "stride": 1, "repeats": 2},
            {"kind": "fused_mbconv", "channels": 32, "kernel": 3, "stride": 1,
             "expansion": 4, "repeats": 2, "se_ratio": 0.0, "skip": "identity",
             "stride_on": "projection", "expansion_of": "output"},
        ],
        "head": {"channels": None, "dropout": 0.1},
        "drop_path": 0.2,
        "padding": "symmetric",
        "norm_epsilon": 1e-5,
    },
    "found": {"reward": 0.5, "tokens": [0, 1]},
}  # fmt: skip


def _edited(path, value):
    document = copy.deepcopy(DOCUMENT)
    *parents, last = path
    node = document
    for part in parents:
        node = node[part]
    node[last] = value
    return json.dumps(document)


def _paths(node, prefix=()):
    """All ways down to a value in a JSON document."""
    items = node.items() if isinstance(node, dict) else enumerate(node)
    for key, child in items:
        yield (*prefix, key)
        if isinstance(child, dict | list):
            yield from _paths(child, (*prefix, key))


PATHS = list(_paths(DOCUMENT))
ODD_VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(0, 20),
    st.floats(),
    st.floats(0, 1),
    st.text(),
    st.sampled_from(["conv", "sepconv", "mbconv", "pool", "none", "relu", "\ud800"]),
    st.lists(st.integers(), max_size=3),
    st.dictionaries(st.text(max_size=5), st.integers(), max_size=3),
    st.sampled_from([DOCUMENT, DOCUMENT["architecture"], [DOCUMENT] * 3]),
)


def _assert_refused_or_whole(text):
    """Refused in one line, or laid out, counted, and legal for the schema too."""
    try:
        spec = codec.loads(text)
    except ArchitectureError as error:
        message = str(error)
        assert message.isprintable()
        assert 0 < len(message) < 400
        return
    assert cost.profile(spec).num_params == cost.num_params(spec) > 0
    assert all(block.out_size >= 1 for block in layers.blocks(spec))
    assert codec.loads(codec.dumps(spec)) == spec
    SCHEMA.validate(json.loads(text))


@settings(max_examples=1500, deadline=None)
@given(st.sampled_from(PATHS), ODD_VALUES)
def test_any_value_in_any_place_is_refused_or_whole(path, value):
    _assert_refused_or_whole(_edited(path, value))


@settings(max_examples=500, deadline=None)
@given(st.sampled_from(PATHS), st.sampled_from(PATHS), st.booleans())
def test_fields_moved_or_missing_are_refused_or_whole(source, target, move):
    document = copy.deepcopy(DOCUMENT)
    node = document
    for part in source[:-1]:
        node = node[part]
    taken = node.pop(source[-1])
    if move and target[: len(source)] != source:
        node = document
        try:
            for part in target[:-1]:
                node = node[part]
            node[target[-1]] = taken
        except (IndexError, KeyError):  # the target moved up with the list
            return
    _assert_refused_or_whole(json.dumps(document))


@settings(max_examples=1500, deadline=None)
@given(st.data())
def test_any_edit_of_the_text_is_refused_or_whole(data):
    text = json.dumps(DOCUMENT)
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 20)))
    inserted = data.draw(
        st.text(alphabet='{}[]",:0123456789.eE-+tfn\\u\ud800', max_size=8)
    )
    _assert_refused_or_whole(text[:start] + inserted + text[end:])


@settings(max_examples=300, deadline=None)
@given(st.text())
@example("")
@example("\ufeff{}")
@example("[" * 500_000)
@example('{"a":' * 500_000)
@example('"\\"' * 200_000)
@example("9" * 10_000)
def test_any_text_at_all_is_refused(text):
    with pytest.raises(ArchitectureError):
        codec.loads(text)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(sorted(SPACES)), st.data())
def test_loads_inverts_dumps_on_every_space(name, data):
    space = SPACES[name]
    spec = space.decode([data.draw(st.integers(0, n - 1)) for n in space.num_choices])
    text = codec.dumps(spec, {"tokens": list(space.encode(spec))})
    assert codec.loads(text) == spec


@pytest.mark.parametrize("name", zoo.names())
def test_loads_inverts_dumps_on_the_zoo(name):
    text = codec.dumps(zoo.load(name))
    assert codec.loads(text) == zoo.load(name)
    SCHEMA.validate(json.loads(text))


def test_padding_and_epsilon_are_written_only_where_they_are_not_the_default():
    plain = codec.to_json(zoo.load("mnasnet-b1"))
    assert plain.keys() == DOCUMENT["architecture"].keys() - {"padding", "norm_epsilon"}
    twin = zoo.load("mnasnet-b1-pytorch")
    written = codec.to_json(twin)
    assert (written["padding"], written["norm_epsilon"]) == ("symmetric", 1e-5)
    assert codec.loads(codec.dumps(twin)) == twin


def test_a_file_of_an_earlier_version_is_read_and_written_as_it_was():
    text = OLD_FILE.read_text()  # of a time when heads had no kind
    found = json.loads(text)["found"]
    assert codec.dumps(codec.loads(text), found) == text


def test_the_version_is_the_lowest_that_has_every_stage():
    plain, every = zoo.load("efficientnet-b0"), codec.loads(json.dumps(DOCUMENT))
    written = [json.loads(codec.dumps(spec))["version"] for spec in (plain, every)]
    assert written == [1, 2]
    # What is new in a version may be left out of it.
    text = codec.dumps(plain).replace('"version": 1', '"version": 2')
    assert codec.loads(text) == plain


def test_a_fused_stage_in_a_file_of_the_old_version_is_refused_with_the_remedy():
    with pytest.raises(ArchitectureError) as caught:
        codec.loads(_edited(["version"], 1))
    assert str(caught.value) == (
        "version must be 2 for fused_mbconv in architecture.stages.4, got 1; write"
        ' "version": 2'
    )


def test_a_head_without_a_kind_is_a_classifiers():
    head = {"channels": None, "dropout": 0.1}
    assert DOCUMENT["architecture"]["head"] == head
    spec = codec.loads(json.dumps(DOCUMENT))
    assert spec.head == ClassifierHead(channels=None, dropout=0.1)
    with_kind = _edited(["architecture", "head"], {"kind": "classifier"} | head)
    assert codec.loads(with_kind) == spec
    SCHEMA.validate(json.loads(with_kind))
    assert codec.to_json(spec)["head"] == head


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["architecture", "head", "kind"], "detector",
         "architecture.head.kind must be 'classifier', got 'detector'"),
        (["architecture", "stages", 2, "kernel"], 4,
         "architecture.stages.2.kernel must be odd, got 4"),
        (["architecture", "stages", 1, "channels"], True,
         "architecture.stages.1.channels must be a valid integer, got True"),
        (["architecture", "stages", 0, "channels"], 0,
         "architecture.stages.0.channels must be greater than or equal to 1, got 0"),
        (["architecture", "stages", 0, "se_ratio"], float("nan"),
         "architecture.stages.0.se_ratio must be a finite number, got nan"),
        (["architecture", "stages", 1, "groups"], 2,
         "architecture.stages.1.groups is not a known field, got 2"),
        (["architecture", "stages", 1, "kind"], "fused",
         "architecture.stages.1.kind must be one of 'conv', 'sepconv', 'mbconv',"
         " 'fused_mbconv', 'bottleneck', got 'fused'"),
        (["architecture", "stages", 4, "stride_on"], "both",
         "architecture.stages.4.stride_on must be 'expansion' or 'projection', got"
         " 'both'"),
        (["architecture", "activation"], "gelu",
         "architecture.activation must be 'relu', 'relu6' or 'swish', got 'gelu'"),
        (["architecture", "padding"], "valid",
         "architecture.padding must be 'same' or 'symmetric', got 'valid'"),
        (["architecture", "norm_epsilon"], 0,
         "architecture.norm_epsilon must be greater than or equal to 0.000001, got 0"),
        (["architecture", "name"], "two\nlines",
         "architecture.name must be printable, on one line, got 'two\\nlines'"),
        (["architecture", "resolution"], 15,
         "resolution must be at least the total stride 16, got 15; raise the"
         " resolution or stride less"),
        (["version"], 3,
         "version must be from 1 to 2, got 3; a file of another version needs the"
         " program that wrote it"),
        (["version"], True,
         "version must be from 1 to 2, got True; a file of another version needs the"
         " program that wrote it"),
        (["found"], [1], "found must be an object, got [1]"),
        (["found", "reward"], float("inf"),
         "found must hold finite numbers only, got {'reward': inf, 'tokens': [0, 1]}"),
    ],
)  # fmt: skip
def test_message_names_field_rule_and_value(path, value, message):
    with pytest.raises(ArchitectureError) as caught:
        codec.loads(_edited(path, value))
    assert str(caught.value) == message


def test_a_single_convolution_has_nothing_to_choose_for_its_stride():
    with pytest.raises(
        ArchitectureError, match=r"stages\.4 must have stride_on and ex"
    ):
        codec.loads(_edited(["architecture", "stages", 4, "expansion"], 1))


def test_layers_of_all_stages_together_are_bounded():
    stages = [DOCUMENT["architecture"]["stages"][3] | {"repeats": 256}] * 5
    with pytest.raises(ArchitectureError, match=r"at most 1024 .*, got 1280"):
        codec.loads(_edited(["architecture", "stages"], stages))


def test_missing_and_repeated_fields_are_named():
    text = json.dumps(DOCUMENT)
    with pytest.raises(ArchitectureError, match=r"^architecture\.stem is required$"):
        codec.loads(text.replace('"stem": {"channels": 8, "kernel": 3, "stride": 2, '
                                 '"pool": true}, ', ""))  # fmt: skip
    with pytest.raises(ArchitectureError, match="'resolution' must be given once"):
        codec.loads(text.replace('"name"', '"resolution": 32, "name"'))


def test_large_and_truncated_texts_are_refused():
    text = json.dumps(DOCUMENT)
    with pytest.raises(ArchitectureError, match="at most 1048576 characters"):
        codec.loads(text + " " * codec.MAX_SIZE)
    with pytest.raises(ArchitectureError, match="text must be JSON"):
        codec.loads(text[:-20])


def test_dumps_writes_nothing_that_loads_refuses():
    spec = zoo.load("mnasnet-a1")
    for found in ({"x": float("nan")}, {"x": object()}, {"x": "y" * codec.MAX_SIZE}):
        with pytest.raises(ArchitectureError):
            codec.dumps(spec, found)


def test_found_is_kept_apart_from_the_architecture():
    spec = zoo.load("mnasnet-a1")
    record = json.loads(codec.dumps(spec, {"reward": 0.5}))
    assert record["found"] == {"reward": 0.5}
    assert codec.loads(json.dumps(record)) == spec


def test_load_file_says_which_file(tmp_path: pathlib.Path):
    path = tmp_path / "best.json"
    path.write_text(codec.dumps(zoo.load("resnet-50")))
    assert codec.load_file(path) == zoo.load("resnet-50")
    path.write_bytes(b"\xff\xfe{}")
    with pytest.raises(ArchitectureError, match=r"best\.json: text must be UTF-8"):
        codec.load_file(path)
    path.write_text("{}")
    with pytest.raises(ArchitectureError, match=r"best\.json: version must be from 1"):
        codec.load_file(path)


def test_schema_file_is_up_to_date():
    assert codec.SCHEMA_PATH.read_text() == codec.schema(), (
        "run: python -m search_space.codec > search_space/architecture.schema.json"
    )
    jsonschema.Draft202012Validator.check_schema(json.loads(codec.schema()))


def test_schema_refuses_what_loads_refuses_field_by_field():
    for path, value in (
        (["architecture", "stages", 2, "kernel"], 4),
        (["architecture", "stages", 1, "groups"], 2),
        (["architecture", "head", "dropout"], 1.0),
        (["version"], 3),
    ):
        with pytest.raises(jsonschema.ValidationError):
            SCHEMA.validate(json.loads(_edited(path, value)))
