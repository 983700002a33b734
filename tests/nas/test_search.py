"""Tests for nas.search's command line: what is refused, and how it is said."""

import pytest

from nas import builder, search
from nas.options import definition
from nas.options.definition import Definition, RewardOptions, SearchOptions
from nas.options.quantity import format_flops, parse_flops
from nas.runs import journal, run_folder
from nas.study.metrics import ACCURACY, COUNTED
from search_space import cost, spaces
from tests.nas import trials

# Whatever is refused is refused before Ray: importing it would fail here.
pytestmark = pytest.mark.usefixtures("no_ray")


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)


def refused(capsys, *arguments):
    """Runs the command, which must end in one line and status 2; returns the line."""
    assert search.main(arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("nas.search: ")
    assert printed.err.count("\n") == 1
    return printed.err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--target-flops", "many"], "write 400M, 0.4B or 4e8"),
        (["--target-flops", "-400M"], "must be a number"),
        (["--target-flops", "0"], "between 1 and 1e18"),
        (["--target-flops", "1e99"], "between 1 and 1e18"),
        (["--target-flops", "40B"], "mbconv goes from"),
        (["--target-flops", "1M"], "mbconv goes from"),
        (["--children", "0"], "--children must be at least 1"),
        (["--children", "ten"], "--children"),
        (["--dataset", "digit"], "unknown data set 'digit'"),
        (["--dataset", "no/such/folder"], "no/such/folder"),
        (["--space", "mbcon"], "mbconv, mnasnet, accel-nasbench, efficientnetv2"),
        (["--space", "no.such:space"], "importable"),
        (["--restrict", "stage3.kernel=9"], "must be one of 3, 5"),
        (["--restrict", "stage9.kernel=3"], "must fit a decision"),
        (["--restrict", "stage3.kernel"], "stage3.kernel"),
        (["--controller", "qlearning"], "there are dyna, evolution, ppo"),
        (["--seed", "-1"], "seed"),
        (["--rewards-per-update", "0"], "at least 1"),
        (["--exponent-above", "1"], "not above 0"),
        (["--reward", "x"], "one of soft, hard, absolute, or module:object"),
        (["--evaluator", "x"], "train, imagenet-surrogate or module:object"),
        (["--beta", "-1"], "--beta is for --reward absolute"),
        (["--reward", "absolute", "--exponent-below", "0"], "takes --beta"),
        (["--steps", "0"], "nas.search: steps must be at least 1 and at most"),
        (["--resolution", "16"], "--resolution 16 does not suit the space mbconv"),
        (["--validation", "0"], "validation"),
        (["--workers", "4096"], "4096 workers of 1 core each must fit"),
        (["--devices-per-child", "1.5"], "whole number"),
        (["--child-time-limit", "soon"], "write 90s, 10min or 2h"),
        (["--resume", "nowhere"], "nowhere"),
        (["--resume", "nowhere", "--output", "elsewhere"], "drop --output"),
    ],
)
def test_a_bad_value_ends_in_one_line_before_any_work(
    capsys, tmp_path, arguments, told
):
    assert told in refused(capsys, *arguments)
    assert list(tmp_path.iterdir()) == [], "a refused search leaves nothing behind"


@pytest.mark.parametrize("arguments", [["--stepz", "3"], ["--dtype", "x"], ["word"]])
def test_what_is_no_flag_has_status_2_and_points_to_help(capsys, arguments):
    with pytest.raises(SystemExit) as stop:
        search.main(arguments)
    assert stop.value.code == 2
    assert "--help" in capsys.readouterr().err


