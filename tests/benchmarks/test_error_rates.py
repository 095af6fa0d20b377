"""The benchmark of error rates: it runs, what it holds is kept, and the rule errs as rarely as it says."""

import itertools

import pytest

from benchmarks import error_rates


def test_a_false_claim_is_as_rare_as_it_is_said_to_be(tmp_path):
    """Fewer studies than the published table has; a rule that tested each pair at 5 % would err in a quarter of them."""
    docs, output = tmp_path / "page.md", tmp_path / "rates.json"
    docs.write_text("before\n<!-- error_rates: begin -->\nearlier\n<!-- error_rates: end -->\nafter\n")
    arguments = ["--images", "360", "--accuracy", "90", "--spread", "1", "--seeds", "1", "3", "--repeats", "40"]
    rows = error_rates.main([*arguments, "--output", str(output), "--docs", str(docs)])
    assert [(row["models"], row["seeds"]) for row in rows] == [(2, 1), (2, 3), (6, 1), (6, 3)]
    assert all(row["false"] <= 0.12 and row["contradicts"] == 0 for row in rows)  # 5 %, and chance
    assert all(row["coverage"] == 1 - row["false"] for row in rows) and all(rows[i]["power"] > 0.5 for i in (0, 1))
    assert max(row["contradicts_before"] for row in rows) > 0.2
    text = docs.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "earlier" not in text
    assert "| models | seeds |" in text and "at least 40 simulated studies a row" in text
    stored = output.read_text()
    error_rates.main([*arguments, "--output", str(output)])
    assert output.read_text() == stored  # what is there is not simulated again


@pytest.mark.slow
def test_false_claims_stay_within_six_percent():
    for models, seeds, images, accuracy in itertools.product((2, 6), (1, 3, 10), (1_000,), (60, 99)):
        row = error_rates.simulate(models, seeds, images, accuracy, 0.3, repeats=2_000)
        assert row["false"] <= 0.06 + 2 * (0.06 * 0.94 / 2_000) ** 0.5 and row["contradicts"] == 0, row
