"""Many requests in one forward pass: what arrives while the model works is scored together next."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from recbole_mm.serve.recommender import Recommendation, Recommender, Session
from recbole_mm.serve.wishes import Wish

T = TypeVar("T")


class BusyError(Exception):
    """So many sessions wait that another one would wait too long."""


@dataclass(eq=False)
class _Job:
    """One request: its model, sessions and wish, and where its answer goes."""

    recommender: Recommender
    sessions: Sequence[Session]
    wish: Wish
    answer: asyncio.Future[list[Recommendation]]


class Batcher:
    """Gathers requests for one model.

    Nothing waits for company: an idle model is given a request at once. Requests that come while it
    works are scored together when it is free again.

    Parameters
    ----------
    recommender
        Answers.
    most_waiting
        Sessions that may wait; more are refused.
    """

    def __init__(self, recommender: Recommender, most_waiting: int) -> None:
        self.recommender, self.most_waiting = recommender, most_waiting
        self.waiting = 0
        self._jobs: deque[_Job] = deque()
        self._arrived = asyncio.Event()
        # One thread: the model's operations share the processor's cores among themselves.
        self._thread = ThreadPoolExecutor(1, "model")

    async def ask(
        self, sessions: Sequence[Session], wish: Wish, by: Recommender | None = None
    ) -> list[Recommendation]:
        """Return what the sessions are recommended, one by one.

        Parameters
        ----------
        sessions
            Item ids.
        wish
            What is asked for them.
        by
            Another model, which knows new items; None takes the first one.

        Raises
        ------
        BusyError
            Too many wait already.
        """
        if self.waiting + len(sessions) > self.most_waiting:
            raise BusyError
        answer: asyncio.Future[list[Recommendation]] = asyncio.get_running_loop().create_future()
        self._jobs.append(_Job(by or self.recommender, sessions, wish, answer))
        self.waiting += len(sessions)
        self._arrived.set()
        return await answer

    async def do(self, job: Callable[[], T]) -> T:
        """Run something in the model's thread, between two batches."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, job)

    async def work(self) -> None:
        """Answer requests for ever; cancel it to stop."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                await self._arrived.wait()
                jobs = self._take()
                try:
                    answers = await loop.run_in_executor(self._thread, self._answer, jobs)
                except Exception as error:
                    # One request's fault must not end the service; each is told of it.
                    answers = [error] * len(jobs)
                self._hand_out(jobs, answers)
        finally:
            self._thread.shutdown(wait=False)

    def _take(self) -> list[_Job]:
        """Return the oldest requests to one model, as many as are scored at once, but one."""
        taken = [self._jobs.popleft()]
        by, rest = taken[0].recommender, deque[_Job]()
        room = by.scorer.batch_size - len(taken[0].sessions)
        while self._jobs:
            job = self._jobs.popleft()
            fits = job.recommender is by and len(job.sessions) <= room
            (taken if fits else rest).append(job)
            room -= len(job.sessions) if fits else 0
        self._jobs = rest
        if not self._jobs:
            self._arrived.clear()
        return taken

    def _answer(self, jobs: Sequence[_Job]) -> list[list[Recommendation] | Exception]:
        """Score the sessions of all requests at once; runs in the model's thread."""
        sessions = [session for job in jobs for session in job.sessions]
        wishes = [job.wish for job in jobs for _ in job.sessions]
        by = jobs[0].recommender
        size = by.scorer.batch_size
        found: list[Recommendation] = []
        for start in range(0, len(sessions), size):
            part = slice(start, start + size)
            found += by.answer(sessions[part], wishes[part])
        answers = iter(found)
        return [[next(answers) for _ in job.sessions] for job in jobs]

    def _hand_out(
        self, jobs: Sequence[_Job], answers: Sequence[list[Recommendation] | Exception]
    ) -> None:
        for job, found in zip(jobs, answers, strict=True):
            self.waiting -= len(job.sessions)
            if job.answer.done():  # the client went away
                continue
            if isinstance(found, Exception):
                job.answer.set_exception(found)
            else:
                job.answer.set_result(found)
