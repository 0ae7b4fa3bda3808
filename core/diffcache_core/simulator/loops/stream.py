"""The requests in simulated time: when they arrive, what they ask for, and which earlier requests they resemble.

Times come from a log with times, similarities from a log of prompts. For each there is a synthetic replacement, so that
no log is needed. Two prompts of a log are compared by their letters (hashed 4-grams), because a log of an approximate
cache only has the similarity of the best match. These proxy values are then mapped monotonically, so that the values of
the best earlier request have the distribution of the logged similarities.
"""

from __future__ import annotations

import csv
import itertools
import math
import zlib
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from diffcache_core.generation import MAX_STEPS
from diffcache_core.simulator.cache import Nearest, Neighbour, SimulatedCache, SimulatedRequest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

TIME_COLUMNS = ("time", "timestamp", "gmt_create")
STEPS_COLUMNS = ("steps", "num_inference_steps")
PROMPT_COLUMNS = ("prompt", "Queries")
SCORE_COLUMNS = ("similarity", "Scores")

DEFAULT_STEPS = 30
"""Steps of a request if the log has none."""

PERCENTILES = (0, 5, 25, 50, 75, 95, 100)
SIMILARITIES = (0.45, 0.573, 0.657, 0.712, 0.784, 0.965, 1.0)
"""Similarity to the best earlier prompt at PERCENTILES in a published log of an approximate cache; the ends are
rounded. The synthetic stream uses it."""
REPEAT_SHARE, REPEAT_DISTANCE, REPEAT_SPREAD = 0.109, 176, 1.2
"""Share of word-for-word repeats in that log, median number of requests between the two, and sigma of the log-normal
distribution (assumed)."""
SAME_SEED_SHARE = 0.5
"""Share of the repeats with the same seed: only these are exact hits. It is assumed, because no available log has
it."""

TOPICS_PER_REQUEST, KEY_SIZE = 0.1, 64  # of the synthetic stream: the more topics, the fewer near neighbours
HASH_SIZE = 512  # dimensions of the letter keys: the cosine of two unlike prompts is then some .04 from 0
GRAM = 4  # letters
MOST_NEIGHBOURS = 1024
"""Earlier requests kept for each request, the most similar ones. A cache that holds none of them finds nothing."""
BLOCK = 512  # rows of similarities at a time


class StreamError(ValueError):
    """A log cannot be used. The message says where it is wrong and what to do."""


@dataclass(frozen=True)
class Arrivals:
    times: tuple[float, ...]  # seconds since the epoch, rising
    steps: tuple[int, ...]

    def first(self, most: int) -> Arrivals:
        """Returns the first `most` requests."""
        return Arrivals(self.times[:most], self.steps[:most])

    def folded(self, days: int) -> Arrivals:
        """Returns all requests within `days` days: later days are laid over the first ones. This gives a higher load
        with the log's daily rhythm."""
        begin = self.times[0]
        laid = sorted((begin + (at - begin) % (days * 86400), n) for at, n in zip(self.times, self.steps, strict=True))
        return Arrivals(tuple(at for at, _ in laid), tuple(n for _, n in laid))


@dataclass(frozen=True)
class PromptLog:
    prompts: tuple[str, ...]
    scores: tuple[float, ...]  # similarity to the best cached prompt


@dataclass(frozen=True)
class Stream:
    """Requests in the order of their arrival. `near`: for each request the positions of earlier ones, by falling
    similarity, and their similarities."""

    times: tuple[float, ...]
    requests: tuple[SimulatedRequest, ...]
    near: tuple[tuple[array[int], array[float]], ...]

    def nearest(self, position: int, cache: SimulatedCache) -> Nearest:
        """Returns the search of an exact index over the entries of `cache`."""
        positions, similarities = self.near[position]

        def search(limit: int) -> tuple[Sequence[Neighbour], bool]:
            living = (i for i, other in enumerate(positions) if other in cache)
            found = list(itertools.islice(living, limit + 1))
            return [Neighbour(positions[i], similarities[i]) for i in found[:limit]], len(found) > limit

        return search


# ---- logs ----------------------------------------------------------------------------------------------------------


def read_arrivals(lines: Iterable[str], origin: str) -> Arrivals:
    """Reads a CSV with a column of times (ISO 8601, or seconds since the epoch) and, optionally, one of steps. Raises
    StreamError."""
    rows = csv.DictReader(lines)
    time_column = _column(rows, TIME_COLUMNS, origin)
    steps_column = next((c for c in STEPS_COLUMNS if c in (rows.fieldnames or ())), None)
    found = []
    for row in _rows(rows, origin):
        at = _seconds(row.get(time_column) or "")
        if at is None:
            where = f"{origin}, line {rows.line_num}"
            raise StreamError(f"{where}: {time_column} is {row.get(time_column)!r}: write a date and time, or seconds")
        found.append((at, _steps(row.get(steps_column) if steps_column else None)))
    if not found:
        raise StreamError(f"{origin} holds no requests: give a CSV with one line for each")
    found.sort(key=lambda request: request[0])
    return Arrivals(tuple(at for at, _ in found), tuple(steps for _, steps in found))


