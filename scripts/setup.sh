#!/usr/bin/env bash
# Prepares everything that `make demo` and `make test` need: the system packages and `.venv`.
# A second start finds its own stamp and does nothing. `PYTHON=...` chooses the interpreter.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD
venv=$root/.venv
stamp=$venv/.gan3d-ready
unfinished=$venv/.gan3d-unfinished

torch_requirements=(torch==2.7.1 torchvision==0.22.1)
system_packages=(libusb-1.0-0 libegl1 libgl1 ffmpeg)

# Another project's environment must not decide what is imported or where pip installs.
unset PYTHONPATH PYTHONHOME VIRTUAL_ENV PIP_TARGET PIP_PREFIX PIP_ROOT PIP_USER
export PYTHONNOUSERSITE=1 PIP_DISABLE_PIP_VERSION_CHECK=1

# The environment may be the activated one, or lead the PATH (the Makefile does that); it must not be
# chosen as the interpreter that makes it.
path_without_venv=
while IFS= read -r -d : folder; do
  [[ $folder == "$venv/bin" ]] || path_without_venv+=${path_without_venv:+:}$folder
done <<<"$PATH:"
PATH=$path_without_venv

trap 'exit 130' INT
trap 'exit 143' TERM

say() { printf 'setup: %s\n' "$*"; }
fail() {
  printf 'setup: %s\n' "$*" >&2
  exit 1
}

is_debian() { command -v dpkg-query >/dev/null && command -v apt-get >/dev/null; }

is_installed() {
  local state
  state=$(dpkg-query --show --showformat='${db:Status-Status}' "$1" 2>/dev/null) || return 1
  [[ $state == installed ]]
}

# Prints the first argument when it is a Python that this project supports and that can make a
# virtual environment. A name on the PATH can be a wrapper without a Python behind it, so it is run.
python_state() {
  "$1" - 2>/dev/null <<'PYTHON' || echo absent
import sys

if not (3, 10) <= sys.version_info < (3, 13):
    print("unsupported")
else:
    try:
        import ensurepip
        import venv

        print("ready")
    except ImportError:
        print("no-venv")
PYTHON
}

# Prints what this Python lacks to build an extension in C: `compiler`, `headers`, both or nothing.
# nerfstudio's viser needs pyliblzfse, which the package index has only as source.
lacks_to_build() {
  "$1" - build <<'PYTHON'
import os
import shlex
import shutil
import sysconfig

compiler = os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc"
if shutil.which(shlex.split(compiler)[0]) is None:
    print("compiler")
if not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")):
    print("headers")
PYTHON
}

# Sets `python` to a usable interpreter, or to nothing; `without_venv` to one that lacks only venv.
find_python() {
  python= without_venv=
  local candidate state
  for candidate in ${PYTHON:+"$PYTHON"} python3.11 python3.12 python3.10 python3 python; do
    command -v "$candidate" >/dev/null || continue
    state=$(python_state "$candidate")
    if [[ $state == ready ]]; then
      python=$candidate
      return
    fi
    if [[ $state == no-venv && -z $without_venv ]]; then without_venv=$candidate; fi
    if [[ -n ${PYTHON:-} && $candidate == "$PYTHON" ]]; then
      fail "PYTHON=$PYTHON is not a Python 3.10, 3.11 or 3.12 with the venv module; name another" \
        "one or leave PYTHON out."
    fi
  done
}

# Installs Debian packages, or prints the line that would and stops.
install_system_packages() {
  local line="apt-get install -y --no-install-recommends $*"
  local shown="sudo $line"
  local -a as_root=()
  if [[ $(id -u) -ne 0 ]]; then
    if command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
      as_root=(sudo -n)
    else
      fail "these system packages are missing and installing them needs your password. Run" \
        "this line, then start again:"$'\n'"  $shown"
    fi
  else
    shown=$line
  fi
  say "installing the system packages: $*"
  "${as_root[@]}" apt-get update -q || say "the package lists could not be renewed; going on"
  # shellcheck disable=SC2086 # the line is split into its words
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive $line ||
    fail "installing failed. Run this line by hand, then start again:"$'\n'"  $shown"
}

