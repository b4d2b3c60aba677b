"""Recorded numbers as text."""

import json

import pytest

from corrlib import report

METRICS = {
    "procedural.dis.delta_avg": {"value": 0.6543, "unit": "fraction", "count": 32},
    "procedural.dis.delta_1": {"value": 0.1, "unit": "fraction", "count": 32},
    "procedural.dis.time": {"value": 12.345, "unit": "ms", "count": 32},
    "procedural.shipped.delta_avg": {"value": 0.75, "unit": "fraction", "count": 32},
    "flow.dis.epe": {"value": 1.239, "unit": "px", "count": 2},
    "flow.none.epe": {"value": None, "unit": "px", "count": 0},
    "flow.sift.epe": {"value": 0.5, "unit": "px", "count": 2},
}


def test_show():
    assert [report.show(entry) for entry in METRICS.values()] == [
        "65.4", "10.0", "12.3", "75.0", "1.24", "–", "0.50",
    ]  # fmt: skip
    sizes = [report.show({"value": value, "unit": "MiB"}) for value in (0.00012, 999.4, 1039.6, 12345.0)]
    assert sizes == ["0.00012", "999", "1,040", "12,345"]


def test_table_puts_the_best_first_and_leaves_out_single_thresholds():
    assert report.table(METRICS, "procedural").splitlines() == [
        "| procedural | delta_avg, % | time, ms |",
        "| ---------- | -----------: | -------: |",
        "| shipped    |         75.0 |          |",
        "| dis        |         65.4 |     12.3 |",
    ]
    assert [line.split()[1] for line in report.table(METRICS, "flow").splitlines()[2:]] == ["sift", "dis", "none"]


def test_table_links_numbers_to_their_keys():
    assert '[65.4](a.json "procedural.dis.delta_avg")' in report.table(METRICS, "procedural", link="a.json")


def test_table_puts_a_standard_error_behind_its_difference():
    metrics = {f"a.m.delta_avg{end}": METRICS["procedural.dis.delta_1"] for end in ("", "_minus_dis", "_minus_dis_se")}
    assert report.table(metrics, "a").splitlines()[0::2] == [
        "| a | delta_avg, % | minus_dis, % |",
        "| m |         10.0 |  10.0 ± 10.0 |",
    ]
    assert '± [10.0](x.json "a.m.delta_avg_minus_dis_se")' in report.table(metrics, "a", link="x.json")


def test_overview_has_a_row_for_each_main_number_and_the_best_method_first():
    ends = {"_minus_dis": 0.0957, "_minus_dis_se": 0.01}
    metrics = METRICS | {f"procedural.shipped.delta_avg{e}": METRICS["flow.dis.epe"] | {"unit": "fraction", "value": v}
                         for e, v in ends.items()}  # fmt: skip
    assert report.overview(metrics).splitlines() == [
        "|                          | shipped | sift |  dis | shipped - dis |",
        "| ------------------------ | ------: | ---: | ---: | ------------: |",
        "| procedural, delta_avg, % |    75.0 |      | 65.4 |     9.6 ± 1.0 |",
        "| flow, epe, px            |         | 0.50 | 1.24 |               |",
    ]
    assert '[65.4](a.json "procedural.dis.delta_avg")' in report.overview(metrics, "a.json")
    with pytest.raises(ValueError, match=r"none of delta_avg, .* is recorded"):
        report.overview({"a.b.time": METRICS["procedural.dis.time"]})


def test_table_error():
    with pytest.raises(ValueError, match="no benchmark davis; recorded are flow, procedural"):
        report.table(METRICS, "davis")
    with pytest.raises(ValueError, match="recorded are none"):
        report.table({}, "davis")


