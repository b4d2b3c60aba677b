"""Runs side by side: seeds are joined, settings are not, and what others say keeps its own columns."""

import json
import math
from pathlib import Path

import pytest
from matplotlib.figure import Figure

import corrlib
from corrlib import benchmarks, comparison

PUBLISHED = Path(corrlib.__file__).parents[1] / "data" / "published.json"


def write(results, name, values, finished=True, **params):
    """A run's folder as `runs` leaves it."""
    folder = results / name
    folder.mkdir(parents=True)
    metrics = {key: {"value": value, "unit": "fraction", "count": 3} for key, value in values.items()}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    (folder / "params.json").write_text(json.dumps({"SEED": 0, "RUN_NAME": name} | params))
    (folder / "environment.json").write_text(json.dumps({"finished": finished, "commit": "abc", "seconds": 60}))
    return folder


@pytest.fixture
def results(tmp_path):
    """Three trainings, two of which differ in the seed alone, each evaluated; and runs that do not count."""
    for name, seed, steps, value in (("a", 0, 10, 0.5), ("b", 1, 10, 0.7), ("c", 0, 20, 0.9)):
        write(tmp_path / "results", f"03_training.{name}", {"procedural.trained.loss": 1}, SEED=seed, STEPS=steps)
        values = {"badja.model.delta_avg": value, "badja.static.delta_avg": 0.1, "badja.model.delta_1": 0}
        path = f"results/03_training.{name}/checkpoint.safetensors"
        write(tmp_path / "results", f"04_evaluation.{name}", values, CHECKPOINT=path, SPLIT="dev")
    write(tmp_path / "results", "04_evaluation.stopped", {"badja.model.delta_avg": 1}, finished=False)
    write(tmp_path / "results", "04_evaluation.empty", {})
    (tmp_path / "results" / "reported").mkdir()
    return tmp_path / "results"


def test_seeds_are_joined_where_all_else_agrees(results):
    found = comparison.read_runs(results)
    assert len(found) == 6
    groups = comparison.group(found)
    names = {label: [run.name[-1] for run in same] for label, same in groups.items()}
    assert names == {
        "03_training.a, 2 seeds": ["a", "b"],
        "03_training.c": ["c"],
        "04_evaluation.a, 2 seeds": ["a", "b"],
        "04_evaluation.c": ["c"],
    }
    same = groups["04_evaluation.a, 2 seeds"]
    assert comparison.spread(same, "badja.model.delta_avg") == (pytest.approx(0.6), pytest.approx(0.02**0.5), 2)
    mean, deviation, count = comparison.spread(same, "badja.none.delta_avg")
    assert math.isnan(mean) and math.isnan(deviation) and count == 0


def test_a_checkpoint_of_unknown_origin_is_its_path(tmp_path):
    for name in "ab":
        write(tmp_path / "results", f"04_evaluation.{name}", {"a.b.epe": 1}, CHECKPOINT=f"{name}.safetensors")
    assert len(comparison.group(comparison.read_runs(tmp_path / "results"))) == 2


def test_read_runs_by_name_and_errors(results):
    assert [run.name for run in comparison.read_runs(results, ["04_evaluation.c"])] == ["04_evaluation.c"]
    with pytest.raises(FileNotFoundError, match=r"read_runs: no file .*gone.metrics\.json"):
        comparison.read_runs(results, ["gone"])
    with pytest.raises(ValueError, match=r"04_evaluation\.stopped should be a run that came to its end"):
        comparison.read_runs(results, ["04_evaluation.stopped"])
    (results / "04_evaluation.c" / "environment.json").write_text("{")
    with pytest.raises(ValueError, match=r"environment\.json should be JSON"):
        comparison.read_runs(results)
    assert comparison.read_runs(results / "nowhere") == []


def test_tables_have_published_numbers_in_columns_of_their_own(results):
    groups = comparison.group(comparison.read_runs(results))
    others = [comparison.Published("badja", "They", "delta_avg", 0.4, "their way", "a page")]
    assert comparison.table(groups, others, "badja", "delta_avg").splitlines() == [
        "| badja: delta_avg, % | 04_evaluation.a, 2 seeds | 04_evaluation.c | published | its protocol |",
        "| --- | ---: | ---: | ---: | --- |",
        "| model | 60.0 ± 14.1 | 90.0 |  |  |",
        "| static | 10.0 ± 0.0 | 10.0 |  |  |",
        "| They |  |  | 40.0 | their way |",
    ]
    assert "published" not in comparison.table(groups, [], "badja", "delta_avg")
    assert comparison.table({}, others, "badja", "delta_avg").splitlines()[-1] == "| They | 40.0 | their way |"


def test_asked_are_benchmarks_with_main_numbers(results):
    groups = comparison.group(comparison.read_runs(results))
    others = [comparison.Published("davis2017", "They", "j_and_f", 0.4, "", "")]
    assert comparison.asked(groups, others) == {"badja": ["delta_avg"], "davis2017": ["j_and_f"]}
    values = {"jhmdb.m.delta_avg": 0.1, "jhmdb.m.pck_2": 0.3, "jhmdb.m.pck_1": None}
    write(results, "04_evaluation.d", values)
    groups = comparison.group(comparison.read_runs(results, ["04_evaluation.d"]))
    others = [comparison.Published("jhmdb", "They", m, 0.4, "", "") for m in ("pck_1", "pck_2")]
    # What both have comes first; what a run could not tell counts as theirs alone.
    assert comparison.asked(groups, others) == {"jhmdb": ["pck_2", "delta_avg", "pck_1"]}


def test_the_picture_has_a_dot_a_run_and_a_diamond_a_publication(results):
    groups = comparison.group(comparison.read_runs(results))
    others = [comparison.Published("badja", "They", "delta_avg", 0.4, "their way", "a page")]
    ax = Figure().subplots()
    comparison.draw(ax, groups, others, "badja", "delta_avg")
    assert [label.get_text() for label in ax.get_yticklabels()] == ["They", "static", "model"]
    dots = {c.get_label(): sorted(c.lines[0].get_xdata()) for c in ax.containers}
    assert dots["04_evaluation.a, 2 seeds"] == pytest.approx([10, 60])
    assert "03_training.c" not in ax.get_legend_handles_labels()[1]  # it has no number here
    assert ax.lines[-1].get_xdata() == [40]


def test_the_published_numbers_say_how_and_where_from(tmp_path):
    found = comparison.read_published(PUBLISHED)
    assert len({n[:3] + n[4:] for n in found}) == len(found)
    for number in found:
        assert number.benchmark in benchmarks.BENCHMARKS and number.metric in comparison.METRICS
        assert 0 < number.value < 1 and number.protocol and number.source
    with pytest.raises(FileNotFoundError, match="read_published: no file"):
        comparison.read_published(tmp_path / "none.json")
    (tmp_path / "odd.json").write_text('[{"benchmark": "a"}]')
    with pytest.raises(ValueError, match=r"odd\.json should be a list of \('benchmark', 'method'"):
        comparison.read_published(tmp_path / "odd.json")
