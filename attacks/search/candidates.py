"""Candidates for what stands behind a path of tokens, run through a front together and held against what crossed.

All candidates of a place are one tree, read behind the path's cached keys and values in one pass, or a few. What a
single candidate gave at every layer is remembered by the steps that led to it, so that a search at another front need
not run it again. As these steps are all that its states follow from, an answer has the same bits with and without.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from pplr_audit.models.token_tree import Branches, Prefix
from pplr_audit.threat_model.artifacts import digest
from pplr_audit.threat_model.knowledge import Model

NODES = 1024
"""Nodes of a tree that is read in one pass, about."""
REMEMBERED = 1 << 30
"""Bytes of states of chosen paths that are kept for other fronts."""


@dataclass
class Path:
    """A sequence as far as it was read."""

    tokens: Int[np.ndarray, "length"]
    prefix: Prefix
    """Prefix that holds the first of the tokens; those behind are read along with what is tried next."""
    states: Mapping[int, Float[Tensor, "piece hidden"]]
    """States that the piece that the path ends with gave, by l."""
    steps: str
    """A hash of all trials so far, which are what the states follow from."""
    behind: tuple[Int[np.ndarray, "piece"], ...] = ()
    """Pieces behind the prefix, which were remembered and not run."""

    def __len__(self) -> int:
        return len(self.tokens)

    def upto(self, length: int) -> "Path":
        """The path as it was at a shorter length; its pieces are settled."""
        begins = len(self) - len(next(iter(self.states.values())))
        states = {layer: h[: length - begins] for layer, h in self.states.items()}
        return Path(self.tokens[:length], self.prefix.upto(length), states, digest(self.steps, length))


@dataclass(frozen=True)
class Trial:
    """Candidates behind a path, measured."""

    distances: list[Float[np.ndarray, "piece"]]
    """Distance of each candidate from what crossed, in lengths of what crossed, by position."""
    best: int
    """The candidate with the least mean distance."""
    path: Path
    """The path with the best candidate behind it."""

    @property
    def nearest(self) -> Float[np.ndarray, "piece"]:
        """Distances of the best candidate."""
        return self.distances[self.best]


class PathCache:
    """Cache of what single candidates gave at several layers, by the steps that led to them, while there is room."""

    def __init__(self) -> None:
        self._states: dict[str, Mapping[int, Tensor]] = {}
        self._bytes = 0

    def get(self, steps: str) -> Mapping[int, Tensor]:
        """h_l by l; nothing where it is not known."""
        return self._states.get(steps, {})

    def put(self, steps: str, states: Mapping[int, Tensor]) -> None:
        size = sum(each.nbytes for each in states.values())
        if len(states) > 1 and self._bytes + size <= REMEMBERED:
            self._states[steps] = states
            self._bytes += size


class Front:
    """The front of one model, which counts what it runs.

    Args:
        opening: the tokens that every sequence begins with.
        layer: the front that is searched at.
        others: fronts that may be searched at later.
        cache: may be shared by several models.
    """

    def __init__(
        self, model: Model, opening: Int[np.ndarray, "opening"], layer: int, others: Sequence[int], cache: PathCache
    ) -> None:
        self._model, self.layer, self._layers, self._cache = model, layer, tuple({layer, *others}), cache
        branches = model.extend(Prefix(), opening, range(-1, len(opening) - 1), self._layers)
        steps = digest(model.digest, opening)
        self._start = opening, branches.along(range(len(opening))), branches.states, steps
        self.evaluations = layer * len(opening)
        """Blocks times tokens of all candidates, up to the front that is searched at."""

    def start(self) -> Path:
        """The path along the opening."""
        return Path(*self._start)

    def measure(
        self, path: Path, pieces: Sequence[Int[np.ndarray, "piece"]], crossed: Float[Tensor, "rest hidden"],
        *, deep: bool = False,
    ) -> Trial:  # fmt: skip
        """Measure how far each of ``pieces`` behind ``path`` is from what crossed.

        Args:
            crossed: h at the positions behind the path; no piece is longer.
            deep: run on to the deepest front that may be searched at. The same along a whole path.
        """
        steps = digest(path.steps, np.concatenate(pieces), [len(piece) for piece in pieces])
        if len(pieces) == 1 and self.layer in (known := self._cache.get(steps)):
            self.evaluations += self.layer * len(pieces[0])
            tokens, behind = np.concatenate([path.tokens, pieces[0]]), (*path.behind, pieces[0])
            found = relative(known[self.layer], crossed[: len(pieces[0])])
            return Trial([found], 0, Path(tokens, path.prefix, known, digest(steps, 0), behind))
        layers = self._layers if deep else (self.layer,)
        self.settle(path, deep=deep)
        distances = [np.empty(0)] * len(pieces)
        best: tuple[float, int, Path] | None = None
        for place, found, ahead in self._measured(path, pieces, crossed, layers):
            distances[place] = found
            if best is None or (float(found.mean()), place) < best[:2]:
                best = float(found.mean()), place, ahead(digest(steps, place))
        assert best is not None, "there is something to try"
        if deep and len(pieces) == 1:
            self._cache.put(steps, best[2].states)
        return Trial(distances, best[1], best[2])

    def settle(self, path: Path, *, deep: bool) -> None:
        """Run the pieces of ``path`` that were remembered, one by one as they were run then."""
        layers = self._layers if deep else (self.layer,)
        for piece in path.behind:
            branches = self._model.extend(path.prefix, piece, range(-1, len(piece) - 1), layers)
            path.prefix = branches.along(range(len(piece)))
        path.behind = ()

    def _measured(
        self, path: Path, pieces: Sequence[Int[np.ndarray, "piece"]], crossed: Float[Tensor, "rest hidden"],
        layers: tuple[int, ...],
    ) -> Iterator[tuple[int, Float[np.ndarray, "piece"], Callable[[str], Path]]]:  # fmt: skip
        """The place of each piece, its distances, and how to go on along it."""
        for tree in _trees(pieces):
            branches = self._model.extend(path.prefix, tree.tokens, tree.parents, layers)
            self.evaluations += self.layer * len(tree.tokens)
            # How far a node is does not depend on which piece it is looked at for.
            apart = relative(branches.states[self.layer], crossed[_depths(tree.parents)])
            for place, nodes in tree.nodes.items():
                yield place, apart[np.array(nodes)], partial(_along, path, pieces[place], branches, nodes)


def relative(h: Float[Tensor, "length hidden"], crossed: Float[Tensor, "length hidden"]) -> Float[np.ndarray, "length"]:
    """Return the distance by position, in lengths of what crossed."""
    apart = (h - crossed).norm(dim=1) / crossed.norm(dim=1).clamp_min(1e-30)
    return np.asarray(apart.double().numpy())


def _along(path: Path, piece: Int[np.ndarray, "piece"], branches: Branches, nodes: list[int], steps: str) -> Path:
    states = {layer: each[nodes] for layer, each in branches.states.items()}
    return Path(np.concatenate([path.tokens, piece]), branches.along(nodes), states, steps)


@dataclass(frozen=True)
class _Tree:
    """Pieces that begin alike share their nodes."""

    tokens: Int[np.ndarray, "nodes"]
    parents: list[int]
    nodes: dict[int, list[int]]
    """Nodes of each piece, by its place."""


def _trees(pieces: Sequence[Int[np.ndarray, "piece"]]) -> Iterator[_Tree]:
    """The pieces as trees of bounded size."""
    order = sorted(range(len(pieces)), key=lambda place: pieces[place].tolist())
    at = 0
    while at < len(order):
        tokens: list[int] = []
        parents: list[int] = []
        known: dict[tuple[int, int], int] = {}
        nodes: dict[int, list[int]] = {}
        while at < len(order) and (not nodes or len(tokens) < NODES):
            node, own = -1, []
            for token in pieces[order[at]].tolist():
                if (node, token) not in known:
                    known[node, token] = len(tokens)
                    tokens.append(token)
                    parents.append(node)
                node = known[node, token]
                own.append(node)
            nodes[order[at]] = own
            at += 1
        yield _Tree(np.array(tokens, dtype=np.int64), parents, nodes)


def _depths(parents: Sequence[int]) -> Int[Tensor, "nodes"]:
    """Count the nodes before each on its path."""
    depths: list[int] = []
    for parent in parents:
        depths.append(depths[parent] + 1 if parent >= 0 else 0)
    return torch.tensor(depths)
