"""Facts that WebArena-Verified's tasks take for granted of its forum; all else is invented."""

from __future__ import annotations

USER = "MarvelsGrantMan136"
FORUMS = {
    "BuyItForLife": 10003,
    "Connecticut": 10006,
    "DIY": 10007,
    "EarthPorn": 10008,
    "Futurology": 10009,
    "IAmA": 10010,
    "MachineLearning": 10011,
    "UpliftingNews": 10012,
    "Worcester": 10013,
    "books": 10037,
    "consoles": 10039,
    "dataisbeautiful": 10042,
    "deeplearning": 10043,
    "explainlikeimfive": 10044,
    "funny": 10046,
    "gadgets": 10047,
    "gaming": 10048,
    "headphones": 10050,
    "history": 10051,
    "iphone": 10052,
    "massachusetts": 10055,
    "movies": 10060,
    "news": 10064,
    "nyc": 10067,
    "personalfinance": 10070,
    "photoshopbattles": 10071,
    "pics": 10072,
    "pittsburgh": 10073,
    "relationship_advice": 10075,
    "singularity": 10077,
    "space": 10079,
    "sports": 10080,
    "technology": 10082,
    "television": 10083,
    "videos": 10085,
    "wallstreetbets": 10087,
    "washington": 10030,
}
NEWEST = {
    "books": 124260,
    "DIY": 119019,
    "Futurology": 119517,
    "deeplearning": 125036,
    "explainlikeimfive": 125342,
    "personalfinance": 126800,
    "Worcester": 123100,
    "space": 134164,
    "photoshopbattles": 127200,
}
"""Forum -> its newest post."""
TOP = {
    "gadgets": (19459,),
    "history": (58888, 41616),
    "books": (81371, 59421, 59447),
    "movies": (86174, 86029, 86055, 42682),
    "technology": (48670, 134696, 48785, 70354, 70233),
}
"""Forum -> the posts with most votes, in order."""
HOTTEST = {"space": 69581}
DISPUTED = {"consoles": 17949}
MOST_COMMENTED = {"pittsburgh": 132053}
AUTHORS = {
    ("wallstreetbets", "ThetaGang_wsb"): (29478, 29458),
    ("EarthPorn", "CameronKelsey"): (98332, 98297, 98256),
    ("IAmA", "UniversityofBath"): (119742, 119719, 119714, 55155, 55142, 34032, 13175, 13170),
    ("nyc", "Don_Gato1"): (44650,),
    ("news", "Hrekires"): (129816, 129808, 129794, 129783, 129594, 129508, 43839, 43781, 43572, 43558),
    ("massachusetts", "RickyDontLoseThat"): (84954,),
    ("videos", "PatientBuilder499"): (115139,),
    ("sports", "sirbarani"): (48303,),
    ("UpliftingNews", "AdamCannon"): (16087,),
    ("MachineLearning", USER): (1,),
    ("television", USER): (134868, 135201, 135156, 70886),
    ("personalfinance", "Hammer94"): (126800,),
    ("Worcester", "mineinhusdson"): (123100,),
    ("DIY", "ziostraccette"): (119019,),
    ("space", "Dhghomon"): (134164,),
    ("photoshopbattles", "Proud_Idiot"): (127200,),
}
"""(forum, who) -> all that they posted there."""
OTHERS = {"singularity": (69404,), "pittsburgh": (45899,), "technology": (134852,)}
TITLES = {
    1: "Nvidia RTX 4090",
    134868: "'The Night Agent' Renewed for Season 2 at Netflix",
    135201: "Star Trek: Starfleet Academy Series, From Alex Kurtzman and Nancy Drew Creator, Ordered at Paramount+",
    135156: "‘Ted Lasso’ Season 3 Premiere Scores 870K U.S. Households, Up 59% From Season 2 Premiere",
    70886: "‘The Lord Of The Rings: The Rings Of Power’ Adds 8 To Season 2 Cast",
    126800: "56 year old mom has no retirement. Where do I even start on her behalf?",
    123100: "Best place for a foot rub?",
    119019: "How can I bring an HDMI cable from my pc downstairs to my TV upstairs?",
    134164: "Scientists erupt at NASA gutting funding for crucial Venus mission",
    127200: "UK Prime Minister Rishi Sunak looking at a pothole",
}
BODIES = {1: "Crazy device for ML!"}
SLUGS = {
    69581: "the-moon-saturn-and-jupiter-through-my-4-telescope-and",
    81371: "the-letters-of-t-s-eliot-to-emily-hale-that-were-kept-sealed",
    17949: "i-like-xbox-series-s-more-than-xbox-series-x",
    132053: "is-bbq-chipped-chopped-ham-a-thing-my-grandma-says-it-is",
    59421: "friendly-reminder-bookshop-org-exists",
    69404: "this-is-how-chatgpt-sees-itself",
    45899: "driving-in-pittsburgh-summed-up-by-one-traffic-sign",
    134852: "ai-experts-disown-musk-backed-campaign-citing-their-research",
}
COMMENTS = {
    1235250: (59421, "bookshop_manager", "I manage the website, and I am glad that it is of use to you."),
    1042264: (69404, "firstinline", "I am not sure what to make of this."),
}
"""Number -> (post, who, what)."""
PICTURES = {
    "Bald Eagle": "b02113033af32feae9ff147dbbe3764039368d67d193885bd04e65c2e6beea9c",
    "Thanksgiving turkey": "2e4fa0a328e653a97a7d07046291c298ef5b4e0d0c73a287f317ca86a8e8685f",
    "Firework": "92411be6af4e9ad5ccd3ccbaa01c10457bb00e704e99c58dd430de1a958307fd",
    "Wife's costume": "6bfbf1280d28d84a9261695f0cac5a90addaaff1174807a2b381fdc159f3ed00",
    "costume contest": "bd8bc5f4c846aac4df08626faa3a34a7d47c8f3bdd92bf615a54afd939f063a7",
}
"""Title in pics -> the picture's name."""
