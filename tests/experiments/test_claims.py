"""Tests for experiments.claims."""

import numpy as np
import pytest

from controller import policy
from experiments import claims


def test_entropies_of_a_policy_that_knows_nothing_and_of_one_that_knows():
    num_choices = (3, 1, 2)
    params = policy.init(0, num_choices)
    zeros = params._replace(head=0.0 * params.head)
    found = claims.decision_entropies(zeros, num_choices)
    # Equal logits: a uniform choice, and none where there is no choice.
    np.testing.assert_allclose(found, [1.0, 0.0, 1.0], atol=1e-6)
    # Logits log 3 and 0: probabilities 3/4 and 1/4, by hand 0.8113 bits of one.
    bias = np.zeros((3, 3), np.float32)
    bias[2, 0] = np.log(3.0)
    found = claims.decision_entropies(zeros._replace(head_bias=bias), num_choices)
    assert found[2] == pytest.approx(0.8113, abs=1e-4)


def test_sure_is_what_stays_below_a_fifth():
    # Five children an update: "late" is sure from the third on, "wavers" only for one.
    late, wavers, always = (0.9, 0.5, 0.1, 0.1), (0.9, 0.1, 0.3, 0.5), (0.1,) * 4
    entropies = [np.array(row) for row in zip(late, wavers, always, strict=True)]
    found = claims.sure_from(("late", "wavers", "always"), entropies)
    assert found == [("always", 5), ("late", 15)]


def test_too_few_children_are_refused(capsys, tmp_path):
    assert claims.main(["--children", "2", "--output", str(tmp_path)]) == 2
    assert "5 or more" in capsys.readouterr().err


def test_the_page_has_a_search_for_each_claim(tmp_path):
    pytest.importorskip("kaleido")
    assert claims.main(["--children", "20", "--output", str(tmp_path)]) == 0
    text = (tmp_path / "claims.md").read_text()
    assert "| EfficientNet-B0 |" in text
    assert "386M" in text  # the published 0.39B
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    for start in ("| 200M", "| 600M", "| 0 ", "| -0.15"):
        assert any(row.startswith(start) for row in rows)
    assert (tmp_path / "claims" / "entropy.svg").read_text().startswith("<svg")