def read_prompts(lines: Iterable[str], origin: str) -> PromptLog:
    """Reads a CSV with a column of prompts and one of similarities to the best cached prompt. Raises StreamError."""
    rows = csv.DictReader(lines)
    prompt_column = _column(rows, PROMPT_COLUMNS, origin)
    score_column = _column(rows, SCORE_COLUMNS, origin)
    prompts, scores = [], []
    for row in _rows(rows, origin):
        score = _number(row.get(score_column))
        if score is None or not -1 <= score <= 1.01:
            where = f"{origin}, line {rows.line_num}"
            raise StreamError(f"{where}: {score_column} is {row.get(score_column)!r}: must be a cosine, -1 to 1")
        prompts.append(row.get(prompt_column) or "")
        scores.append(min(1.0, score))
    if len(prompts) < 2:
        raise StreamError(f"{origin} holds fewer than two prompts: give a CSV with one line for each")
    return PromptLog(tuple(prompts), tuple(scores))


def _column(rows: csv.DictReader[str], names: Sequence[str], origin: str) -> str:
    try:
        columns = rows.fieldnames or ()
    except csv.Error as error:
        raise StreamError(f"{origin} is no CSV: {error}") from None
    found = next((name for name in names if name in columns), None)
    if found is None:
        shown = ", ".join(columns)[:200] or "nothing"
        raise StreamError(f"{origin} needs a column called {' or '.join(names)} in its first line, which has {shown}")
    return found


def _rows(rows: csv.DictReader[str], origin: str) -> Iterable[dict[str, str | None]]:
    try:
        yield from rows
    except csv.Error as error:
        raise StreamError(f"{origin}, line {rows.line_num}: {error}") from None


def _seconds(text: str) -> float | None:
    number = _number(text)
    if number is not None:
        return number
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


def _steps(text: str | None) -> int:
    number = _number(text)
    return int(number) if number is not None and 1 <= number <= MAX_STEPS else DEFAULT_STEPS


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if math.isfinite(number) else None


# ---- synthetic streams ---------------------------------------------------------------------------------------------


def synthetic_arrivals(days: float, requests_per_day: float, seed: int) -> Arrivals:
    """Returns arrivals with quiet nights and two busy times a day; within an hour they are random."""
    import numpy as np

    random = np.random.default_rng(seed)
    hours = np.arange(math.ceil(days * 24))
    of_day = hours % 24
    shape = 0.03 + np.exp(-(((of_day - 11) / 2.5) ** 2)) + 1.3 * np.exp(-(((of_day - 16.5) / 2.5) ** 2))
    rate = requests_per_day * shape / shape[: min(24, len(shape))].sum()
    times = np.sort(
        np.concatenate([(h + random.random(random.poisson(r))) * 3600 for h, r in zip(hours, rate, strict=True)])
    )
    times = times[times <= days * 86400]
    return Arrivals(tuple(times.tolist()), (DEFAULT_STEPS,) * len(times))


def synthetic_stream(arrivals: Arrivals, floor: float, seed: int) -> Stream:
    """Returns a stream with topics of uneven popularity, prompts around each topic, and word-for-word repeats. `floor`:
    the lowest similarity that counts."""
    import numpy as np

    random = np.random.default_rng(seed)
    count = len(arrivals.times)
    topics = random.normal(size=(max(1, int(count * TOPICS_PER_REQUEST)), KEY_SIZE))
    weights = 1 / np.arange(1, len(topics) + 1) ** 0.7
    chosen = random.choice(len(topics), count, p=weights / weights.sum())
    keys = topics[chosen] + random.uniform(0.3, 1.2, (count, 1)) * random.normal(size=(count, KEY_SIZE))
    prompts = list(range(count))
    for i in np.flatnonzero(random.random(count) < REPEAT_SHARE):
        back = max(1, round(float(random.lognormal(math.log(REPEAT_DISTANCE), REPEAT_SPREAD))))
        if back <= i:
            prompts[i], keys[i] = prompts[i - back], keys[i - back]
    keys /= np.linalg.norm(keys, axis=1, keepdims=True)
    scores = np.interp(np.linspace(0, 100, 201), PERCENTILES, SIMILARITIES)
    return _stream(arrivals, keys.astype(np.float32), prompts, scores.tolist(), floor, seed)


def logged_stream(arrivals: Arrivals, log: PromptLog, floor: float, seed: int) -> Stream:
    """Returns a stream in which each arrival has the next prompt of the log. The log must have at least as many prompts
    as there are arrivals."""
    count = len(arrivals.times)
    numbers: dict[str, int] = {}
    prompts = [numbers.setdefault(prompt, i) for i, prompt in enumerate(log.prompts[:count])]
    return _stream(arrivals, _letter_keys(log.prompts[:count]), prompts, log.scores[:count], floor, seed)


