"""The records of runs in the Redis that processes share: a hash a run, a set of a session's runs, and a sorted set of
those that were rated.
"""

import time
from typing import cast

from smartstore_workflows.memory import DAY_SECONDS
from smartstore_workflows.records import Rating, RunRecord, Score, record_of, run_json
from smartstore_workflows.redis_server import RedisServer

RUN, RATED, OF_SESSION = "run-record", "rated-runs", "runs-of"
# Both look before they write: a run that is rated must not end, and one that has ended must not come back as a rating.
# A session's set lives as long as its longest-lived run.
ADD = """
redis.call('HSET', KEYS[1], 'run', ARGV[1])
if redis.call('HEXISTS', KEYS[1], 'rating') == 0 then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
redis.call('SADD', KEYS[2], ARGV[3])
if redis.call('PTTL', KEYS[2]) < tonumber(ARGV[2]) then redis.call('PEXPIRE', KEYS[2], ARGV[2]) end
"""
RATE = """
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
redis.call('HSET', KEYS[1], 'rating', ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
redis.call('ZADD', KEYS[2], ARGV[2], ARGV[3])
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', ARGV[2] - ARGV[4] / 1000)
local read, run = pcall(cjson.decode, redis.call('HGET', KEYS[1], 'run'))
local runs = read and ARGV[5] .. run.session_id
if runs and redis.call('PTTL', runs) < tonumber(ARGV[4]) then redis.call('PEXPIRE', runs, ARGV[4]) end
return 1
"""
UNRATE = """
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
if redis.call('HDEL', KEYS[1], 'rating') == 1 then redis.call('PEXPIRE', KEYS[1], ARGV[1]) end
redis.call('ZREM', KEYS[2], ARGV[2])
return 1
"""
FORGET = """
for _, run in ipairs(redis.call('SMEMBERS', KEYS[1])) do
    redis.call('DEL', ARGV[1] .. run)
    redis.call('ZREM', KEYS[2], run)
end
redis.call('DEL', KEYS[1])
"""


class RedisRunRecords:
    """Records in Redis; what each method returns and raises is told by `records.RunRecords`."""

    def __init__(self, server: RedisServer, *, days: float, feedback_days: float) -> None:
        """Use a server; whoever opened it closes it."""
        self._server = server
        self._life = days * DAY_SECONDS
        self._rated_life_ms = round(feedback_days * DAY_SECONDS * 1_000)

    async def add(self, record: RunRecord) -> None:
        """Keep a run; one of the same id is replaced, and its rating stays."""
        seconds = record.created_at + self._life - time.time()
        async with self._server.use() as client:
            keys = (self._key(record.run_id), self._server.key(OF_SESSION, record.session_id))
            await client.eval(ADD, 2, *keys, run_json(record), str(max(1, round(seconds * 1_000))), record.run_id)

    async def get(self, run_id: str) -> RunRecord | None:
        """Return a run with its rating; None for one that is unknown, too old, or broken."""
        async with self._server.use() as client:
            run, rating = await client.hmget(self._key(run_id), ["run", "rating"])
        return record_of(run, rating) if run else None

    async def rate(self, run_id: str, score: Score, comment: str | None) -> bool:
        """Give a run its rating in place of an earlier one, and a longer life; return False when it is unknown."""
        rating = Rating(score=score, comment=comment, rated_at=time.time())
        keys = (self._key(run_id), self._server.key(RATED))
        values = (rating.model_dump_json(), repr(rating.rated_at), run_id, str(self._rated_life_ms))
        async with self._server.use() as client:
            return bool(await client.eval(RATE, 2, *keys, *values, self._server.key(OF_SESSION, "")))

    async def unrate(self, run_id: str) -> bool:
        """Take a run's rating away, so that it goes after its days again; return False when the run is unknown."""
        keys = (self._key(run_id), self._server.key(RATED))
        async with self._server.use() as client:
            return bool(await client.eval(UNRATE, 2, *keys, round(self._life * 1_000), run_id))

    async def rated(self, *, limit: int) -> list[RunRecord]:
        """Return at most `limit` rated runs, the last rated first."""
        if limit < 1:
            return []
        async with self._server.use() as client:
            run_ids = await client.zrevrange(self._server.key(RATED), 0, limit - 1)
            async with client.pipeline(transaction=False) as pipe:
                for run_id in cast("list[bytes]", run_ids):
                    pipe.hmget(self._key(run_id.decode()), ["run", "rating"])
                rows = await pipe.execute()
        found = [record_of(run, rating) for run, rating in rows if run]
        return [record for record in found if record is not None]

    async def of_session(self, session_id: str) -> list[RunRecord]:
        """Return all runs of a session."""
        async with self._server.use() as client:
            run_ids = cast("set[bytes]", await client.smembers(self._server.key(OF_SESSION, session_id)))
        found = [await self.get(run_id.decode()) for run_id in run_ids]
        return [record for record in found if record is not None]

    async def forget(self, session_id: str) -> None:
        """Delete the runs of a session, their ratings among them."""
        keys = (self._server.key(OF_SESSION, session_id), self._server.key(RATED))
        async with self._server.use() as client:
            await client.eval(FORGET, 2, *keys, self._key(""))

    def _key(self, run_id: str) -> str:
        return self._server.key(RUN, run_id)
