"""What states wrote, and contexts merged from it: by hand, and against the plain definition."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure import DependencyEdge, InvalidPlanError, StateId, StateNode
from perdure.engine.joins import Frontier, JoinGraph
from perdure.engine.merging import Conflict, merge, written_keys
from perdure.model.context import Snapshot
from tests.support import Scripted, state_id


async def _nothing(*_: object) -> None:
    """Do nothing."""


def graph_of(names: str, *edges: str, cleanup: str = "") -> JoinGraph:
    """States of one letter in plan order, edges of two."""
    nodes = [StateNode(state_id(name), Scripted(_nothing)) for name in names]
    pairs = [DependencyEdge(state_id(edge[0]), state_id(edge[1])) for edge in edges]
    order = [node for node in nodes if node.id not in ids(cleanup)]
    return JoinGraph(order, pairs, [node.id for node in nodes])


def ids(names: str) -> tuple[StateId, ...]:
    return tuple(state_id(name) for name in names)


def completed(names: str) -> dict[StateId, object]:
    return dict.fromkeys(ids(names))


def test_a_state_has_written_what_differs_from_its_base() -> None:
    """New values, other values, and deletions; a value that was there already is none."""
    base = Snapshot.of_values({"same": 1, "other": 1, "gone": 1})
    assert written_keys(base, base) == frozenset()
    assert written_keys(base, Snapshot.of_values({"same": 1, "other": 1, "gone": 1})) == frozenset()
    result = Snapshot.of_values({"same": 1, "other": 2, "new": 1})
    assert written_keys(base, result) == {"other", "gone", "new"}
    assert written_keys(base, Snapshot.of_values({"same": 1, "other": 1})) == {"gone"}


def test_a_context_is_the_merge_of_those_whom_no_other_follows() -> None:
    """An edge that others make superfluous adds nothing; a chain takes one result over."""
    graph = graph_of("abcd", "ab", "bc", "ac", "cd")
    assert graph.tips == [(), ids("a"), ids("b"), ids("c")]
    diamond = graph_of("abcd", "ab", "ac", "bd", "cd", "ad")
    assert diamond.tips[3] == ids("bc")
    assert diamond.tips_of(completed("ab")) == ids("b")
    assert diamond.tips_of(completed("abc")) == ids("bc")
    assert diamond.tips_of(completed("abcd")) == ids("d")
    assert diamond.tips_of({}) == ()


def test_what_cleans_up_stands_between_others_without_being_counted() -> None:
    """What comes after it comes after those before it."""
    graph = graph_of("axb", "ax", "xb", cleanup="x")
    assert graph.tips == [(), ids("a")]


def test_states_are_ready_when_all_before_them_have_completed() -> None:
    """In plan order, whatever the order of completion."""
    graph = graph_of("abcd", "ac", "bc", "ad")
    frontier = Frontier(graph)
    assert list(frontier.ready) == [0, 1]
    done = {state_id("b"): "1"}
    assert list(frontier.advance(done)) == [0]  # type: ignore[arg-type]  # any text for a snapshot's id
    done[state_id("a")] = "2"
    assert list(frontier.advance(done)) == [2, 3]  # type: ignore[arg-type]  # as above
    assert (frontier.left, list(Frontier(graph).advance(done))) == (2, [2, 3])  # type: ignore[arg-type]  # as above


def test_only_what_some_tips_share_is_looked_at() -> None:
    """A long common past costs nothing."""
    graph = graph_of("abcdef", "ab", "bc", "bd", "de", "cf", "ef")
    assert graph.differing(ids("ce")) == list(ids("cde"))
    assert graph.largest(ids("ce")) == state_id("e")


def test_the_parts_of_a_merge_are_those_of_the_results() -> None:
    """Nothing is encoded anew."""
    graph = graph_of("ab")
    results = {
        state_id("a"): Snapshot.of_values({"x": [1], "kept": 0}),
        state_id("b"): Snapshot.of_values({"y": [2], "kept": 0}),
    }
    merged = merge(graph, ids("ab"), results, {state_id("a"): {"x"}, state_id("b"): {"y"}})
    assert merged.snapshot.parts["x"] is results[state_id("a")].parts["x"]
    assert merged.snapshot.parts["y"] is results[state_id("b")].parts["y"]
    assert (merged.conflict, merged.is_new) == (None, True)
    same = merge(graph, ids("ab"), results, {state_id("a"): {"x"}, state_id("b"): ()})
    assert (same.snapshot, same.is_new, same.blobs) == (results[state_id("a")], False, ())


def test_a_contradiction_names_the_key_and_both_states() -> None:
    """The first by plan order; one value is no excuse."""
    graph = graph_of("abc")
    results = {each: Snapshot.of_values({"x": 1, "y": 1}) for each in ids("abc")}
    merged = merge(graph, ids("abc"), results, {each: {"y", "x"} for each in ids("abc")})
    assert merged.conflict == Conflict("x", state_id("a"), state_id("b"))


def test_declared_contradictions_are_refused() -> None:
    """Also between states that are far apart; ordered ones may write one key."""
    graph = graph_of("abcd", "ab", "ac", "bd")
    graph.refuse_conflicts({state_id("a"): ["x"], state_id("b"): ["x", "x"], state_id("d"): ["x"]})
    with pytest.raises(InvalidPlanError, match="context_write_conflict"):
        graph.refuse_conflicts({state_id("a"): ["x"], state_id("c"): ["x"], state_id("d"): ["x"]})


KEYS = "pqr"


@given(st.data())
def test_merges_are_what_the_definition_says(data: st.DataObject) -> None:
    """The initial context with the writes of all ancestors, in plan order, for random plans and writes."""
    names = "abcdefg"[: data.draw(st.integers(2, 7))]
    pairs = [first + then for then in names for first in names if first < then]
    graph = graph_of(names, *data.draw(st.lists(st.sampled_from(pairs), unique=True)))
    writes = {
        each: data.draw(st.dictionaries(st.sampled_from(KEYS), st.sampled_from([None, "own"])))
        for each in ids(names)
    }
    initial = Snapshot.of_values({"p": 0, "q": 0})

    def by_definition(states: Sequence[StateId]) -> Snapshot:
        values = dict.fromkeys("pq", 0)
        merged: dict[str, object] = dict(values)
        for each in ids(names):
            if each in states:
                for key, value in writes[each].items():
                    merged.pop(key, None)
                    if value is not None:
                        merged[key] = f"{each} {key}"
        return Snapshot.of_values(merged)

    results: dict[StateId, Snapshot] = {}
    written: dict[StateId, frozenset[str]] = {}
    for index, each in enumerate(ids(names)):
        before = [other for other in ids(names) if other != each and graph.precedes(other, each)]
        tips = graph.tips[index]
        if not tips:
            base = initial
        elif len(tips) == 1:
            base = results[tips[0]]
        else:
            merged = merge(graph, tips, results, written)
            if merged.conflict is not None:
                first, second = merged.conflict.first, merged.conflict.second
                assert not graph.precedes(first, second)
                assert merged.conflict.key in written[first] & written[second]
                return
            base = merged.snapshot
        assert base.id == by_definition(before).id
        result = by_definition([*before, each])
        results[each], written[each] = result, written_keys(base, result)
