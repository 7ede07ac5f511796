"""Web: pages in a headless browser, as text and as actions in BrowserGym's words. What worlds of pages share."""
