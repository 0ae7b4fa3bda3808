"""One of several processes that write to one ledger in Redis as fast as they can.

`python -m tests.serving.cache.ledger_writer ADDRESS PREFIX SEED OPERATIONS BYTES ENTRIES` prints one JSON object: what
it inserted, what each operation handed to it as gone, and whether it ever saw the budget exceeded.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys

from diffcache_core.cache.budget import Budget
from diffcache_serving.cache.ledger import Dropped, Target
from diffcache_serving.cache.ledger_redis import RedisLedger
from diffcache_serving.cache.redis_client import RedisAccess
from tests.serving.cache.entries import KEY, entry, trajectory


async def write(address: str, prefix: str, seed: int, operations: int, budget: Budget) -> dict[str, object]:
    ledger, chance = await RedisLedger.open(RedisAccess(address), prefix), random.Random(seed)
    inserted: list[str] = []
    gone: list[str] = []
    exceeded = False

    def note(dropped: Dropped) -> None:
        gone.extend(state.id for state in dropped.states)

    for number in range(operations):
        name = f"w{seed}n{number}"
        match chance.random():
            case draw if draw < 0.6:
                made = trajectory(name, (2, 4)) if chance.random() < 0.3 else entry(name, 4096 * chance.randint(1, 4))
                if chance.random() < 0.2:  # the same request as somebody else's
                    made = entry(name, 4096, exact=f"exact-{chance.randrange(20)}")
                note(await ledger.reserve(sum(s.bytes for s in made.states), 1, budget))
                done = await ledger.insert(made, KEY, budget)
                note(done.evicted)
                note(done.replaced)
                inserted += [s.id for s in made.states]
            case draw if draw < 0.9:
                await ledger.record_hit(f"w{chance.randrange(4)}n{chance.randrange(number + 1)}-0", 4, chance.random())
            case draw if draw < 0.95:
                note(await ledger.drop_states([f"w{chance.randrange(4)}n{chance.randrange(number + 1)}-0"]))
            case draw if draw < 0.96:
                note(await ledger.drop_entries(Target(entry_id=f"w{seed}n{chance.randrange(number + 1)}")))
            case _:
                await ledger.adopt(chance.choice(["one", "two"]), "emoji@f00d", now=float(number))
        exceeded = exceeded or (await ledger.totals()).exceeds(budget)
    await ledger.close()
    return {"inserted": inserted, "gone": gone, "exceeded": exceeded}


if __name__ == "__main__":
    address, prefix, *numbers = sys.argv[1:]
    seed, operations, size, entries = (int(number) for number in numbers)
    print(json.dumps(asyncio.run(write(address, prefix, seed, operations, Budget(size, entries)))))
