"""Tests for nas.report: what is made of a journal, as files and as a page."""

import html.parser
import json

import pytest

from nas import report
from nas.options import definition
from nas.options.definition import Definition
from nas.runs import run_folder
from nas.study import confirmation
from search_space import codec, cost, spaces, zoo
from tests.nas import trials
from trainers.measurement import Seconds

SPACE = spaces.load("mbconv")
B0 = SPACE.encode(zoo.load("efficientnet-b0"))


def completed(index, *, accuracy, num_macs, reward=None, tokens=B0, **metrics):
    return trials.completed(
        index,
        tokens=tokens,
        reward=accuracy if reward is None else reward,
        losses=(2.3, 1.125),
        seconds=Seconds(compile=60.0, train=40.0, eval=0.2),
        metrics={
            "accuracy": accuracy,
            "num_macs": num_macs,
            "num_params": 5_288_548,
            **metrics,
        },
    )


def infeasible(index, reason):
    return trials.infeasible(index, reason, tokens=B0)


@pytest.fixture
def folder(tmp_path):
    return run_folder.RunFolder(tmp_path)


def write_journal(folder, children, *, dataset="digits: small", options=None):
    facts = {"dataset": dataset, "versions": {"jax": "1"}, "options": options}
    trials.write(folder, children, **facts)


class Page(html.parser.HTMLParser):
    """Collects the text of every element by its tag, and the data that it draws."""

    def __init__(self, text):
        super().__init__()
        self.texts, self.data, self._id = [], None, None
        self.feed(text)

    @property
    def tags(self):
        return [tag for tag, _ in self.texts]

    @property
    def cells(self):
        shown = {"td", "dd", "small"}
        return [text.strip() for tag, text in self.texts if tag in shown]

    def handle_starttag(self, tag, attrs):
        assert not {"src", "href"} & dict(attrs).keys(), "it must need nothing else"
        self.texts.append((tag, ""))
        self._id = dict(attrs).get("id")

    def handle_endtag(self, _):
        self._id = None

    def handle_data(self, data):
        if self._id == "data":
            self.data = json.loads(data)
        if self.texts:
            tag, text = self.texts[-1]
            self.texts[-1] = (tag, text + data)


CHILDREN = [
    completed(0, accuracy=0.70, num_macs=300_000_000),
    completed(1, accuracy=0.80, num_macs=400_000_000, reward=0.8),
    infeasible(2, "diverged at step 7"),
    completed(3, accuracy=0.75, num_macs=500_000_000),
    completed(4, accuracy=0.90, num_macs=900_000_000, reward=0.5),
]


def test_the_report_shows_what_the_journal_holds(folder, capsys):
    write_journal(folder, CHILDREN)
    assert report.main([str(folder.path)]) == 0
    assert capsys.readouterr().out.strip() == str(folder.report)
    page = Page(folder.report.read_text())
    assert "digits: small" in page.cells
    assert {"5 of 10", "1 infeasible", "diverged at step 7"} <= set(page.cells)
    assert {"0.8000", "child 1", "80.00%", "400M"} <= set(page.cells)
    # B0's third stage, from the paper's Table 1.
    third = "MBConv6, 5x5, SE 0.25, 40 channels, stride 2, 2 layers"
    assert third in page.cells
    networks = page.data["networks"]
    assert [child["index"] for child in networks["children"]] == [0, 1, 3, 4]
    assert networks["children"][1] == {
        "index": 1, "name": SPACE.decode(B0).name, "tokens": list(B0),
        "stages": list(range(7)), "reward": 0.8, "loss": 1.125, "seconds": 100.2,
        "metrics": {
            "accuracy": 0.8, "images_per_second": 100.0, "num_macs": 400_000_000,
            "num_params": 5_288_548,
        },
    }  # fmt: skip
    assert [metric["name"] for metric in networks["metrics"]] == [
        "accuracy", "images_per_second", "num_macs", "num_params"
    ]  # fmt: skip
    assert networks["stages"][2]["text"] == third


def test_the_page_knows_which_version_of_files_a_stage_is_of(folder):
    """What is downloaded from it says the version of its latest stage."""
    options = Definition(search=definition.SearchOptions(space="efficientnetv2"))
    tokens = (0, 1, *[0] * 26)  # the first stage is fused, and there is no seventh
    only = completed(0, accuracy=0.5, num_macs=10, tokens=tokens)
    write_journal(folder, [only], options=options)
    assert report.main([str(folder.path)]) == 0
    page = Page(folder.report.read_text())
    stages = page.data["networks"]["stages"]
    kinds = [(stage["spec"]["kind"], stage["version"]) for stage in stages]
    assert kinds == [("fused_mbconv", 2)] + [("mbconv", 1)] * 5
    assert "Fused-MBConv1, 3x3, 24 channels, 1 layer" in page.cells


