#!/usr/bin/env bash
# The one place that sets agentlab up.   scripts/setup.sh core | dev | service COMMAND PACKAGE
#   core     what `agentlab discover` needs: no torch, no development tools
#   dev      core and torch, pytest, ruff, mypy: what `make test` and `make check` need
#   service  a program that some tests need, from Debian's PACKAGE; fails with one line where it may not be installed
# The environment is $VENV (.venv unless told). A second call with nothing changed returns at once.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
VENV=${VENV:-.venv}
PYTHON=${PYTHON:-python3}

die() { echo "setup: $*" >&2; exit 5; }

on_debian_as_root() { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; }

apt_install() {
  export DEBIAN_FRONTEND=noninteractive
  apt-get install -y -q --no-install-recommends "$@" && return
  apt-get update -q && apt-get install -y -q --no-install-recommends "$@"
}

make_venv() {
  [ -x "$VENV/bin/python" ] && return
  command -v "$PYTHON" >/dev/null || die "no $PYTHON here; install Python 3.11 or newer, or name one with PYTHON=..."
  "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    die "$PYTHON is older than 3.11; name a newer one with PYTHON=..."
  # Debian's python3 comes without ensurepip, which venv needs.
  if ! "$PYTHON" -c 'import ensurepip, venv' 2>/dev/null; then
    on_debian_as_root || die "$PYTHON has no venv; install it (Debian: apt-get install python3-venv), then run this again"
    apt_install python3-venv >&2
  fi
  "$PYTHON" -m venv "$VENV"
}

install() { # NAME-OF-STAMP REQUIREMENT
  local stamp="$VENV/.agentlab-$1" want
  want=$({ cat pyproject.toml constraints.txt && pwd; } | sha256sum)
  [ "$(cat "$stamp" 2>/dev/null)" = "$want" ] && return
  make_venv
  echo "setup: installing agentlab ($1) into $VENV" >&2
  "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check -c constraints.txt -e "$2" >&2
  echo "$want" >"$stamp"
}

case "${1:-}" in
  core) install core . ;;
  dev)
    install dev '.[train,dev]'
    cp "$VENV/.agentlab-dev" "$VENV/.agentlab-core"
    ;;
  service)
    command -v "$2" >/dev/null && exit
    on_debian_as_root || die "$2 is missing; install it (Debian: apt-get install $3)"
    apt_install "$3" >&2
    ;;
  *) die "say what to set up: core, dev, or service COMMAND PACKAGE" ;;
esac
