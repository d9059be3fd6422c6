#!/bin/sh
# Runs each fuzz target for the time given, one after the other:
#
#   scripts/fuzz.sh [TIME [PACKAGES]]      # 30s ./...
set -eu
time=${1:-30s}
[ $# = 0 ] || shift
go=${GO:-go}
"$go" list "${@:-./...}" | while read -r pkg; do
	targets=$("$go" test -list '^Fuzz' "$pkg")
	for target in $(printf '%s\n' "$targets" | grep '^Fuzz' || true); do
		echo "== $pkg $target"
		# By default Go spends up to a minute on making each new input smaller,
		# and hardly any time on fuzzing.
		"$go" test -run '^$' -fuzz "^$target\$" -fuzztime "$time" -fuzzminimizetime 10x "$pkg" </dev/null
	done
done
