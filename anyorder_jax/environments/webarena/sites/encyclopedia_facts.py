"""Facts that stand in the small encyclopedia: the films of one director, about whom tasks of two sites ask."""

from __future__ import annotations

PERSON = "Christopher Nolan"
CAREER = (
    "1993–2003: Early career and breakthrough",
    "2003–2013: Widespread recognition",
    "2014–2019: Established Hollywood auteur",
    "2020–present",
)
FILMS = {
    "Following": (1998, False, False),
    "Memento": (2000, False, False),
    "Insomnia": (2002, False, False),
    "Batman Begins": (2005, False, True),
    "The Prestige": (2006, False, False),
    "The Dark Knight": (2008, True, True),
    "Inception": (2010, True, True),
    "The Dark Knight Rises": (2012, False, True),
    "Interstellar": (2014, True, True),
    "Dunkirk": (2017, True, True),
    "Tenet": (2020, True, True),
    "Oppenheimer": (2023, False, False),
}
"""Title -> (year, whether it won an Academy Award, whether it was nominated for a BAFTA Award), as of May 2022."""
