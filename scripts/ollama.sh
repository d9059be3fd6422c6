#!/bin/sh
# Builds the real Ollama that `make e2e` and `make bench` talk to, once, and
# prints the path of its binary. Nothing is fetched but Go modules and, as root
# on Debian, two header packages.
#
#   scripts/ollama.sh            # -> ~/.cache/millrace/bin/ollama
#   MILLRACE_CACHE=DIR scripts/ollama.sh
#
# It takes about five minutes on two cores the first time and no time after.
set -eu

version=v0.17.4
malgo=v0.11.24 # carries miniaudio.h, which Debian does not package

say() { printf 'ollama.sh: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

cache=${MILLRACE_CACHE:-${HOME:?set HOME or MILLRACE_CACHE}/.cache/millrace}
mkdir -p "$cache/bin"
cache=$(cd "$cache" && pwd)
bin=$cache/bin/ollama
command -v go >/dev/null || die 'go is not on the PATH; install Go 1.26 or newer'

# Ollama's releases carry a build of the arithmetic for each kind of processor;
# a plain go build has only the oldest, several times slower. -O2 without -g halves
# the time and the size of the build.
flags=-O2
if [ "$(uname -m)" = x86_64 ] && [ -r /proc/cpuinfo ]; then
	v3=1
	for f in avx2 bmi2 f16c fma movbe abm; do
		grep -qwm1 "$f" /proc/cpuinfo || v3=
	done
	[ -z "$v3" ] || flags='-O2 -march=x86-64-v3'
fi

# The binary that is there counts if it was built from this version and for
# this processor.
info=$(go version -m "$bin" 2>/dev/null || true)
if printf '%s\n' "$info" | grep -q "github.com/ollama/ollama[[:space:]]$version" &&
	[ "$(printf '%s\n' "$info" | sed -n 's/.*CGO_CFLAGS=//p' | tr -d '"')" = "$flags" ]; then
	echo "$bin"
	exit 0
fi

cxx=${CXX:-g++}
has_header() { echo "#include <$1>" | "$cxx" -E -x c++ - >/dev/null 2>&1; }

# What Ollama's sources include and do not carry: nlohmann/json.hpp (grammar
# from schema), stb/stb_image.h and miniaudio/miniaudio.h (pictures and sound).
need=
command -v "$cxx" >/dev/null || need="$need g++"
has_header nlohmann/json.hpp || need="$need nlohmann-json3-dev"
has_header stb/stb_image.h || need="$need libstb-dev"
if [ -n "$need" ]; then
	if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
		say "installing$need"
		# shellcheck disable=SC2086 # a list of package names
		{ apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $need; } >&2
	else
		die "Ollama needs$need to build. On Debian or Ubuntu: sudo apt-get install$need"
	fi
fi

work=$(mktemp -d "$cache/ollama-build.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

# Outside any module, so that nobody's go.mod is looked at or changed.
dir=$(cd "$work" && go mod download -json "github.com/gen2brain/malgo@$malgo" |
	sed -n 's/^[[:space:]]*"Dir": "\(.*\)",*$/\1/p')
[ -f "$dir/miniaudio.h" ] || die "github.com/gen2brain/malgo@$malgo holds no miniaudio.h"
include=$cache/include
mkdir -p "$include/miniaudio"
cp -f "$dir/miniaudio.h" "$include/miniaudio/miniaudio.h"
chmod u+w "$include/miniaudio/miniaudio.h"

say "building Ollama $version (once; about five minutes on two cores)"
# A plain go install would call itself version 0.0.0. GOBIN is a fresh
# directory, so that a build that is cut short, or two at once, never leave half
# a binary under the final name.
(
	cd "$work"
	CGO_ENABLED=1 CGO_CFLAGS="$flags" CGO_CXXFLAGS="$flags" CGO_CPPFLAGS="'-I$include'" \
		GOBIN="$work" go install \
		-ldflags "-s -w -X github.com/ollama/ollama/version.Version=${version#v}" \
		"github.com/ollama/ollama@$version"
) >&2
mv -f "$work/ollama" "$bin"
echo "$bin"
