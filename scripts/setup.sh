#!/usr/bin/env bash
# The one place that sets agentlab up.   scripts/setup.sh core | dev | service COMMAND PACKAGE | postgres | engine
#   core     what `agentlab discover` needs: no torch, no development tools
#   dev      core and torch, pytest, ruff, mypy: what `make test` and `make check` need
#   service  a program that some tests need, from Debian's PACKAGE; fails with one line where it may not be installed
#   postgres the programs of PostgreSQL, which Debian keeps off the PATH: prints the folder they are in
#   engine   a running Docker engine: uses the one that answers, else installs Debian's and starts it in the background
# The environment is $VENV (.venv unless told). A second call with nothing changed returns at once.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
VENV=${VENV:-.venv}
PYTHON=${PYTHON:-python3}

die() { echo "setup: $*" >&2; exit 5; }

on_debian_as_root() { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; }

apt_install() { # one at a time: several tests may need a program at once
  (
    flock 9
    export DEBIAN_FRONTEND=noninteractive
    apt-get install -y -q --no-install-recommends "$@" && exit
    apt-get update -q && apt-get install -y -q --no-install-recommends "$@"
  ) 9>"${TMPDIR:-/tmp}/agentlab-apt.lock"
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

install() { # NAME-OF-STAMP REQUIREMENT MODULES
  local stamp="$VENV/.agentlab-$1" want
  want=$({ cat pyproject.toml constraints.txt && pwd; } | sha256sum)
  [ "$(cat "$stamp" 2>/dev/null)" = "$want" ] && return
  make_venv
  echo "setup: installing agentlab ($1) into $VENV" >&2
  # Compiling every module of every package takes longer than installing them. What runs is compiled when it is first
  # imported; MODULES now, since sandboxes see the packages read-only.
  "$VENV/bin/python" -m pip install --quiet --no-compile --disable-pip-version-check -c constraints.txt -e "$2" >&2
  "$VENV/bin/python" -c "import $3"
  echo "$want" >"$stamp"
}

service() { # COMMAND PACKAGE
  command -v "$1" >/dev/null && return
  on_debian_as_root || die "$1 is missing; install it (Debian: apt-get install $2)"
  apt_install "$2" >&2
}

postgres_folder() {
  local found
  found=$(command -v initdb || ls /usr/lib/postgresql/*/bin/initdb 2>/dev/null | sort -V | tail -n 1)
  [ -n "$found" ] && dirname "$(readlink -f "$found")"
}

postgres() {
  postgres_folder && return
  on_debian_as_root || die "initdb is missing; install it (Debian: apt-get install postgresql)"
  apt_install postgresql >&2
  postgres_folder || die "Debian's postgresql brought no initdb"
}

engine() {
  docker info >/dev/null 2>&1 && return
  service dockerd docker.io
  docker info >/dev/null 2>&1 && return
  [ "$(id -u)" = 0 ] || die "no Docker engine answers; start one"
  local log=${TMPDIR:-/tmp}/agentlab-dockerd.log
  setsid env -u COLUMNS -u LINES dockerd </dev/null >"$log" 2>&1 &
  for _ in $(seq 120); do
    docker info >/dev/null 2>&1 && return
    sleep 0.5
  done
  die "dockerd did not start: $(tail -n 1 "$log")"
}

case "${1:-}" in
  core) install core . "agentlab.runs, agentlab.tools.fit, agentlab.tools.program" ;;
  dev)
    install dev '.[train,infer,notebook,otlp,postgres,ray,dev]' \
      "agentlab.runs, agentlab.tools.fit, agentlab.tools.program, scipy.optimize, torch"
    cp "$VENV/.agentlab-dev" "$VENV/.agentlab-core"
    ;;
  service) service "$2" "$3" ;;
  postgres) postgres ;;
  engine) engine ;;
  *) die "say what to set up: core, dev, service COMMAND PACKAGE, postgres, or engine" ;;
esac