def test_help_names_every_promised_flag(capsys):
    with pytest.raises(SystemExit) as stop:
        search.main(["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for flag in (
        "--target-flops", "--children", "--dataset", "--space", "--restrict",
        "--controller", "--evaluator", "--output", "--resume", "--seed", "--workers",
        "--steps", "--validation",
    ):  # fmt: skip
        assert f"{flag} " in text
    assert "examples:" in text


def test_an_output_folder_with_something_in_it_is_refused(capsys, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").touch()
    assert "thesis.tex" in refused(capsys, "--output", "out")
    assert (tmp_path / "out" / "thesis.tex").exists()


@pytest.fixture
def run(tmp_path):
    """A folder with the journal of a search of its own options."""
    options = Definition(search=SearchOptions(space="mnasnet", seed=5))
    header = trials.header(options, num_trials=17)
    journal.create(tmp_path / "journal.jsonl", header)
    return str(tmp_path)


def test_resume_takes_the_options_of_the_journal(run):
    resumed = search.parse(["--resume", run])
    assert resumed.definition.search == SearchOptions(space="mnasnet", seed=5)
    assert resumed.run.children == 17
    more = search.parse(["--resume", run, "--children", "30", "--workers", "1"])
    assert (more.run.children, more.workers.workers) == (30, 1)
    assert search.parse(["--resume", run, "--seed", "5"]) == resumed


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--space", "mbconv"], "--space is 'mnasnet', not 'mbconv'"),
        (["--seed", "0"], "--seed is 5, not 0"),  # though 0 is the default
        (["--steps", "7"], "--steps is 60, not 7"),
    ],
)
def test_resume_refuses_what_contradicts_the_journal(capsys, run, arguments, told):
    assert told in refused(capsys, "--resume", run, *arguments)


def test_resume_refuses_a_damaged_journal(capsys, run, tmp_path):
    with (tmp_path / "journal.jsonl").open("a") as file:
        file.write("garbage\n")
    assert "line 2" in refused(capsys, "--resume", run)


def test_a_folder_in_use_is_refused(capsys, run, tmp_path):
    with run_folder.RunFolder(tmp_path).locked():
        assert "one search at a time" in refused(capsys, "--resume", run)


def test_new_folders_have_names_of_their_own(tmp_path):
    first = run_folder.create(None)
    with first.locked():
        second = run_folder.create(None)
    assert first.path != second.path
    assert first.path.parent.resolve() == tmp_path / "runs"


@pytest.mark.parametrize("name", ["mbconv", "mnasnet", "accel-nasbench"])
def test_cost_range_is_exact_on_a_part_of_a_space(name):
    """By enumeration, with all but five decisions held at their last choice."""
    whole = spaces.load(name)
    varied = whole.decisions[3:8]
    space = whole.restrict(
        {d.name: d.choices[-1:] for d in whole.decisions if d not in varied}
    )
    tokens = [[]]
    for count in space.num_choices:
        tokens = [[*t, choice] for t in tokens for choice in range(count)]
    macs = [cost.num_macs(space.decode(t)) for t in tokens]
    assert builder.cost_range(space) == (min(macs), max(macs))


def test_rewards_are_the_papers():
    """At twice the target: 2^-0.07 (soft), 1/2 (hard), 1 - 0.1 (absolute)."""

    def at_twice(**options):
        run = Definition(reward=RewardOptions(**options))
        reward = definition.build_reward(run, (ACCURACY, *COUNTED))
        return reward({"accuracy": 1.0, "num_macs": 2 * run.search.target_flops})

    assert at_twice() == pytest.approx(0.9526, abs=1e-4)
    assert at_twice(reward="hard") == pytest.approx(0.5)
    assert at_twice(reward="absolute") == pytest.approx(0.9)
    assert at_twice(reward="absolute", beta=-0.3) == pytest.approx(0.7)
    assert at_twice(exponent_above=-2.0) == pytest.approx(0.25)
    assert at_twice(exponent_below=-2.0) == pytest.approx(0.9526, abs=1e-4)


@pytest.mark.parametrize(
    "text", ["400M", "0.4B", "4e8", "400_000_000", " .4b ", "4E+8"]
)
def test_flops_as_people_write_them(text):
    assert parse_flops(text) == 400_000_000


@pytest.mark.parametrize("text", ["", "M", "4 00M", "nan", "inf", "0x10", "1e", "٤"])
def test_flops_that_are_none(text):
    with pytest.raises(ValueError, match="FLOPS must be"):
        parse_flops(text)


@pytest.mark.parametrize(
    ("num", "text"), [(999_499_999, "999M"), (999_500_000, "1B"), (5, "5"), (0, "0")]
)
def test_flops_round_to_three_digits(num, text):
    assert format_flops(num) == text
