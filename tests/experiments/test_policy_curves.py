"""Tests for experiments.benchmarks.policy_curves."""

import json

from experiments.benchmarks import policy_curves


def test_curves_are_kept_and_begin_uniform(tmp_path, capsys):
    path = tmp_path / "curves.json"
    command = ["--methods", "ppo-nasnet", "--seeds", "1", "--children", "100"]
    assert policy_curves.main([*command, "--output", str(path)]) == 0
    row = json.loads(path.read_text())["runs"]["ppo-nasnet, 100 children, seed 0"]
    # The space has 1.045e11 networks, whose logarithm is 25.37: five updates at
    # 3.5e-4 have hardly begun.
    assert 24.0 < row["entropy"][0] <= 25.38
    assert len(row["mean"]) == len(row["best"]) == 1
    assert row["mean"][0] < row["best"][0]
    path.write_text(path.read_text().replace(str(row["best"][0]), "12.34", 1))
    assert policy_curves.main([*command, "--output", str(path)]) == 0
    assert "best 12.34" in capsys.readouterr().out
