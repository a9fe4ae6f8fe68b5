# SPDX-FileCopyrightText: The Evanesce Authors
# SPDX-License-Identifier: Apache-2.0
"""The cases: a name is the sentence that has to hold."""

ALL = {}


def case(function):
    """Registers a function under its name, with dashes."""
    ALL[function.__name__.replace("_", "-")] = function
    return function


# They register themselves, in this order.
from . import delivery, events, refusal, mending, permission, workloads, schema, removal, crash  # noqa: E402
from . import rendered, chart, restarts, lending, outage, absence, symptoms, shutdown, scale  # noqa: E402
