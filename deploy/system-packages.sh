#!/bin/bash
# Installs the system packages that a make target needs, when they are missing: by apt (with sudo when not root), else says what to install.
#
#   system-packages.sh build|test|fuzz|bench
set -euo pipefail

packages=()
optional=()

# need PROGRAM PACKAGE: a program that must be on the PATH
need() {
  command -v "$1" >/dev/null || packages+=("$2")
}

# want PROGRAM PACKAGE: likewise, but without it less is done
want() {
  command -v "$1" >/dev/null || optional+=("$2")
}

case ${1:-} in
  build)
    need gcc gcc
    need make make
    echo '#include <stdlib.h>' | gcc -E - >/dev/null 2>&1 || packages+=(libc6-dev)
    python3 -c 'import ensurepip, venv' 2>/dev/null || packages+=(python3-venv)
    include=$(python3 -c 'import sysconfig; print(sysconfig.get_path("include"))')
    [[ -e $include/Python.h ]] || packages+=(python3-dev)
    ;;
  test)
    need unshare util-linux
    need strace strace
    perl -MCGI -e 1 2>/dev/null || optional+=(libcgi-pm-perl)
    want pypy3 pypy3
    want git git
    want php-cgi php-cgi
    [[ -e /usr/lib/cgi-bin/awstats.pl ]] || optional+=(awstats)
    [[ -e /usr/share/gitweb/gitweb.cgi ]] || optional+=(gitweb)
    [[ -e /usr/lib/cgit/cgit.cgi ]] || optional+=(cgit)
    ;;
  fuzz)
    need clang clang
    echo 'int LLVMFuzzerTestOneInput(void) { return 0; }' |
      clang -fsanitize=fuzzer,address -x c -o /dev/null - 2>/dev/null || packages+=(libclang-rt-dev)
    ;;
  bench)
    need wrk wrk
    need nginx nginx-light
    need lighttpd lighttpd
    need taskset util-linux
    want apache2 apache2
    want h2o h2o
    want caddy caddy
    echo '#include <ev.h>' | gcc -E - >/dev/null 2>&1 || optional+=(libev-dev)
    perl -MCGI -e 1 2>/dev/null || optional+=(libcgi-pm-perl)
    ;;
  *)
    echo "usage: system-packages.sh build|test|fuzz|bench" >&2
    exit 2
    ;;
esac

((${#packages[@]} + ${#optional[@]} == 0)) && exit 0

if ! command -v apt-get >/dev/null; then
  ((${#packages[@]} == 0)) && exit 0
  echo "These are missing and there is no apt here; install them and try again: ${packages[*]}" >&2
  exit 1
fi
sudo=
if ((EUID != 0)); then
  if ! command -v sudo >/dev/null; then
    ((${#packages[@]} == 0)) && exit 0
    echo "These packages are missing; install them as root and try again: apt-get install ${packages[*]}" >&2
    exit 1
  fi
  sudo=sudo
fi
$sudo apt-get update -qq
for package in "${optional[@]}"; do
  if apt-cache show "$package" >/dev/null 2>&1; then
    packages+=("$package")
  else
    echo "skipped: apt has no package $package"
  fi
done
((${#packages[@]} == 0)) && exit 0
echo "installing ${packages[*]}"
# Servers that are installed for measuring must not start by themselves.
$sudo env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