def test_choices_are_shown_as_often_as_they_were_proposed_of_late(folder):
    other = SPACE.encode(zoo.load("efficientnet-b0"))
    other = (other[0] ^ 1, *other[1:])
    children = [
        completed(i, accuracy=0.5, num_macs=10, tokens=other if i % 4 == 0 else B0)
        for i in range(60)
    ]
    write_journal(folder, children)
    report.main([str(folder.path)])
    sections = Page(folder.report.read_text()).data["sections"]
    (figure,) = [s["figure"] for s in sections if s["id"] == "choices"]
    (cells,) = figure["data"]
    first = SPACE.decisions[0]
    assert cells["y"][0] == first.name
    assert cells["text"][0][: len(first.choices)] == [f"{c:g}" for c in first.choices]
    shares = [0.0] * len(cells["z"][0])
    late = range(10, 60)  # the last fifty
    shares[other[0]] = sum(i % 4 == 0 for i in late) / 50
    shares[B0[0]] = 1 - shares[other[0]]
    shares[len(first.choices) :] = [None] * (len(shares) - len(first.choices))
    assert cells["z"][0] == pytest.approx(shares)


def test_the_policy_s_log_is_shown(folder):
    write_journal(folder, CHILDREN)
    uniform = [[1 / n] * n for n in SPACE.num_choices]
    settled = [[1.0] + [0.0] * (n - 1) for n in SPACE.num_choices]
    with folder.policy.open("w") as file:
        for number, (entropy, rows) in enumerate([(30.5, uniform), (0.0, settled)], 1):
            entry = {"children": number, "entropy": entropy, "probabilities": rows}
            file.write(json.dumps(entry) + "\n")
        file.write('{"children": 3, "entr')  # torn by a kill
    assert report.main([str(folder.path)]) == 0
    sections = Page(folder.report.read_text()).data["sections"]
    figures = {section["id"]: section["figure"] for section in sections}
    assert figures["entropy"]["data"][0]["y"] == [30.5, 0.0]
    assert [row[0] for row in figures["choices"]["data"][0]["z"]] == [1.0] * 35


@pytest.mark.parametrize(
    "line",
    [
        "nonsense", "{}", '{"children": 1, "entropy": NaN, "probabilities": []}',
        '{"children": 1, "entropy": 0.5, "probabilities": [[1.0]]}',
    ],
)  # fmt: skip
def test_a_report_says_what_of_a_policy_log_it_leaves_out(folder, line):
    write_journal(folder, CHILDREN)
    folder.policy.write_text(line + "\n")
    assert report.main([str(folder.path)]) == 0
    assert "policy.jsonl, line 1 must be" in folder.report.read_text()


def test_tokens_of_another_space_are_refused_in_one_line(folder, capsys):
    write_journal(folder, [completed(0, accuracy=0.5, num_macs=1, tokens=(0, 1, 2))])
    assert report.main([str(folder.path)]) == 2
    assert "35 decisions, got 3 tokens" in capsys.readouterr().err


def test_best_json_is_an_architecture_with_how_it_was_found(folder):
    write_journal(folder, CHILDREN)
    report.main([str(folder.path)])
    text = folder.best.read_text()
    assert cost.num_macs(codec.loads(text)) == 385_814_752  # B0, counted elsewhere
    found = json.loads(text)["found"]
    assert (found["index"], found["reward"]) == (1, 0.8)
    assert found["metrics"]["accuracy"] == 0.8
    assert found["definition"]["search"]["seed"] == 0
    assert found["versions"] == {"jax": "1"}


def test_pareto_json_holds_the_front_the_smallest_first(folder):
    write_journal(folder, CHILDREN)
    report.main([str(folder.path)])
    networks = json.loads(folder.pareto.read_text())["networks"]
    assert [network["found"]["index"] for network in networks] == [0, 1, 4]
    for network in networks:
        codec.loads(json.dumps(network))


# Accuracy, multiply-adds, and a speed: no two of them rank alike.
def with_speed(name):
    return [
        completed(i, accuracy=accuracy, num_macs=num_macs, **{name: speed})
        for i, (accuracy, num_macs, speed) in enumerate(
            [(0.7, 3e8, 10.0), (0.8, 2e8, 30.0), (0.75, 4e8, 20.0), (0.6, 1e8, 40.0)]
        )
    ]


LATENCY = definition.RewardOptions(target_latency=20.0, latency_table="t.json")
THROUGHPUT = definition.RewardOptions(objective="throughput-a100", target=25.0)
PREDICTED_LATENCY = definition.RewardOptions(
    objective="latency-zcu102", target=25.0, reward="hard"
)


