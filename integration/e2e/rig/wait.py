# SPDX-FileCopyrightText: The Evanesce Authors
# SPDX-License-Identifier: Apache-2.0
"""Waiting for a condition, never for a time."""

import time


class Failure(Exception):
    """What a case expected and what it saw instead; the report prints it as it is."""


def until(what, condition, seconds=60, every=0.25):
    """The first true answer of `condition`; `Failure` names `what` and the last answer after `seconds`.

    A `Failure` of the condition itself counts as "not yet".
    """
    end = time.monotonic() + seconds
    while True:
        try:
            answer = condition()
        except Failure as failure:
            seen = failure
        else:
            if answer:
                return answer
            seen = answer
        if time.monotonic() > end:
            raise Failure(f"{what}: not within {seconds} s; last seen: {seen!s}"[:4000])
        time.sleep(every)


def check(truth, what):
    """`Failure` with `what` unless `truth`."""
    if not truth:
        raise Failure(what)


def refused(action):
    """What an action that is to fail says; `Failure` if it does not fail."""
    try:
        action()
    except Failure as failure:
        return str(failure)
    raise Failure("it was not refused")