# Prints the Debian packages without which the dependencies cannot be installed.
packages_for_python() {
  local chosen=${python:-$without_venv} lacking version
  if [[ -z $chosen ]]; then
    command -v python3 >/dev/null || echo python3 python3-venv python3-dev gcc libc6-dev
    return
  fi
  version=$(python_version "$chosen")
  if [[ -z $python ]]; then echo "python$version-venv"; fi
  lacking=$(lacks_to_build "$chosen")
  if [[ $lacking == *compiler* ]]; then echo gcc libc6-dev; fi
  if [[ $lacking == *headers* ]]; then echo "python$version-dev"; fi
}

check_debian() {
  local package
  local -a missing=()
  for package in "${system_packages[@]}" ${installing:+$(packages_for_python)}; do
    is_installed "$package" || missing+=("$package")
  done
  if ((${#missing[@]})); then install_system_packages "${missing[@]}"; fi
}

# Elsewhere the names of packages differ, so that only what can be seen is checked.
check_other_system() {
  local lacking=
  command -v ffmpeg >/dev/null || lacking=ffmpeg
  if [[ ${installing:-} && -n $python ]]; then lacking+=" $(lacks_to_build "$python")"; fi
  [[ -z ${lacking// /} ]] || fail "this system lacks what nerfstudio needs:" $lacking "(a C compiler" \
    "and Python's headers build one dependency, ffmpeg writes videos; libGL, libEGL and libusb are" \
    "needed too); install it with your system's package manager, then start again."
}

check_system() {
  if is_debian; then check_debian; else check_other_system; fi
}

# What an environment depends on: its place (its scripts name it) and these two files.
fingerprint() {
  printf '%s\n' "$root"
  cat pyproject.toml scripts/setup.sh | sha256sum
}

python_version() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null; }

is_wanted_python() {
  [[ -z ${PYTHON:-} || $(python_version "$venv/bin/python") == "$(python_version "$PYTHON")" ]]
}

# Whether .venv can be brought up to date in place.
venv_is_whole() {
  [[ ! -e $unfinished && $(python_state "$venv/bin/python") == ready ]] &&
    [[ ! -e $stamp || $(head -n 1 "$stamp") == "$root" ]] && is_wanted_python
}

is_ready() {
  [[ -f $stamp && ! -e $unfinished && -x $venv/bin/python ]] &&
    [[ $(<"$stamp") == "$(fingerprint)" ]] && is_wanted_python
}

if command -v flock >/dev/null; then
  exec 9>.setup.lock
  flock --nonblock 9 || {
    say "another set-up is running; waiting for it"
    flock 9
  }
fi

if is_ready; then
  check_system
  exit 0
fi

installing=yes
find_python
check_system
if [[ -z $python ]]; then find_python; fi
[[ -n $python ]] || fail "no Python 3.10, 3.11 or 3.12 with the venv module was found on the PATH;" \
  "install one (on Debian and Ubuntu: python3 and python3-venv) or name it: make PYTHON=/path/to/python3.11"

if [[ -e $venv || -L $venv ]] && ! venv_is_whole; then
  say "the environment in .venv is unfinished, moved or for another Python; making it anew"
  rm -rf "$venv"
fi
if [[ ! -e $venv ]]; then
  say "making .venv with $("$python" --version)"
  mkdir "$venv"
  touch "$unfinished"
  "$python" -m venv "$venv"
fi
rm -f "$stamp"
touch "$unfinished"
say "installing torch, nerfstudio and this project (about three minutes, 8 GB on disk)"
# pip undoes an installation that fails, so the mark of an unfinished one is left only by an
# interruption.
"$venv/bin/python" -m pip install --quiet --no-user "${torch_requirements[@]}" --editable ".[dev]" || {
  rm -f "$unfinished"
  fail "pip could not install the dependencies; see its message above, then start again."
}
fingerprint >"$stamp"
rm -f "$unfinished"
say "ready"