@pytest.mark.parametrize(
    ("reward", "front", "metric", "title", "target", "shown"),
    [
        (
            definition.RewardOptions(),
            [3, 1],
            {"name": "num_macs", "unit": "multiply-adds", "goal": "min"},
            "multiply-adds",
            (400e6, "target 400M multiply-adds, a unit"),
            "200M",
        ),
        (
            LATENCY,
            [0, 2, 1],
            {"name": "latency_ms", "unit": "ms", "goal": "min"},
            "latency_ms [ms]",
            (20.0, "target latency_ms 20 ms, a unit"),
            "30",
        ),
        (
            PREDICTED_LATENCY,
            [0, 2, 1],
            {"name": "latency-zcu102", "unit": "ms", "goal": "min"},
            "latency-zcu102 [ms]",
            (25.0, "target latency-zcu102 25 ms, a limit"),
            "30",
        ),
        (
            THROUGHPUT,
            [3, 1],
            {"name": "throughput-a100", "unit": "images/s", "goal": "max"},
            "throughput-a100 [images/s]",
            (25.0, "target throughput-a100 25 images/s, a unit"),
            "30",
        ),
    ],
)
def test_the_front_is_over_what_the_search_weighs(
    folder, reward, front, metric, title, target, shown
):
    children = with_speed(metric["name"] if title != "multiply-adds" else "heat")
    write_journal(folder, children, options=Definition(reward=reward))
    assert report.main([str(folder.path)]) == 0
    pareto = json.loads(folder.pareto.read_text())
    assert [network["found"]["index"] for network in pareto["networks"]] == front
    accuracy = {"name": "accuracy", "unit": "share", "goal": "max"}
    assert pareto["objectives"] == [accuracy, metric]
    page = Page(folder.report.read_text())
    assert shown in page.cells
    assert metric in page.data["networks"]["metrics"]
    sections = {section["id"]: section for section in page.data["sections"]}
    drawn = sections["tradeoff"]["figure"]
    points, line = drawn["data"]
    assert drawn["layout"]["xaxis"]["title"]["text"] == title
    assert line["mode"] == "lines"
    assert line["x"] == [points["x"][index] for index in front]
    assert line["y"] == [children[index].metrics["accuracy"] for index in front]
    assert drawn["layout"]["shapes"][0]["x0"] == target[0]
    assert drawn["layout"]["annotations"][0]["text"] == target[1]


@pytest.mark.parametrize(
    "evil",
    ["<script>alert(1)</script>", "</td><img src=x onerror=y>", "&lt;b&gt;", '"'],
)
def test_nothing_from_a_journal_becomes_markup(folder, evil):
    write_journal(folder, [CHILDREN[0], infeasible(1, evil)], dataset=evil)
    report.main([str(folder.path)])
    page = Page(folder.report.read_text())
    assert page.cells.count(evil) == 2
    assert "img" not in page.tags
    assert page.tags.count("script") == 3  # the data, plotly, and the page's own


def test_a_run_without_a_measured_child_has_a_report_all_the_same(folder):
    write_journal(folder, [infeasible(0, "out of memory")])
    assert report.main([str(folder.path)]) == 0
    assert "out of memory" in Page(folder.report.read_text()).cells
    assert not folder.best.exists()


def test_a_run_s_own_space_is_not_imported_unasked(folder, capsys, tmp_path):
    options = Definition(search=definition.SearchOptions(space="antigravity:space"))
    write_journal(folder, CHILDREN, options=options)
    assert report.main([str(tmp_path)]) == 2
    assert "--load-space" in capsys.readouterr().err


@pytest.mark.parametrize("content", [None, b"", b"{}\n", b"\x00" * 50])
def test_what_is_no_run_ends_in_one_line(folder, capsys, content):
    if content is not None:
        folder.journal.write_bytes(content)
    assert report.main([str(folder.path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("nas.report: ")
    assert error.count("\n") == 1


def test_a_definition_with_an_unknown_field_is_refused_by_name():
    record = definition.to_json(Definition())
    record["child"]["stepz"] = 3
    with pytest.raises(ValueError, match=r"definition\.child\.stepz"):
        definition.from_json(record)


def test_definitions_survive_json():
    options = Definition(
        search=definition.SearchOptions(restrict=("a=1", "b=2"), seed=3),
        reward=definition.RewardOptions(reward="hard", exponent_above=-2.0),
    )
    record = json.loads(json.dumps(definition.to_json(options)))
    assert definition.from_json(record) == options


def test_equal_rewards_go_to_the_earlier_child():
    children = [completed(i, accuracy=0.5, num_macs=10) for i in range(3)]
    best = confirmation.best(confirmation.standings(children))
    assert best is not None
    assert best.trial == children[0]
    assert confirmation.best([]) is None
