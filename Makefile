# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

# The newest Python here that can run the tests (3.11 or later).
PYTHON ?= $(shell sh tests/find-python)

.PHONY: help test lint unit sanity integration fleet crash bench demo clean

# What there is, from the one table of it. It comes first, so `make` alone starts nothing.
help:
	@sed -n 's/^| `\(make [a-z]*\)` | \(.*\) |$$/\1\t\2/p' CONTRIBUTING.md | tr -d '`' | expand -t 20

# It writes nothing outside its folder.
demo: export PYTHONDONTWRITEBYTECODE = 1

# Everything, with what it needs installed first.
test lint unit sanity integration fleet crash bench demo clean:
	@test -n "$(PYTHON)" || { echo "make $@ needs Python 3.11 or later" >&2; exit 1; }
	@"$(PYTHON)" tests/run.py $@
