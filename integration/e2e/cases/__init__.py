# SPDX-FileCopyrightText: The Evanesce Authors
# SPDX-License-Identifier: Apache-2.0
"""The cases: a name is the sentence that has to hold."""

ALL = {}


def case(function):
    """Registers a function under its name, with dashes."""
    ALL[function.__name__.replace("_", "-")] = function
    return function


from . import delivery, refusal, permission, removal, crash, outage, schema  # noqa: E402  they register themselves, in this order
