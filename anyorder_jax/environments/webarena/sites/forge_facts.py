"""Facts that WebArena-Verified's tasks take for granted of its code forge: numbers, names and places."""

from __future__ import annotations

USER, NAMESPACE = "byteblaze", 2505
USERS = {
    "byteblaze": (2330, "Byte Blaze"),
    "yjlou": (168, "Louis Yung-Chieh Lo"),
    "lahwaacz": (1842, "Jakub Klinkovský"),
    "bblanchon": (597, "Benoît Blanchon"),
    "abisubramanya27": (5, "Abishek S"),
    "vinta": (278, "Vinta Chen"),
    "koush": (1912, "Koushik Dutta"),
    "convexegg": (43, "Convex Eggtart"),
    "ghost": (1101, "Ghost User"),
    "R1kk3r": (1102, "R1kk3r"),
    "Roshanjossey": (2264, "Roshan Jossy"),
    "a11yproject": (2325, "A11Y Project"),
    "primer": (2367, "Primer"),
    "rohan": (2366, "Rohan"),
    "patou": (400, "Patou"),
    "egpast": (443, "Eg Past"),
    "westurner": (561, "Wes Turner"),
    "jontutcher": (586, "Jon Tutcher"),
    "JonasVautherin": (632, "Jonas Vautherin"),
    "dilipchandima": (64, "Dilip Chandima"),
    "dawiss1337": (86, "Dawiss"),
    "bmyun": (96, "B. M. Yun"),
    "DCMJY": (340, "DCMJY"),
    "ASWATFZLLC": (83, "ASWAT"),
    "patrickhlauke": (119, "Patrick H. Lauke"),
    "linkmatrix": (145, "Link Matrix"),
    "qhduan": (196, "Q. H. Duan"),
    "Agnes-U": (244, "Agnes U"),
    "pandey2000": (223, "Pandey"),
    "sayakpaul": (224, "Sayak Paul"),
    "davepgreene": (1103, "Dave Greene"),
    "facebook": (1104, "Facebook"),
    "root": (1, "Administrator"),
    "aklsh": (1105, "Akilesh Kannan"),
}
"""User name -> (number, full name)."""
PROJECTS = {
    "a11yproject/a11yproject.com": (174, "a11yproject.com", 14),
    "primer/design": (180, "design", 21),
    "root/metaseq": (33, "metaseq", 30),
    "convexegg/chatgpt": (175, "Chatgpt", 12),
    "0ang3el/aem-hacker": (138, "aem-hacker", 9),
    "vinta/awesome-python": (84, "awesome-python", 25),
    "yjlou/2019-nCov": (79, "2019-nCov", 18),
    "eriklindernoren/PyTorch-GAN": (86, "PyTorch-GAN", 45),
    "facebook/create-react-app": (122, "create-react-app", 52),
    "umano/AndroidSlidingUpPanel": (200, "AndroidSlidingUpPanel", 55),
    "kkroening/ffmpeg-python": (201, "ffmpeg-python", 51),
    "mk-j/PHP_XLSXWriter": (202, "PHP_XLSXWriter", 47),
    "koush/AndroidAsync": (203, "AndroidAsync", 46),
    "thoughtbot/administrate": (204, "administrate", 44),
    "keycloak/keycloak": (205, "keycloak", 43),
    "OpenAPITools/openapi-generator": (206, "openapi-generator", 22),
    "covid19india/covid19india-react": (207, "covid19india-react", 33),
    "convexegg/super_awesome_robot": (208, "Super_Awesome_Robot", 3),
    "aklsh/CacheEval": (170, "CacheEval", 1),
    "aklsh/nvidia-patch": (165, "nvidia-patch", 2),
    "aklsh/SimCache": (163, "SimCache", 1),
    "aklsh/viewgrades-scraper": (164, "viewgrades-scraper", 1),
    "aklsh/dots": (159, "dots", 1),
    "byteblaze/a11y-webring.club": (179, "a11y-webring.club", 2),
    "byteblaze/a11y-syntax-highlighting": (186, "a11y-syntax-highlighting", 1),
    "byteblaze/accessible-html-content-patterns": (185, "accessible-html-content-patterns", 1),
    "byteblaze/cloud-to-butt": (182, "cloud-to-butt", 4),
    "byteblaze/dotfiles": (193, "dotfiles", 0),
    "byteblaze/empathy-prompts": (183, "empathy-prompts", 8),
    "byteblaze/gimmiethat.space": (184, "gimmiethat.space", 0),
    "byteblaze/millennials-to-snake-people": (187, "millennials-to-snake-people", 8),
    "byteblaze/remove-board-movement-events": (181, "Remove board movement events from the issue timeline", 0),
    "byteblaze/solarized-prism-theme": (188, "solarized-prism-theme", 0),
    "byteblaze/timeit": (190, "timeit, a time tracking tool", 0),
    "byteblaze/notes": (189, "notes", 0),
}
"""Path -> (number, name, stars)."""
MEMBERS = {"byteblaze/gimmiethat.space": ("yjlou",), "byteblaze/solarized-prism-theme": ("abisubramanya27",)}
LABELS = {
    "a11yproject/a11yproject.com": ("bug", "feature", "content"),
    "primer/design": ("type: bug 🐞", "content"),
    "root/metaseq": ("enhancement", "question", "bug"),
    "byteblaze/a11y-syntax-highlighting": ("help wanted", "bug"),
    "kkroening/ffmpeg-python": ("question", "bug"),
    "keycloak/keycloak": ("flaky-test", "area/storage"),
    "OpenAPITools/openapi-generator": ("OpenAPI Generator CLI", "Issue: Bug"),
    "umano/AndroidSlidingUpPanel": ("BUG", "Question"),
}
ISSUES = {
    ("a11yproject/a11yproject.com", 1478): (83101, "404s, bad host, timeouts, bad urls for URLs linked from website"),
    ("byteblaze/a11y-webring.club", 71): (83102, "Link to an accessibility statement"),
    ("primer/design", 104): (83759, "Flash alerts in dialog components"),
    ("primer/design", 316): (83103, "Bug: flash alert uses the wrong colour"),
}
"""(project, number there) -> (number, title)."""
REQUESTS = {
    139245: ("primer/design", "Add octovisuals page", "primer"),
    72594: ("a11yproject/a11yproject.com", "Add semantic HTML post", "Roshanjossey"),
    72404: ("a11yproject/a11yproject.com", "Document focus edge cases", "Roshanjossey"),
    72135: ("a11yproject/a11yproject.com", "Color utility classes", "abisubramanya27"),
    72409: ("a11yproject/a11yproject.com", "Update WCAG links", "abisubramanya27"),
    72560: ("a11yproject/a11yproject.com", "Fix 404 link", "Roshanjossey"),
    138843: ("byteblaze/empathy-prompts", "Fix the broken links", "yjlou"),
    138783: ("byteblaze/a11y-webring.club", "Add verification functions", "davepgreene"),
}
"""Number -> (project, title, who asks)."""
MINE = (138783, 72409, 72560)
"""Merge requests that wait for `USER`."""
ANSWERED = (72409,)
"""Those whose author wrote last."""
BRANCHES = {
    "primer/design": ("main", "dialog", "dialog-component", "bump-doctocat"),
    "a11yproject/a11yproject.com": ("main", "redesign", "feature/markdown-figure-block"),
    "byteblaze/cloud-to-butt": ("master",),
}
FILES = {
    ("byteblaze/gimmiethat.space", "index.html"): (
        "<!doctype html>\n<html>\n<head>\n<title>Gimmie that space</title>\n</head>\n"
        "<body>\n<p>Space!</p>\n</body>\n</html>\n"
    ),
    ("byteblaze/gimmiethat.space", "LICENSE"): "All rights reserved.\n",
    ("byteblaze/cloud-to-butt", "LICENSE.txt"): "Do what you like.\n",
    ("byteblaze/accessible-html-content-patterns", "LICENSE"): "MIT License\n",
    ("byteblaze/a11y-syntax-highlighting", "LICENSE"): "MIT License\n",
    ("byteblaze/dotfiles", "LICENSE"): "All rights reserved.\n",
}
TEMPLATES = {
    "android": "Android",
    "express": "NodeJS Express",
    "plainhtml": "Pages/Plain HTML",
    "jekyll": "Pages/Jekyll",
    "nfjekyll": "Netlify/Jekyll",
}
FEED_TOKEN = "TMN_bBn9Z48qVbUFZV45"
COMMITS = {
    ("a11yproject/a11yproject.com", "Kilian Valkhof", "2023-03-05"): 1,
    ("a11yproject/a11yproject.com", "Eric Bailey", "2023-03-02"): 2,
    ("a11yproject/a11yproject.com", "Eric Bailey", "2023-01-03"): 1,
    ("a11yproject/a11yproject.com", "Nic Chan", "2022-04-07"): 5,
    ("byteblaze/a11y-webring.club", "Steven Woodson", "2023-02-06"): 5,
}
"""(project, author, day) -> how many; on other days there are none of these authors."""
