#!/usr/bin/env bash
# The documents as a static site: build/site/index.html. Needs `pip install -e '.[docs]'`.
# Usage: bash docs/site.sh [arguments of mkdocs build]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
pages=build/pages # the pages keep their places beside one another, so that a link is right here and on the site
rm -rf "$pages"
mkdir -p "$pages/docs"
cp ./*.md "$pages"
cp -R docs/. "$pages/docs"
rm -f "$pages"/docs/*.sh "$pages"/docs/*.css "$pages"/docs/*.pdf
find conversion/README.md launch -name '*.md' | while read -r page; do
  mkdir -p "$pages/$(dirname "$page")"
  cp "$page" "$pages/$page"
done
python -m mkdocs build --strict --config-file mkdocs.yml "$@"