def test_differences_in_words():
    def entry(value, unit="fraction"):
        return {"value": value, "unit": unit, "count": 8}

    metrics = {
        "a.m.delta_avg": entry(0.5),
        "a.n.delta_avg": entry(0.5) | {"count": 1},
        "b.m.epe": entry(0.5, "px"),
        "a.m.delta_avg_minus_dis": entry(0.1234),
        "a.m.delta_avg_minus_dis_se": entry(0.01),
        "a.m.delta_avg_minus_sift": entry(-0.02),
        "a.m.delta_avg_minus_sift_se": entry(None),
        "a.n.delta_avg_minus_dis": entry(0.5),
        "a.n.delta_avg_minus_dis_se": entry(0.1),
        "b.m.epe_minus_dis": entry(-0.256, "px"),
        "b.m.epe_minus_dis_se": entry(0.05, "px"),
    }
    assert report.differences(metrics, "a", "m").split("\n\n") == [
        "m is 12.3 ± 1.0 points above dis in delta_avg (8 clips, paired, ± one standard error).",
        "m is 2.0 ± nan points below sift in delta_avg (8 clips, paired, ± one standard error).",
    ]
    said = "n is 50.0 ± 10.0 points above dis in delta_avg (8 joints, paired, ± one standard error)."
    assert report.differences(metrics, "a", "n") == said  # there is one clip
    assert report.differences(metrics, "b", "m").startswith("m is 0.26 ± 0.05 px below dis in epe")
    assert report.differences(metrics, "c", "m") == ""
    metrics |= {"a.m.delta_avg_minus_dis_low": entry(0.1), "a.m.delta_avg_minus_dis_high": entry(0.15)}
    assert "± one standard error; 95 % bootstrap interval 10.0 to 15.0)." in report.differences(metrics, "a", "m")


def test_tables_begin_with_the_main_number_and_end_with_what_it_cost():
    columns = ("boundary_f", "delta_avg_minus_x", "j_and_f", "j_and_f_minus_x", "peak_memory", "pck_2", "pck_3_paper")
    metrics = {f"a.m.{c}": METRICS["procedural.dis.delta_1"] for c in (*columns, "j_and_f_minus_x_low")}
    head = report.table(metrics, "a").splitlines()[0]
    assert [c.strip().removesuffix(", %") for c in head.strip("|").split("|")] == [
        "a", "j_and_f", "boundary_f", "pck_2", "delta_avg_minus_x", "minus_x", "peak_memory",
    ]  # fmt: skip


def test_read_metrics(tmp_path):
    path = tmp_path / "metrics.json"
    path.write_text(json.dumps(METRICS))
    assert report.read_metrics(path) == METRICS
    costs = {"procedural.dis.seconds_per_frame": {"value": 0.01, "unit": "s", "count": 32}}
    (tmp_path / "costs.json").write_text(json.dumps(costs))
    assert report.read_metrics(path) == METRICS | costs
    assert report.read_metrics(tmp_path / "costs.json") == costs


@pytest.mark.parametrize("content", ["no json", "[1]", '{"a.b": {"value": 1, "unit": "px"}}', '{"a.b.c": 1}'])
def test_read_metrics_errors(tmp_path, content):
    with pytest.raises(FileNotFoundError, match=r"read_metrics: no file .*gone\.json"):
        report.read_metrics(tmp_path / "gone.json")
    (tmp_path / "bad.json").write_text(content)
    with pytest.raises(ValueError, match=r"bad\.json should map <benchmark>\.<method>\.<metric>"):
        report.read_metrics(tmp_path / "bad.json")


def test_keep_copies_the_numbers_and_how_they_were_made(tmp_path):
    run = tmp_path / "04_evaluation.full"
    run.mkdir()
    entry = {"value": 0.5, "unit": "fraction", "count": 3}
    (run / "metrics.json").write_text(json.dumps({"a.b.c": entry}))
    (run / "params.json").write_text(json.dumps({"DATA_ROOT": str(tmp_path), "MAX_CLIPS": 3}))
    (run / "environment.json").write_text(json.dumps({"command": "private", "commit": "abc", "seconds": 7}))
    kept = report.keep(run, tmp_path / "reported")
    assert report.read_metrics(kept) == {"a.b.c": entry}
    how = json.loads((tmp_path / "reported" / "04_evaluation.how.json").read_text())
    assert how["parameters"] == {"DATA_ROOT": "PATH", "MAX_CLIPS": 3} and how["commit"] == "abc"
    assert "04_evaluation" in how["command"] and str(tmp_path) not in json.dumps(how)
    assert report.keep(run, tmp_path / "reported", "mine").name == "mine.json"
    with pytest.raises(FileNotFoundError, match="no file"):
        report.keep(tmp_path / "reported", tmp_path)
