"""Execution plan of the feature bank: which operations make the wanted planes, in which order, and where each number lies.

Recipes describe a plane as a node: an operation on other nodes, each as it was `lag` rows ago. Equal nodes are one node, so a window is
summed once however many features read it. `lay_out` turns the nodes that are wanted into the `table` and the `memory` of `tape`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from qtcore.features import primitives as op
from qtcore.features import table as tb
from qtcore.features.clock import HOURS
from qtcore.features.regime import WINDOW
from qtcore.types import F8, I8

CELLS = 4864  # of a piece: 256 rows of 19 symbols
MIN_CHUNK = 64  # rows; a chunk is whole pieces

# Rows by which an operation looks back by itself, per operand.
_LOOKS_BACK = {op.MERGE5: (16, 16), op.INDEX14: (8, 8, 13, 13), op.RATIOS: (9, 16)}
_INPUT, _SECOND = -1, -2


@dataclass(eq=False)
class Node:
    """One plane, or the first of two that an operation makes together (`second`)."""

    code: int
    args: tuple["tuple[Node, int]", ...] = ()  # operand and lag in rows
    k: float = 1.0
    empty: float = 0.0
    when: int = 0
    past: int = 0  # rows that somebody looks back
    slot: int = -1
    address: int | None = None
    state: int = 0
    second: "Node | None" = None
    first: "Node | None" = None
    mends: list["Node"] = field(default_factory=list)
    general: list["tuple[Node, Node, int]"] = field(default_factory=list)  # plane of a fast operation, its general way, window


class Graph:
    """Nodes of one bank; equal ones are made once."""

    def __init__(self, n_symbols: int) -> None:
        self.n_symbols = n_symbols
        self.inputs = [Node(_INPUT) for _ in range(tb.N_INPUTS)]
        self.close, self.inverse, self.mask, self.for_worker, self.volume, *rest = self.inputs
        self.last_volume, self.open, self.high, self.low = self.optional = tuple(rest)  # not copied where nobody reads them
        self.zero = Node(_INPUT)
        self.close.past = 1
        self._made: dict[tuple, Node] = {}

    def node(self, code: int, *args: "Node | tuple[Node, int]", k: float = 1.0, empty: float = 0.0, tag: str = "") -> Node:
        """Return the node of an operation; a bare operand means lag 0."""
        full = tuple(a if isinstance(a, tuple) and a[0] is not self.zero else (a[0] if isinstance(a, tuple) else a, 0) for a in args)
        key = (code, tuple((id(a), lag) for a, lag in full), k, empty, tag)
        if key not in self._made:
            self._made[key] = Node(code, full, k, empty)
        return self._made[key]

    def pair(self, code: int, *args: "Node | tuple[Node, int]", k: float = 1.0, empty: float = 0.0, tag: str = "") -> tuple[Node, Node]:
        """Return both nodes of an operation with two outputs."""
        first = self.node(code, *args, k=k, empty=empty, tag=tag)
        if first.second is None:
            first.second = Node(_SECOND, first=first)
        return first, first.second

    def total(self, x: Node, n: int, tag: str = "") -> Node:
        """Sum the last n cells, a hole as 0: powers of four are made of four quarters, the rest of three to five powers."""
        if n == 1:
            return x
        if n in (4, 16, 64, 256):
            quarter = self.total(x, n // 4)
            return self.node(op.ADD4, *((quarter, j * (n // 4)) for j in range(4)), tag=tag)
        terms = _terms(n)
        nodes: list[Node | tuple[Node, int]] = []
        at = 0
        for size in terms:
            nodes.append((self.total(x, size), at))
            at += size
        while len(nodes) > 5:
            nodes = [self.node(op.ADD4, *nodes[:4]), *nodes[4:]]
        return self.node(op.ADD5 if len(nodes) == 5 else op.ADD4, *nodes, *[self.zero] * (4 - len(nodes)), tag=tag)

    def most(self, x: Node, n: int) -> Node:
        """Return the largest of the last n cells; x is above 0, and 0 at a hole."""
        if n == 1:
            return x
        size = max(power for power in (1, 4, 16, 64, 256) if power < n)
        part, lags = self.most(x, size), [*range(0, n - size, size), n - size]
        return self.node(op.MOST4, *((part, lag) for lag in lags + lags[-1:] * (4 - len(lags))))

    def window_sum(self, x: Node, n: int, mask: Node) -> Node:
        """Sum the last n rows of x, scaled to n values where some are missing; NaN below 80 %."""
        node = self.total(x, n, tag="window")
        if not node.mends:
            node.mends = [Node(tb.MEND, ((x, 0), (mask, 0)), when=n)]
            mask.past = max(mask.past, n)
        return node

    def moments(self, x: Node, n: int, tag: str = "") -> tuple[Node, Node]:
        """Mean and summed squared deviations of the last n cells: groups of 4, joined without cancellation."""
        if n == 1:
            return x, self.zero
        if n == 4:
            return self.pair(op.MERGE4, *((x, j) for j in range(4)), self.zero, tag=tag)
        if n == 20:
            return self.pair(op.MERGE5, *self.moments(x, 4), k=4.0, empty=float(self.n_symbols), tag=tag)
        if n in (16, 64):
            mean, dev = self.moments(x, n // 4)
            inner = self.node(op.ADD4, *((dev, j * (n // 4)) for j in range(4)))
            return self.pair(op.MERGE4, *((mean, j * (n // 4)) for j in range(4)), inner, k=n / 4.0, tag=tag)
        size = max(s for s in (64, 20, 16, 4, 1) if s < n)
        ahead = max(size, n - size)
        mean, dev = self.moments(x, ahead)
        old_mean, old_dev = self.moments(x, n - ahead)
        weights = {"k": (n - ahead) / n, "empty": ahead * (n - ahead) / n}
        return self.pair(op.MERGE2, mean, (old_mean, ahead), dev, (old_dev, ahead), tag=tag, **weights)

    def window_moments(self, x: Node, n: int, mask: Node, ddof: int = 1) -> tuple[Node, Node]:
        """Mean and squared deviations of the last n rows; where some are missing, scaled so that dividing by n - ddof is right."""
        mean, dev = self.moments(x, n, tag=f"window{ddof}")
        if not mean.mends:
            mean.mends = [Node(tb.MEND, ((x, 0), (mask, 0)), k=float(ddof), when=n)]
            x.past, mask.past = max(x.past, n - 1), max(mask.past, n)
        return mean, dev


def _terms(n: int) -> list[int]:
    """Write n as three to five powers of four, large ones first; as more if that cannot be."""
    for top in (256, 64, 16, 4, 1):
        terms: list[int] = []
        for size in (256, 64, 16, 4, 1):
            if size <= top:
                terms += [size] * ((n - sum(terms)) // size)
        if 3 <= len(terms) <= 5 or (len(terms) > 5 and top == 256):
            return terms
    raise ValueError(f"a window must have 3 rows or more, was {n}")


@dataclass(frozen=True)
class Layout:
    """The plan of a bank: `table` and `memory` before the first bar; `memory[:state_size]` and the counters are what it remembers."""

    table: I8
    memory: F8
    state_size: int


@dataclass(eq=False)
class Operation:
    """One line of the tape: a node, the planes it writes, when it runs (see `tb.WIDTH`)."""

    node: Node
    outs: tuple[Node, ...]
    when: int = 0
    bank: int = 1  # exponential means that run together: this one and those behind it


def lay_out(graph: Graph, wanted: Sequence[Node], warmup: int) -> Layout:
    """Order the operations and give every plane its place; `wanted[i]` becomes plane i of the output."""
    operations = _banked(_ordered(graph, wanted))
    n_symbols = graph.n_symbols
    piece = max(1, CELLS // n_symbols)
    places = _Places(n_symbols, piece, chunk=piece * -(-MIN_CHUNK // piece))
    shifts = places.with_past(graph, operations)
    state_size = places.size
    places.without_past(graph, operations)
    counts, constants = places.take(n_symbols), places.take(2 * len(operations))

    shifts_at = tb.OPERATIONS + tb.WIDTH * len(operations)
    counters = shifts_at + 3 * len(shifts)
    head = {
        tb.SYMBOLS: n_symbols,
        tb.CHUNK: places.chunk,
        tb.PIECE: places.piece,
        tb.WARMUP: warmup,
        tb.PAST: max(n.past for n in graph.inputs),
        tb.N_OPERATIONS: len(operations),
        tb.N_SHIFTS: len(shifts),
        tb.N_SLOTS: len(wanted),
        tb.PASTLESS: state_size,
        tb.OUT: places.size,
        tb.COUNTS: counts,
        tb.CONSTANTS: constants,
        tb.SHIFTS: shifts_at,
        tb.COUNTERS: counters,
    }
    table = np.zeros(counters + tb.SEEN + n_symbols, np.int64)
    table[list(head)] = list(head.values())
    table[tb.HEAD : tb.OPERATIONS] = [_address(node) for node in graph.inputs]
    table[tb.OPERATIONS : shifts_at] = np.ravel([_encode(operation, n_symbols) for operation in operations])
    table[shifts_at:counters] = np.ravel(shifts)
    memory = np.zeros(places.size)
    memory[constants:] = np.ravel([(operation.node.k, operation.node.empty) for operation in operations])
    for start, end in places.unknown:
        memory[start:end] = np.nan
    return Layout(table, memory, state_size)


def _ordered(graph: Graph, wanted: Sequence[Node]) -> list[Operation]:
    """Operands before operations; repairs behind what they repair; the general way of a fast operation behind it, for pieces with holes."""
    done: dict[int, Operation] = {}
    out: list[Operation] = []

    def visit(node: Node, when: int) -> None:
        node = node.first or node
        if node.code == _INPUT:
            return
        lags = _LOOKS_BACK.get(node.code, (0,) * 5)
        for i, (operand, lag) in enumerate(node.args):
            operand.past = max(operand.past, lag, lags[i])
            visit(operand, when)
        if id(node) in done:
            done[id(node)].when = min(when, done[id(node)].when)  # what one needs always, is made always
            return
        outs = (node,) if node.second is None else (node, node.second)
        done[id(node)] = Operation(node, outs, -node.general[0][2] if node.general else when)
        for mend in node.mends:
            visit(mend.args[1][0], 0)  # which values there are
        out.append(done[id(node)])
        out.extend(Operation(mend, outs, mend.when) for mend in node.mends)
        for plane, general, window in node.general:
            for operand, _ in general.args:
                visit(operand, window)
            out.append(Operation(general, (plane,), window))

    for slot, node in enumerate(wanted):
        node.slot = slot
        visit(node, 0)
    for node in wanted:
        if node.past:  # it lives among the planes with a past; what leaves is a copy
            copy = graph.node(op.SCALED, node, graph.zero, graph.mask, tag="copy")
            copy.slot, node.slot = node.slot, -1
            out.append(Operation(copy, (copy,)))
    return out


def _banked(operations: list[Operation]) -> list[Operation]:
    """Put the exponential means of inputs first, as one bank."""
    bank = [o for o in operations if o.node.code == tb.EMA and o.node.args[0][0].code == _INPUT]
    if bank:
        bank[0].bank = len(bank)
    return bank + [o for o in operations if o not in bank]


class _Places:
    """Hands out addresses."""

    def __init__(self, n_symbols: int, piece: int, chunk: int) -> None:
        self.n_symbols, self.piece, self.chunk = n_symbols, piece, chunk
        self.size = 0
        self.unknown: list[tuple[int, int]] = []  # cells that are NaN before the first bar

    def take(self, cells: int, is_unknown: bool = False) -> int:
        """Return the address of so many new cells."""
        at = self.size
        self.size += cells
        if is_unknown:
            self.unknown.append((at, self.size))
        return at

    def with_past(self, graph: Graph, operations: list[Operation]) -> list[tuple[int, int, int]]:
        """Place inputs, planes that somebody looks back at and recursive states; return what moves when the chunk is full."""
        n, chunk = self.n_symbols, self.chunk
        used = {id(a) for o in operations for a, _ in o.node.args}
        nodes = [node for node in graph.inputs if id(node) in used or node not in graph.optional]
        nodes += [node for o in operations for node in o.outs if node.past]
        shifts = []
        for node in dict.fromkeys(nodes):
            past = node.past * n
            start = self.take(past, is_unknown=node in (graph.close, graph.inverse, graph.last_volume))
            node.address = self.take(chunk * n)
            shifts.append((start + past, past, chunk * n))
        for node in (o.node for o in operations):
            if node.code == tb.EMA:
                node.state = self.take(n, is_unknown=True)
            elif node.code == tb.WILDER:
                node.state = self.take(2 * n)
            elif node.code == tb.HOURLY:
                node.state = self.take(2 * HOURS * n)
            elif node.code == tb.RANK:
                node.state = self.take(n)
                self.take(n * WINDOW, is_unknown=True)
        return shifts

    def without_past(self, graph: Graph, operations: list[Operation]) -> None:
        """Place what lives within a piece; a place is free again behind the last operation that knows it."""
        cells = self.piece * self.n_symbols
        graph.zero.address = self.take(cells)
        waste = self.take(self.chunk * self.n_symbols)
        for node in graph.inputs:
            node.address = waste if node.address is None else node.address
        last = {id(node): i for i, o in enumerate(operations) for node in (*(a for a, _ in o.node.args), *o.outs)}
        free: list[int] = []
        ends: dict[int, list[int]] = {}
        for i, operation in enumerate(operations):
            for node in operation.outs:
                if node.address is None and node.slot >= 0:
                    node.address = -1 - node.slot
                if node.address is None:
                    node.address = free.pop() if free else self.take(cells)
                    ends.setdefault(last[id(node)], []).append(node.address)
            free += ends.pop(i, [])


def _encode(operation: Operation, n_symbols: int) -> list[int]:
    """Return the line of the table."""
    node, outs = operation.node, operation.outs
    operands = [_address(a) - lag * n_symbols for a, lag in node.args]
    operands += [0] * (5 - len(operands))
    state = node.state
    if node.code == tb.EMA:
        operands[1] = operation.bank
    if node.code == tb.MEND:
        state = len(outs) - 1
    return [node.code, operation.when, *operands, _address(outs[0]), _address(outs[-1]), state]


def _address(node: Node) -> int:
    if node.address is None:
        raise RuntimeError("a plane was read before it had a place")
    return node.address
