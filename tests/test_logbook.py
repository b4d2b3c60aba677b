"""The record of a training in a file: a line a step, and none twice where it went on after a kill."""

from corrlib.logbook import Logbook, read_history


def test_a_line_a_step(tmp_path):
    log = Logbook(tmp_path / "a.history.jsonl")
    for step in range(3):
        log(step, {"step": step, "total": 1.5 / (step + 1)})
        assert len((tmp_path / "a.history.jsonl").read_text().splitlines()) == step + 1
    assert read_history(log.path) == [{"step": s, "total": 1.5 / (s + 1)} for s in range(3)]
    assert read_history(tmp_path / "gone.jsonl") == []


def test_what_a_kill_left_is_written_anew(tmp_path):
    path = tmp_path / "a.history.jsonl"
    log = Logbook(path)
    for step in range(5):
        log(step, {"step": step, "total": 1.0})
    with path.open("a") as file:
        file.write('{"step": 5, "tot')  # killed in the middle of a line
    again = Logbook(path)
    assert len(read_history(path)) == 5
    for step in (3, 4, 5):
        again(step, {"step": step, "total": 2.0})
    assert [(r["step"], r["total"]) for r in read_history(path)] == [(0, 1), (1, 1), (2, 1), (3, 2), (4, 2), (5, 2)]
    Logbook(path)(0, {"step": 0})
    assert read_history(path) == [{"step": 0}]
