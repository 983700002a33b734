"""Tests for experiments.claims."""

import numpy as np
import pytest

from experiments import claims


def test_entropies_by_hand():
    probabilities = np.array([[1 / 3, 1 / 3, 1 / 3], [1, 0, 0], [0.75, 0.25, 0]])
    found = claims.entropy_shares(probabilities.astype(np.float32), (3, 1, 2))
    # A uniform choice, no choice, and 0.75 log2(4/3) + 0.25 log2(4) = 0.8113 bits.
    np.testing.assert_allclose(found, [1.0, 0.0, 0.8113], atol=1e-4)


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
