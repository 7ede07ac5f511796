"""WebArena: the 812 tasks of WebArena-Verified, played in a headless Chromium and scored by its own scorer."""
