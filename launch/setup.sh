# shellcheck shell=bash
# Creates .venv beside pyproject.toml and installs the project into it; sourced by the other scripts of this folder.
# ANYORDER_EXTRAS: what to install (default: babyai,report,dev). PYTHON: the interpreter (default: python3).
# ANYORDER_VENV: an environment of yours with the project in it, used as it is.
cd "$(dirname "${BASH_SOURCE[0]}")/.." || return
export JAX_PLATFORMS="${JAX_PLATFORMS:-cpu}"
if [ -n "${ANYORDER_VENV:-}" ]; then
  export PATH="$ANYORDER_VENV/bin:$PATH"
  return
fi
stamp=.venv/installed-${ANYORDER_EXTRAS:-babyai,report,dev}
is_installed() { [ -x .venv/bin/python ] && [ -f "$stamp" ] && [ ! pyproject.toml -nt "$stamp" ]; }
if ! is_installed && [ ! -w . ]; then
  echo "$PWD cannot be written and has no finished .venv: set ANYORDER_VENV to an environment with the project in it." >&2
  return 1
fi
if [ ! -x .venv/bin/python ]; then
  "${PYTHON:-python3}" -m venv .venv
fi
# shellcheck source=/dev/null
. .venv/bin/activate
if ! is_installed; then
  echo "Installing anyorder_jax[${ANYORDER_EXTRAS:-babyai,report,dev}] into .venv"
  python -m pip install --quiet --disable-pip-version-check -e ".[${ANYORDER_EXTRAS:-babyai,report,dev}]"
  touch "$stamp"
fi
