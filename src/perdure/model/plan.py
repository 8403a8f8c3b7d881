"""The executable graph of one run, and the order in which its states run."""

from __future__ import annotations

import heapq
import itertools
import operator
from collections import Counter, deque
from collections.abc import Sequence

import msgspec

from perdure.arguments import expect, expect_many, expect_methods
from perdure.errors import ErrorCategory, InvalidPlanError, Json
from perdure.ids import OpId, StateId
from perdure.model.handler import State


class StateNode(msgspec.Struct, frozen=True):
    """A state under its name in the plan."""

    id: StateId
    state: State

    def __post_init__(self) -> None:
        expect(self.id, str, "StateNode(id=…)", "a StateId")
        expect_methods(self.state, ("meta", "handle"), "StateNode(state=…)", "a state")


class DependencyEdge(msgspec.Struct, frozen=True):
    """``before`` must have completed when ``after`` is entered."""

    before: StateId
    after: StateId


class StateGraph(msgspec.Struct, frozen=True):
    """States, and the edges between them. The order of ``states`` breaks ties."""

    states: Sequence[StateNode]
    edges: Sequence[DependencyEdge] = ()

    def __post_init__(self) -> None:
        expect(self.states, Sequence, "StateGraph(states=…)", "a list of StateNodes")
        expect_many(self.states, StateNode, "StateGraph(states=…)", "StateNodes")
        expect(self.edges, Sequence, "StateGraph(edges=…)", "a list of DependencyEdges")
        expect_many(self.edges, DependencyEdge, "StateGraph(edges=…)", "DependencyEdges")


class ExecutionPlan(msgspec.Struct, frozen=True):
    """What a run executes."""

    op_id: OpId
    graph: StateGraph

    def __post_init__(self) -> None:
        expect(self.op_id, str, "ExecutionPlan(op_id=…)", "an OpId")
        expect(self.graph, StateGraph, "ExecutionPlan(graph=…)", "a StateGraph")


def topological_order(plan: ExecutionPlan) -> list[StateNode]:
    """The plan's states in the order in which they run: dependencies first, ties in plan order.

    Raises :class:`InvalidPlanError` with code ``empty_plan``, ``duplicate_state``, ``missing_state`` or
    ``circular_dependency``; its details name the states.
    """
    states = plan.graph.states
    if not states:
        raise _invalid("empty_plan", "the plan has no states", {"states": []})
    position: dict[StateId, int] = {node.id: index for index, node in enumerate(states)}
    if len(position) != len(states):
        twice = [state_id for state_id, times in Counter(node.id for node in states).items() if times > 1]
        raise _invalid("duplicate_state", "a state stands in the plan more than once", {"states": twice})

    try:
        edges = [(position[edge.before], position[edge.after]) for edge in plan.graph.edges]
    except KeyError as error:
        raise _invalid(
            "missing_state", "an edge names a state that is not in the plan", {"states": [error.args[0]]}
        ) from None
    if all(itertools.starmap(operator.lt, edges)):
        return list(states)  # as most plans are written

    followers: list[list[int]] = [[] for _ in states]
    missing_before = [0] * len(states)
    for before, after in edges:
        followers[before].append(after)
        missing_before[after] += 1

    ready = [index for index, count in enumerate(missing_before) if count == 0]
    order: list[StateNode] = []
    while ready:
        index = heapq.heappop(ready)
        order.append(states[index])
        for follower in followers[index]:
            missing_before[follower] -= 1
            if missing_before[follower] == 0:
                heapq.heappush(ready, follower)
    if len(order) != len(states):
        cycle = [states[index].id for index in _cycle(followers, missing_before)]
        raise _invalid("circular_dependency", "states depend on each other in a circle", {"states": cycle})
    return order


def _cycle(followers: list[list[int]], missing_before: list[int]) -> list[int]:
    """The indexes of one cycle, in order; every state that still misses something lies behind one."""
    preceding: dict[int, int] = {}
    for index, count in enumerate(missing_before):
        if count:
            for follower in followers[index]:
                preceding.setdefault(follower, index)
    # Walking back from any blocked state must come round, since each has a blocked predecessor.
    trail: deque[int] = deque()
    place = next(index for index, count in enumerate(missing_before) if count)
    seen: set[int] = set()
    while place not in seen:
        seen.add(place)
        trail.appendleft(place)
        place = preceding[place]
    members = list(trail)
    return members[: members.index(place) + 1]


def _invalid(code: str, message: str, details: Json) -> InvalidPlanError:
    return InvalidPlanError.of(code, message, category=ErrorCategory.UNKNOWN, details=details)