def _letter_keys(prompts: Sequence[str]) -> NDArray[np.float32]:
    """Returns keys of shape (prompts, HASH_SIZE), L2-normalised: counts of letter 4-grams, weighted by rarity, in
    signed hash buckets."""
    import numpy as np

    grams = []
    for prompt in prompts:
        text = f" {' '.join(prompt.lower().split())} "
        grams.append(Counter(text[i : i + GRAM] for i in range(max(1, len(text) - GRAM + 1))))
    documents = Counter(gram for counts in grams for gram in counts)
    hashed = {gram: zlib.crc32(gram.encode("utf-8", "surrogatepass")) for gram in documents}
    weights = {gram: math.log(1 + len(prompts) / count) for gram, count in documents.items()}
    keys = np.zeros((len(prompts), HASH_SIZE), np.float32)
    for key, counts in zip(keys, grams, strict=True):
        for gram, count in counts.items():
            sign = 1 if hashed[gram] & 1 << 31 else -1
            key[hashed[gram] % HASH_SIZE] += sign * weights[gram] * (1 + math.log(count))
    return keys / np.maximum(np.linalg.norm(keys, axis=1, keepdims=True), 1e-12)


# ---- similarities --------------------------------------------------------------------------------------------------


def _stream(
    arrivals: Arrivals,
    keys: NDArray[np.float32],
    prompts: Sequence[int],
    scores: Sequence[float],
    floor: float,
    seed: int,
) -> Stream:
    """Makes a stream. `keys`: (requests, dimensions), L2-normalised. `scores`: the distribution that the similarity of
    the best earlier request gets. `floor`: the lowest similarity that counts."""
    mapping = _Mapping(_best_earlier(keys), scores)
    near = _neighbours(keys, mapping, floor)
    return Stream(arrivals.times, _requests(arrivals.steps, prompts, seed), near)


def _requests(steps: Sequence[int], prompts: Sequence[int], seed: int) -> tuple[SimulatedRequest, ...]:
    import numpy as np

    random = np.random.default_rng(seed + 1)
    first: dict[int, tuple[int, int]] = {}
    requests = []
    for i, (n, prompt) in enumerate(zip(steps, prompts, strict=True)):
        own, count = first.setdefault(prompt, (i, n))
        repeats = own != i and random.random() < SAME_SEED_SHARE
        number, n = (own, count) if repeats else (i, n)
        requests.append(SimulatedRequest((prompt, number, n), prompt, number, n))
    return tuple(requests)


class _Mapping:
    """Maps the proxy's cosines to the log's, by equal rank among the best earlier requests; 1 stays 1."""

    def __init__(self, best: NDArray[np.float32], scores: Sequence[float]) -> None:
        import numpy as np

        at = np.linspace(0, 1, 201)
        settled = (
            best[len(best) // 20 :] if len(best) >= 40 else best
        )  # the first requests have hardly any earlier ones
        proxy, target = np.quantile(settled, at), np.quantile(np.asarray(scores), at)
        proxy = np.concatenate([[-1.0], np.clip(proxy, -0.99, 0.9999), [1.0]])
        target = np.concatenate([[min(0.0, float(target[0]))], target, [1.0]])
        self.proxy, first = np.unique(proxy, return_index=True)
        self.target = np.maximum.accumulate(target[first])

    def __call__(self, proxy: NDArray[Any]) -> NDArray[Any]:
        import numpy as np

        return np.interp(proxy, self.proxy, self.target)


def _best_earlier(keys: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns the highest cosine of each request, except the first, with the requests before it: (requests - 1,)."""
    import numpy as np

    best = np.empty(len(keys), np.float32)
    for start in range(0, len(keys), BLOCK):
        block = _block(keys, start)
        best[start : start + BLOCK] = block.max(axis=1)
    return best[1:]


def _neighbours(
    keys: NDArray[np.float32], mapping: _Mapping, floor: float
) -> tuple[tuple[array[int], array[float]], ...]:
    import numpy as np

    lists = []
    for start in range(0, len(keys), BLOCK):
        for row in _block(keys, start):
            similar = mapping(row)
            similar[row < -1.0] = -1.0  # not an earlier request
            near = np.flatnonzero(similar >= floor)
            if len(near) > MOST_NEIGHBOURS:
                near = near[np.argpartition(-similar[near], MOST_NEIGHBOURS)[:MOST_NEIGHBOURS]]
            near = near[np.lexsort((-near, -similar[near]))]  # of equal ones the newest first
            lists.append((array("l", near.tolist()), array("d", similar[near].tolist())))
    return tuple(lists)


def _block(keys: NDArray[np.float32], start: int) -> NDArray[np.float32]:
    """Returns BLOCK rows from `start` on of the cosines with all earlier requests, (rows, requests); -2 where a request
    is not earlier."""
    import numpy as np

    end = min(len(keys), start + BLOCK)
    block = keys[start:end] @ keys[:end].T
    np.clip(block, -1.0, 1.0, out=block)
    block[np.arange(end)[None, :] >= np.arange(start, end)[:, None]] = -2.0
    return block
