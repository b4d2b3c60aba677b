"""A study's numbers as tables."""

import math

import pytest
from click.testing import CliRunner
from test_readme import ROOT

from corrlib import __main__, arm_scores, arm_tables, report
from corrlib.studies import STUDIES

REPORTED = ROOT / "results" / "reported"
SCORES = {
    "procedural.delta_avg": {
        "hard": {"0": [0.5, 0.6], "1": [0.7, 0.8]},
        "soft": {"0": [0.6, 0.7], "1": [0.8, 0.9]},
        "late": {"0": [0.25, 0.75]},
    },
    "flow.epe": {"hard": {"0": [1.5]}, "soft": {"0": [1.0]}},
}
PAIRS = (("hard", "soft"), ("hard", "late"), ("hard", "unknown"))


def test_arms_have_their_mean_and_its_spread_where_there_are_seeds():
    found = arm_tables.arms(arm_scores.table(SCORES, PAIRS), ["soft", "unknown", "hard", "late"])
    assert found.splitlines() == [
        "| arm    | seeds | procedural, delta_avg, % | flow, epe, px |",
        "| ------ | ----: | -----------------------: | ------------: |",
        "| `soft` |     2 |              75.0 ± 14.1 |          1.00 |",
        "| `hard` |     2 |              65.0 ± 14.1 |          1.50 |",
        "| `late` |     1 |                     50.0 |               |",
    ]


def test_differences_have_an_interval_unless_one_clip_of_one_seed_is_all():
    entries = arm_scores.table(SCORES, PAIRS)
    first, second = arm_tables.differences(entries, PAIRS).splitlines()[2:]
    assert [cell.strip() for cell in first.split("|")[1:-1]] == ["`soft` - `hard`", "2", "10.0 (10.0 to 10.0)", "-0.50"]
    low, high = (100 * entries[f"procedural.late.delta_avg_minus_hard_{end}"]["value"] for end in ("low", "high"))
    assert f" -5.0 ({low:.1f} to {high:.1f}) |" in second and low < -5 < high
    assert math.isnan(entries["flow.soft.epe_minus_hard_low"]["value"])


def test_numbers_are_links_to_their_keys():
    entries = arm_scores.table(SCORES, PAIRS)
    assert '[75.0](a.json "procedural.soft.delta_avg") ± [14.1](a.json "procedural.soft.delta_avg_spread")' in (
        arm_tables.arms(entries, ["soft"], "a.json")
    )
    assert '[-0.50](a.json "flow.soft.epe_minus_hard")' in arm_tables.differences(entries, PAIRS, "a.json")


def test_what_nothing_is_known_of():
    entries = arm_scores.table(SCORES, PAIRS)
    with pytest.raises(ValueError, match="nothing is recorded of its arms teacher, gaussian"):
        arm_tables.arms(entries, ["teacher", "gaussian"])
    assert arm_tables.differences(entries, [("hard", "teacher")]) == ""


@pytest.mark.parametrize("name", ["claims", "departures"])
def test_reported_pages_hold_the_tables_of_their_studies(name):
    page = (REPORTED / name / "README.md").read_text()
    done = CliRunner().invoke(__main__.main, ["study-table", name, str(REPORTED / name), "--link"])
    assert done.exit_code == 0, done.output
    for table in done.output.strip().split("\n\n"):
        assert table in page
    entries = report.read_metrics(REPORTED / name / "metrics.json")
    again = arm_scores.table(arm_scores.read(REPORTED / name), STUDIES[name].compared)
    assert entries.keys() == again.keys()
    for key, entry in again.items():
        assert entries[key]["value"] == pytest.approx(entry["value"], abs=1e-12, nan_ok=True), key


def test_the_command_tells_what_is_missing(tmp_path):
    done = CliRunner().invoke(__main__.main, ["study-table", "claims", str(tmp_path)])
    assert done.exit_code == 1 and "no file" in done.output and "Traceback" not in done.output
    done = CliRunner().invoke(__main__.main, ["study-table", "claims", str(REPORTED / "scaling")])
    assert done.exit_code == 1 and "nothing is recorded of its arms hard, bilinear" in done.output
