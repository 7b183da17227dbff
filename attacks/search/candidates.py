"""Candidates for what stands behind a path of tokens, run through a front together and held against what crossed.

All candidates of a place are one tree, read behind the path's cached keys and values in one pass, or a few. What a
chosen path gave at every layer is remembered by its tokens, so that a search at another front need not run it again.
"""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from pplr_audit.models.token_tree import Branches, Prefix
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

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def pending(self) -> Int[np.ndarray, "pending"]:
        """The tokens behind the prefix."""
        return self.tokens[self.prefix.length :]

    def upto(self, length: int) -> "Path":
        """The path as it was at a shorter length."""
        begins = len(self) - len(next(iter(self.states.values())))
        states = {layer: h[: length - begins] for layer, h in self.states.items()}
        return Path(self.tokens[:length], self.prefix.upto(length), states)


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
    """Cache of what chosen pieces of paths gave at several layers, by model and tokens, while there is room."""

    def __init__(self) -> None:
        self._states: dict[Hashable, Mapping[int, Tensor]] = {}
        self._bytes = 0

    def get(self, key: Hashable) -> Mapping[int, Tensor]:
        """h_l by l; nothing where it is not known."""
        return self._states.get(key, {})

    def put(self, key: Hashable, states: Mapping[int, Tensor]) -> None:
        size = sum(each.nbytes for each in states.values())
        if len(states) > 1 and key not in self._states and self._bytes + size <= REMEMBERED:
            self._states[key] = states
            self._bytes += size


class Front:
    """The front of one model, which counts what it runs.

    Args:
        opening: the tokens that every sequence begins with.
        layers: every front that may be asked about.
        cache: may be shared by several models.
    """

    def __init__(
        self, model: Model, opening: Int[np.ndarray, "opening"], layers: Sequence[int], cache: PathCache
    ) -> None:
        self._model, self._layers, self._cache = model, tuple(layers), cache
        branches = model.extend(Prefix(), opening, range(-1, len(opening) - 1), self._layers)
        self._start = opening, branches.along(range(len(opening))), branches.states
        self.evaluations = max(layers) * len(opening)
        """Blocks times tokens that were run, over all candidates."""

    def start(self) -> Path:
        """The path along the opening."""
        return Path(*self._start)

    def measure(
        self, path: Path, pieces: Sequence[Int[np.ndarray, "piece"]], crossed: Float[Tensor, "rest hidden"], layer: int,
        *, deep: bool = False,
    ) -> Trial:  # fmt: skip
        """Measure how far each of ``pieces`` behind ``path`` is from what crossed.

        Args:
            crossed: h of ``layer`` at the positions behind the path; no piece is longer.
            deep: run on to the deepest front that may be asked about. The same along a whole path.
        """
        distances = [np.empty(0)] * len(pieces)
        best: tuple[float, int, Path] | None = None
        for place, found, ahead in self._measured(path, pieces, crossed, layer, self._layers if deep else (layer,)):
            distances[place] = found
            if best is None or (float(found.mean()), place) < best[:2]:
                best = float(found.mean()), place, ahead()
        assert best is not None, "there is something to try"
        return Trial(distances, best[1], best[2])

    def remember(self, before: Path, path: Path) -> None:
        """Keep what the last piece of ``path`` gave behind ``before``, for a search at another layer."""
        self._cache.put(self._key(before, path.tokens[len(before) :]), path.states)

    def _key(self, before: Path, piece: Int[np.ndarray, "piece"]) -> Hashable:
        return id(self), before.tokens.tobytes(), piece.tobytes()

    def _measured(
        self, path: Path, pieces: Sequence[Int[np.ndarray, "piece"]], crossed: Float[Tensor, "rest hidden"], layer: int,
        layers: tuple[int, ...],
    ) -> Iterator[tuple[int, Float[np.ndarray, "piece"], Callable[[], Path]]]:  # fmt: skip
        """The place of each piece, its distances, and how to go on along it."""
        unknown = []
        for place, piece in enumerate(pieces):
            states = self._cache.get(self._key(path, piece))
            if layer in states:
                found = relative(states[layer], crossed[: len(piece)])
                yield place, found, partial(Path, np.concatenate([path.tokens, piece]), path.prefix, states)
            else:
                unknown.append(place)
        for tree in _trees(path.pending, pieces, unknown):
            branches = self._model.extend(path.prefix, tree.tokens, tree.parents, layers)
            self.evaluations += max(layers) * len(tree.tokens)
            pending = len(path.pending)
            # How far a node is does not depend on which piece it is looked at for.
            apart = relative(branches.states[layer][pending:], crossed[_depths(tree.parents)[pending:] - pending])
            path.prefix = branches.along(range(pending)) if pending else path.prefix
            for place, nodes in tree.nodes.items():
                ahead = partial(_along, path, pieces[place], branches, [*range(pending), *nodes])
                yield place, apart[np.array(nodes) - pending], ahead


def relative(h: Float[Tensor, "length hidden"], crossed: Float[Tensor, "length hidden"]) -> Float[np.ndarray, "length"]:
    """Return the distance by position, in lengths of what crossed."""
    apart = (h - crossed).norm(dim=1) / crossed.norm(dim=1).clamp_min(1e-30)
    return np.asarray(apart.double().numpy())


def _along(path: Path, piece: Int[np.ndarray, "piece"], branches: Branches, nodes: list[int]) -> Path:
    own = nodes[len(nodes) - len(piece) :]
    states = {layer: each[own] for layer, each in branches.states.items()}
    return Path(np.concatenate([path.tokens, piece]), branches.along(nodes), states)


@dataclass(frozen=True)
class _Tree:
    """Pieces that begin alike share their nodes."""

    tokens: Int[np.ndarray, "nodes"]
    parents: list[int]
    nodes: dict[int, list[int]]
    """Nodes of each piece, by its place."""


def _trees(
    pending: Int[np.ndarray, "pending"], pieces: Sequence[Int[np.ndarray, "piece"]], places: Sequence[int]
) -> Iterator[_Tree]:
    """The pieces at ``places`` as trees of bounded size; ``pending`` stands before all of them, in the first."""
    order = sorted(places, key=lambda place: pieces[place].tolist())
    at = 0
    while at < len(order):
        tokens, parents = pending.tolist(), list(range(-1, len(pending) - 1))
        known: dict[tuple[int, int], int] = {}
        nodes: dict[int, list[int]] = {}
        while at < len(order) and (not nodes or len(tokens) < NODES):
            node, own = len(pending) - 1, []
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
        pending = pending[:0]


def _depths(parents: Sequence[int]) -> Int[Tensor, "nodes"]:
    """Count the nodes before each on its path."""
    depths: list[int] = []
    for parent in parents:
        depths.append(depths[parent] + 1 if parent >= 0 else 0)
    return torch.tensor(depths)
