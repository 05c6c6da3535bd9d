#!/bin/sh
# Installs what the tests and benchmarks run beside the gateway, if it is missing: on Debian and its relatives as root or with sudo, elsewhere it
# only says what is missing. Without these programs the tests that need them are skipped (they fail when CI=true). No service is started.
# BENCH=1 adds what only benchmarks run.
set -eu

PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

# program:package. A C compiler because the race detector links with it.
wanted='nginx:nginx haproxy:haproxy mariadbd:mariadb-server mariadb-install-db:mariadb-server mariadb:mariadb-client curl:curl wrk:wrk
  nghttp:nghttp2-client h2load:nghttp2-client
  node:nodejs npm:npm php:php-cli mariadb_config:libmariadb-dev /usr/bin/python3:python3 sysbench:sysbench
  git:git gcc:gcc taskset:util-linux'
# What only benchmarks run beside the gateway.
[ -z "${BENCH:-}" ] || wanted="$wanted caddy:caddy"

programs= packages=
for pair in $wanted; do
  if ! command -v "${pair%%:*}" >/dev/null 2>&1; then
    programs="$programs ${pair%%:*}"
    case " $packages " in *" ${pair#*:} "*) ;; *) packages="$packages ${pair#*:}" ;; esac
  fi
done
# Libraries, which have no program to look for. Debian's own python is the one that finds Debian's pymysql.
php -m 2>/dev/null | grep -q mysqli || { programs="$programs mysqli" packages="$packages php-mysql"; }
/usr/bin/python3 -c 'import pymysql' 2>/dev/null || { programs="$programs pymysql" packages="$packages python3-pymysql"; }
case $packages in *gcc*) packages="$packages libc6-dev" ;; esac
[ -n "$packages" ] || exit 0

echo "missing for the tests:$programs"
if ! command -v apt-get >/dev/null 2>&1; then
  echo "install them with this system's package manager (on Debian:$packages)"
  exit 0
fi

root=
if [ "$(id -u)" -ne 0 ]; then
  # Not asking for a password: a test run must not hang on a prompt.
  if ! command -v sudo >/dev/null 2>&1 || ! sudo -n true 2>/dev/null; then
    echo "run this as root, or: apt-get install$packages"
    exit 0
  fi
  root='sudo -n'
fi

# Debian starts a service as soon as its package is set up, unless policy-rc.d forbids it; one that exists is left as it is.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  trap '$root rm -f "$policy"' EXIT
  trap 'exit 1' INT TERM HUP
  printf '#!/bin/sh\nexit 101\n' | $root tee "$policy" >/dev/null
  $root chmod 755 "$policy"
fi

# shellcheck disable=SC2086 # a list of words
if ! { $root apt-get -q update && $root env DEBIAN_FRONTEND=noninteractive apt-get -q -y install --no-install-recommends $packages; }; then
  echo "could not install:$packages"
  # Without a network the rest of the tests is still worth running.
  [ "${CI:-}" != true ]
fi
