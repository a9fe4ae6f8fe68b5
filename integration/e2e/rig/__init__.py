# SPDX-FileCopyrightText: The Evanesce Authors
# SPDX-License-Identifier: Apache-2.0
"""What the cases stand on: a cluster, an OpenBao beside it, the plugin in it, and ways to look at them.

Python's standard library only, so that a bare machine needs nothing for it.
"""
