"""Where states that run side by side come together: the shape of a plan, as merging needs it. Pure."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import cached_property

from perdure.errors import ErrorCategory, InvalidPlanError
from perdure.ids import ArtifactId, StateId
from perdure.model.plan import DependencyEdge, StateNode

Tips = tuple[StateId, ...]
"""States of which none precedes another: what they and their ancestors have written is a context."""


def context_write_conflict(key: str, first: StateId, second: StateId) -> str:
    """That two states contradict each other, in words."""
    return f"{first} and {second} both write {key}, and neither comes before the other"


class JoinGraph:
    """The states of a plan by their number in its order, and which of them precede which.

    ``after`` gives those that wait for a state; ``missing`` how many states each waits for. States that
    are in ``edges`` alone, as those that clean up, stand between others without being counted.
    """

    def __init__(
        self, order: Sequence[StateNode], edges: Iterable[DependencyEdge], all_ids: Iterable[StateId]
    ) -> None:
        self.ids = [node.id for node in order]
        self.index = {state_id: index for index, state_id in enumerate(self.ids)}
        self._before = _direct(self.index, edges, all_ids)
        self.after: list[list[int]] = [[] for _ in self.ids]
        for index, before in enumerate(self._before):
            for each in before:
                self.after[each].append(index)
        self.missing = [len(before) for before in self._before]

    @cached_property
    def _reach(self) -> list[int]:
        """For each state a set of bits: its own, and those of all that precede it."""
        reach: list[int] = []
        for index, before in enumerate(self._before):
            bits = 1 << index
            for each in before:
                bits |= reach[each]
            reach.append(bits)
        return reach

    @cached_property
    def tips(self) -> list[Tips]:
        """For each state, what its context is the merge of."""
        return [self._highest(before) for before in self._before]

    def _highest(self, indexes: Collection[int]) -> Tips:
        """Those of ``indexes`` that precede none of the others, in plan order."""
        if len(indexes) < 2:  # as everywhere in a chain, which needs no sets of bits
            return tuple(self.ids[each] for each in indexes)
        found, covered = list[int](), 0
        for each in sorted(indexes, reverse=True):
            if not covered >> each & 1:
                found.append(each)
                covered |= self._reach[each]
        return tuple(self.ids[each] for each in reversed(found))

    def tips_of(self, completed: Mapping[StateId, object]) -> Tips:
        """What the context of a run is the merge of in which these states have completed."""
        indexes = {self.index[each] for each in completed if each in self.index}
        # Of those that another one follows, the other one holds the writes too.
        ends = [each for each in indexes if indexes.isdisjoint(self.after[each])]
        return self._highest(ends)

    def precedes(self, first: StateId, second: StateId) -> bool:
        """Whether ``second`` comes after ``first`` whatever the timing."""
        return bool(self._reach[self.index[second]] >> self.index[first] & 1)

    def unordered(self, state_id: StateId) -> list[StateId]:
        """The states that neither precede a state nor come after it."""
        own = self.index[state_id]
        return [
            each
            for index, each in enumerate(self.ids)
            if not (self._reach[own] >> index & 1 or self._reach[index] >> own & 1)
        ]

    def differing(self, tips: Tips) -> list[StateId]:
        """The states that precede, or are, some of ``tips`` and not all, in plan order.

        Only these can contradict each other, or be missing from the snapshot of one of the tips.
        """
        reach = [self._reach[self.index[each]] for each in tips]
        some = every = reach[0]
        for bits in reach[1:]:
            some |= bits
            every &= bits
        return [self.ids[each] for each in _bits(some & ~every)]

    def largest(self, tips: Tips) -> StateId:
        """The one of ``tips`` that most states precede."""
        return max(tips, key=lambda each: self._reach[self.index[each]].bit_count())

    def refuse_conflicts(self, writes: Mapping[StateId, Iterable[str]]) -> None:
        """Raise ``InvalidPlanError`` (``context_write_conflict``) if two unordered states write one key."""
        last: dict[str, StateId] = {}
        for state_id in self.ids:
            for key in writes.get(state_id, ()):
                # Who precedes is transitive: it takes no more than neighbours.
                if key in last and last[key] != state_id and not self.precedes(last[key], state_id):
                    raise InvalidPlanError.of(
                        "context_write_conflict",
                        context_write_conflict(key, last[key], state_id),
                        category=ErrorCategory.PARSING_INPUT,
                        details={"key": key, "states": [last[key], state_id]},
                    )
                last[key] = state_id


class Frontier:
    """Which states are ready: all that precede them have completed, and they have not.

    Told of completed states in the order in which a view holds them, it looks at each once.
    """

    def __init__(self, graph: JoinGraph) -> None:
        self._graph = graph
        self._missing = list(graph.missing)
        self._taken: set[StateId] = set()
        self.ready = [index for index, count in enumerate(self._missing) if not count]
        """Their numbers, in plan order."""
        self.left = len(self._missing)
        """How many states have not completed."""

    def advance(self, completed: dict[StateId, ArtifactId]) -> Sequence[int]:
        """Take note of what has completed since; the states that are ready now, in plan order."""
        new = list[StateId]()
        for state_id in reversed(completed):
            if state_id in self._taken:
                break
            new.append(state_id)
        self._taken.update(new)
        for index in [self._graph.index[each] for each in new if each in self._graph.index]:
            self.left -= 1
            place = bisect_left(self.ready, index)
            if self.ready[place : place + 1] == [index]:
                del self.ready[place]
            for after in self._graph.after[index]:
                self._missing[after] -= 1
                if not self._missing[after] and self._graph.ids[after] not in self._taken:
                    insort(self.ready, after)
        return self.ready


def _direct(
    index: Mapping[StateId, int], edges: Iterable[DependencyEdge], all_ids: Iterable[StateId]
) -> list[list[int]]:
    """For each state the numbers of those right before it; an edge through states without one is an edge."""
    before: dict[StateId, set[StateId]] = {state_id: set() for state_id in all_ids}
    for edge in edges:
        before[edge.after].add(edge.before)
    for direct in before.values():  # in topological order, so that those before it are done
        through = {each for each in direct if each not in index}
        direct.update(*(before[each] for each in through))
        direct.difference_update(through)
    return [sorted(index[each] for each in before[state_id]) for state_id in index]


def _bits(bits: int) -> Iterator[int]:
    while bits:
        lowest = bits & -bits
        yield lowest.bit_length() - 1
        bits ^= lowest
