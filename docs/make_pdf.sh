#!/usr/bin/env bash
# docs/paper.md -> docs/paper.pdf, through HTML. Needs pandoc and Chromium (Debian: apt-get install pandoc chromium).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
chromium=$(command -v chromium || command -v chromium-browser || command -v google-chrome) \
  || { echo "make_pdf.sh: no Chromium found; on Debian: apt-get install chromium"; exit 1; }
command -v pandoc > /dev/null || { echo "make_pdf.sh: no pandoc found; on Debian: apt-get install pandoc"; exit 1; }
page=$(mktemp -d)
trap 'rm -rf "$page"' EXIT
pandoc paper.md --standalone --self-contained --mathml --resource-path=. --css=paper.css --output="$page/paper.html"
"$chromium" --headless --no-sandbox --disable-gpu --no-pdf-header-footer --print-to-pdf="$page/paper.pdf" \
  "file://$page/paper.html" 2> "$page/log" || { cat "$page/log"; exit 1; }
mv "$page/paper.pdf" paper.pdf
echo "docs/paper.pdf"
