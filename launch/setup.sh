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
if [ ! -x .venv/bin/python ]; then
  "${PYTHON:-python3}" -m venv .venv
fi
# shellcheck source=/dev/null
. .venv/bin/activate
stamp=.venv/installed-${ANYORDER_EXTRAS:-babyai,report,dev}
if [ ! -f "$stamp" ] || [ pyproject.toml -nt "$stamp" ]; then
  echo "Installing anyorder_jax[${ANYORDER_EXTRAS:-babyai,report,dev}] into .venv"
  python -m pip install --quiet --disable-pip-version-check -e ".[${ANYORDER_EXTRAS:-babyai,report,dev}]"
  touch "$stamp"
fi
